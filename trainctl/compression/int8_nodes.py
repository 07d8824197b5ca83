"""Rewrites of single nodes of an ONNX graph into ONNX Runtime's operators in 8 bits, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainctl.compression.calibration import Range
from trainctl.compression.vnni import TOP

MICROSOFT = "com.microsoft"
GROUP = 4  # input channels that the convolution kernels take together


class Graph:
    """An ONNX graph with its constants by name; what is added or replaced is in it at once."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def is_weight(self, name: str) -> bool:
        """Whether a name is a float32 constant of two dimensions or more."""
        tensor = self.constants.get(name)
        return tensor is not None and tensor.data_type == 1 and len(tensor.dims) >= 2

    def size(self, name: str) -> int:
        """Number of values of a constant."""
        return int(np.prod(self.constants[name].dims))

    def values(self, name: str) -> np.ndarray:
        """The values of a constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, values: np.ndarray) -> str:
        """Put a constant in, unless one of that name is there already; returns the name."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = self.model.graph.initializer.add()
            self.constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor."""
        return [node for node in self.model.graph.node if name in node.input]

    def is_output(self, name: str) -> bool:
        """Whether a tensor is what the graph gives."""
        return any(output.name == name for output in self.model.graph.output)

    def replace(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Nodes in the place of the last of `old`; the torch module of the first is theirs too."""
        nodes = self.model.graph.node
        place = list(nodes).index(old[-1])
        for node in new:
            node.metadata_props.extend(old[0].metadata_props)
        for node in reversed(new):
            nodes.insert(place + 1, node)
        for node in old:
            nodes.remove(node)


