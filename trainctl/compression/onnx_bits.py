"""An ONNX graph whose weights take fewer bits: read it, rewrite its constants, write it.

A weight in 8 or 16 bits is followed by operators that widen it to float32 again. ONNX Runtime carries these out once,
when it loads the file (it would not do so with DequantizeLinear, which made a net of three layers 2.3 times slower at
batch 1); so the file shrinks, while time and memory stay those of float32.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainctl.compression.onnx_net import quietly

SMALL = 16  # constants of fewer values are left: a bias of two classes, a mean, a shape
_CHANNELS = {  # the axes of a weight, by operator and input, along which scales differ
    ("Conv", 1): (0,),
    ("ConvTranspose", 1): (1,),
    ("MatMul", 1): (-1,),
    ("LSTM", 1): (0, 1),
    ("LSTM", 2): (0, 1),
    ("GRU", 1): (0, 1),
    ("GRU", 2): (0, 1),
}


@dataclass(frozen=True)
class Weight:
    """A float constant: the operators that read it are of the module `layer`; scales differ along `channels`."""

    name: str
    layer: str
    operator: str
    channels: tuple[int, ...]
    values: np.ndarray


def read(content: bytes) -> Any:
    """The graph with what depends on constants alone worked out: an exporter puts an LSTM's weights together in it."""
    import onnx
    import onnx_ir
    from onnxscript import optimizer

    model = onnx.load_model_from_string(content)
    with quietly():
        graph = onnx_ir.from_proto(model)
        optimizer.fold_constants(graph, input_size_limit=2**40, output_size_limit=2**40)
        folded = onnx_ir.to_proto(graph)
    _drop_unused(folded.graph)
    return folded if folded.ByteSize() <= 1.1 * model.ByteSize() else model


def write(model: Any) -> bytes:
    """The graph as bytes, without what only a reader of the graph needs."""
    _drop_unused(model.graph)
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))


def layer_of(name: str, node: Any) -> str:
    """The torch module of a constant that `node` reads, `""` for the net itself or when the exporter did not say.

    A parameter has its module in its name; one that was worked out from others has that of its operator.
    """
    if "." in name:
        return name.rpartition(".")[0]
    said = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
    scopes = ast.literal_eval(said)
    return str(scopes[-2]) if len(scopes) > 1 else ""


def layers(model: Any) -> list[str]:
    """Modules that have weights in the graph, in its order."""
    return list(dict.fromkeys(weight.layer for weight in weights(model)))


def weights(model: Any, matrices: bool = True) -> Iterator[Weight]:
    """The float constants of the graph; `matrices`: those of two dimensions or more alone."""
    from onnx import TensorProto, numpy_helper

    readers: dict[str, tuple[Any, int]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, (node, index))
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name not in readers:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size >= SMALL and (not matrices or values.ndim >= 2):
            node, index = readers[tensor.name]
            yield Weight(
                tensor.name, layer_of(tensor.name, node), node.op_type, _channels(node, index, values.ndim), values
            )


def to_int8(model: Any, skipped: Collection[str], left: Collection[str]) -> list[Weight]:
    """Weights in int8 with a scale per channel, widened at loading; not `skipped` ones nor those of layers `left`."""
    from onnx import TensorProto, helper, numpy_helper

    done = [w for w in weights(model) if w.name not in skipped and w.layer not in left]
    constants, nodes = [], []
    for weight in done:
        codes, scale = int8(weight.values, weight.channels)
        names = f"{weight.name}_quantized", f"{weight.name}_scale", f"{weight.name}_widened"
        constants += [numpy_helper.from_array(codes, names[0]), numpy_helper.from_array(scale, names[1])]
        nodes += [
            helper.make_node("Cast", [names[0]], [names[2]], f"widen_{weight.name}", to=TensorProto.FLOAT),
            helper.make_node("Mul", [names[2], names[1]], [weight.name], f"scale_{weight.name}"),
        ]
    _replace(model.graph, {w.name for w in done}, constants, nodes)
    return done


def to_float16(model: Any, left: Collection[str]) -> list[Weight]:
    """Constants become float16, widened at loading; returns those that are too large for it, which stay."""
    from onnx import TensorProto, helper, numpy_helper

    found = [w for w in weights(model, matrices=False) if w.layer not in left]
    large = [w for w in found if np.abs(w.values).max() > np.finfo(np.float16).max]
    done = [w for w in found if not any(w is other for other in large)]
    constants = [numpy_helper.from_array(w.values.astype(np.float16), f"{w.name}_half") for w in done]
    nodes = [
        helper.make_node("Cast", [f"{w.name}_half"], [w.name], f"widen_{w.name}", to=TensorProto.FLOAT) for w in done
    ]
    _replace(model.graph, {w.name for w in done}, constants, nodes)
    return large


def int8(values: np.ndarray, channels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(codes -127 .. 127, scales of the same number of dimensions): symmetric, to the nearest."""
    kept = {axis % values.ndim for axis in channels}
    others = tuple(axis for axis in range(values.ndim) if axis not in kept)
    scale = np.abs(values).max(others, keepdims=True).astype(np.float32) / np.float32(127)
    scale[scale == 0] = 1
    return np.clip(np.round(values / scale), -127, 127).astype(np.int8), scale


def split_gemms(model: Any) -> None:
    """A Gemm of a constant matrix becomes MatMul and Add, in place: what has kernels of few bits is MatMul."""
    from onnx import helper, numpy_helper

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = options.get("alpha", 1) == 1 and options.get("beta", 1) == 1 and not options.get("transA", 0)
        if node.op_type != "Gemm" or node.input[1] not in held or not plain:
            nodes.append(node)
            continue
        name = node.input[1]
        if options.get("transB", 0):
            name = f"{name}_transposed"
            if name not in held:
                turned = np.ascontiguousarray(numpy_helper.to_array(held[node.input[1]]).T)
                held[name] = model.graph.initializer.add()
                held[name].CopyFrom(numpy_helper.from_array(turned, name))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], f"{node.name}_matmul"))
        nodes[-1].metadata_props.extend(node.metadata_props)
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model.graph)


def products(model: Any, left: Collection[str]) -> dict[str, str]:
    """MatMul operators by a constant matrix of layers not `left`: their names, and the matrix of each."""
    matrices = {w.name for w in weights(model) if w.values.ndim == 2 and w.layer not in left}
    return {n.name: n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in matrices}


def _channels(node: Any, index: int, ndim: int) -> tuple[int, ...]:
    if node.op_type == "Gemm" and index == 1:
        return (0,) if any(a.name == "transB" and a.i for a in node.attribute) else (1,)
    return _CHANNELS.get((node.op_type, index)) or tuple(range(ndim - 1))


def _replace(graph: Any, names: set[str], constants: list[Any], nodes: list[Any]) -> None:
    """In place of the constants `names`, nodes that make them of others, before all that reads them."""
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    after = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *constants])
    graph.node.extend([*nodes, *after])


def _drop_unused(graph: Any) -> None:
    """Constants that no operator reads."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