def option(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def is_plain(graph: Graph, node: Any) -> bool:
    """Whether a Gemm is x @ w + b with a constant vector b, or none."""
    bias = next(iter(node.input[2:]), "")
    known = not bias or (bias in graph.constants and len(graph.constants[bias].dims) == 1)
    unscaled = option(node, "alpha", 1.0) == option(node, "beta", 1.0) == 1.0
    return bool(known and unscaled and not option(node, "transA", 0))


def int8(values: np.ndarray, axis: int | None, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(codes, scales): symmetric, to the nearest, one scale for each index of `axis`, or one for all of them."""
    top = TOP[bits]
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    scale = np.abs(values).max(others, keepdims=True).astype(np.float32) / np.float32(top)
    scale[scale == 0] = 1
    return np.clip(np.round(values / scale), -top, top).astype(np.int8), scale.reshape(-1)


def uint8(span: Range) -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero point) of an unsigned activation whose range is `span`."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    return np.array(scale, np.float32), np.array(np.clip(round(-low / float(scale)), 0, 255), np.uint8)


def gather(graph: Graph, node: Any, bits: int) -> None:
    """An embedding: the table in 8 bits with a scale for each row, the rows that are taken widened.

    Not by DequantizeLinear: ONNX Runtime moves transposes through it and adds a pair of operators for each.
    """
    from onnx import TensorProto, helper

    name, rows, out = str(node.input[0]), str(node.input[1]), str(node.output[0])
    values = graph.values(name)
    codes, scale = int8(values, 0, bits)
    table = graph.constant(f"{name}_int8", codes)
    scales = graph.constant(f"{name}_scale", scale.reshape(-1, *[1] * (values.ndim - 1)))
    new = [
        helper.make_node("Gather", [table, rows], [f"{out}_int8"], node.name),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_codes"], f"{node.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, rows], [f"{out}_steps"], f"{node.name}_steps"),
        helper.make_node("Mul", [f"{out}_codes", f"{out}_steps"], [out], f"{node.name}_scale"),
    ]
    graph.replace([node], new)


def dynamic(graph: Graph, node: Any, per_channel: bool, bits: int) -> None:
    """A MatMul or Gemm whose activations' range is found while it runs."""
    from onnx import helper

    old, bias = _with_bias(graph, node)
    weight, scale = _matrix(graph, node, per_channel, bits)
    read = [node.input[0], weight, scale, "", bias] if bias else [node.input[0], weight, scale]
    new = helper.make_node("DynamicQuantizeMatMul", read, old[-1].output, node.name, domain=MICROSOFT)
    graph.replace(old, [new])


def static_matmul(graph: Graph, node: Any, ranges: Mapping[str, Range], per_channel: bool, bits: int) -> None:
    """A MatMul with activations of a known range; the product is float32, so its own range matters not."""
    from onnx import helper

    x = node.input[0]
    old, bias = _with_bias(graph, node)
    weight, scale = _matrix(graph, node, per_channel, bits)
    step, zero = uint8(ranges[x])
    step_name, zero_name = graph.constant(f"{x}_step", step), graph.constant(f"{x}_zero", zero)
    new = []
    if not any(f"{x}_uint8" in other.output for other in graph.model.graph.node):
        new.append(helper.make_node("QuantizeLinear", [x, step_name, zero_name], [f"{x}_uint8"], f"{node.name}_8"))
    read = [f"{x}_uint8", weight, step_name, scale, zero_name, "", bias]
    new.append(
        helper.make_node(
            "MatMulIntegerToFloat", read if bias else read[:5], old[-1].output, node.name, domain=MICROSOFT
        )
    )
    graph.replace(old, new)


def lstm(graph: Graph, node: Any, per_channel: bool, bits: int) -> None:
    """An LSTM with both of its weights in 8 bits, its inputs rounded while it runs."""
    from onnx import helper

    constants: list[list[str]] = []
    for name in node.input[1:3]:
        values = graph.values(name)  # [directions, 4 * hidden, inputs]
        directions, gates, inputs = values.shape
        pairs = [int8(one, 0 if per_channel else None, bits) for one in values]
        codes = np.stack([pair[0].T for pair in pairs])
        scale = np.stack([pair[1] for pair in pairs]) if per_channel else np.concatenate([pair[1] for pair in pairs])
        constants.append([
            graph.constant(f"{name}_int8", codes.reshape(directions, inputs, gates)),
            graph.constant(f"{name}_scale", scale),
            graph.constant(f"{name}_zeros", np.zeros(scale.shape, np.int8)),
        ])  # fmt: skip
    (w, w_scale, w_zero), (r, r_scale, r_zero) = constants
    given = [*node.input[3:], *[""] * (8 - len(node.input))]
    read = [node.input[0], w, r, *given, w_scale, w_zero, r_scale, r_zero]
    new = helper.make_node("DynamicQuantizeLSTM", read, node.output, node.name, domain=MICROSOFT)
    new.attribute.extend(attribute for attribute in node.attribute if attribute.name != "layout")
    graph.replace([node], [new])


def float_ends(graph: Graph) -> None:
    """A QGemm whose result is only widened gives float32 itself: an operator fewer, and no rounding of logits.

    Not where a Relu was taken out, which the range of the 8 bits stands for: there the name is not the Gemm's own.
    """
    made = {node.output[0]: node for node in graph.model.graph.node if node.op_type == "QGemm"}
    for node in list(graph.model.graph.node):
        gemm = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        own = node.input[0] == f"{node.output[0]}_quantized"
        if gemm is not None and own and len(graph.readers(node.input[0])) == 1:
            gemm.output[0] = node.output[0]
            del gemm.input[7:]
            graph.model.graph.node.remove(node)


def fill_channels(graph: Graph) -> None:
    """Images of 1 or 3 channels get more, of zero weights: kernels that take four at once are faster on them."""
    from onnx import helper

    for node in list(graph.model.graph.node):
        if node.op_type != "QLinearConv" or option(node, "group", 1) != 1:
            continue
        name, x = node.input[3], node.input[0]
        weights = graph.values(name)
        missing = -weights.shape[1] % GROUP
        if missing and weights.shape[1] < GROUP:
            wide = np.pad(weights, [(0, 0), (0, missing), *[(0, 0)] * (weights.ndim - 2)])
            node.input[3] = graph.constant(f"{name}_filled", wide)
            pads = np.zeros((2, weights.ndim), np.int64)
            pads[1, 1] = missing
            read = [x, graph.constant(f"{name}_pads", pads.reshape(-1)), node.input[2]]
            node.input[0] = f"{x}_filled"
            filled = helper.make_node("Pad", read, [f"{x}_filled"], f"{node.name}_fill")
            graph.model.graph.node.insert(list(graph.model.graph.node).index(node), filled)


def _with_bias(graph: Graph, node: Any) -> tuple[list[Any], str]:
    """(the nodes that x @ w + b is made of, the name of b or "")."""
    if node.op_type == "Gemm":
        return [node], next(iter(node.input[2:]), "")
    readers = graph.readers(node.output[0])
    if len(readers) == 1 and readers[0].op_type == "Add" and not graph.is_output(node.output[0]):
        other = next(name for name in (*readers[0].input, "") if name != node.output[0])
        tensor = graph.constants.get(other)
        width = graph.constants[node.input[1]].dims[-1]
        if tensor is not None and list(tensor.dims) == [width]:
            return [node, readers[0]], other
    return [node], ""


def _matrix(graph: Graph, node: Any, per_channel: bool, bits: int) -> tuple[str, str]:
    """(codes, scale) of a MatMul's or Gemm's weight, [inputs, outputs]."""
    name = node.input[1]
    values = graph.values(name)
    if node.op_type == "Gemm" and option(node, "transB", 0):
        name, values = f"{name}_turned", values.T
    codes, scale = int8(values, 1 if per_channel else None, bits)
    return graph.constant(f"{name}_int8", codes), graph.constant(f"{name}_scale", scale)
