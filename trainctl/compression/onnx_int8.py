"""An ONNX graph in int8 for ONNX Runtime: layer by layer static, dynamic, of 8-bit weights alone, or in float.

static: activations are rounded to 8 bits in ranges known beforehand. Convolutions, Gemms and what joins them stay in
8 bits from one to the next; a MatMul takes 8 bits and gives float32, since layer norm or attention follow it.
dynamic: the range is found row by row while the net runs. Activations are unsigned and weights signed: the other way
the kernels are four times slower on an x86 CPU.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainctl.compression import int8_nodes, onnx_bits, onnx_shapes
from trainctl.compression.calibration import BATCH, Range
from trainctl.compression.int8_nodes import Graph
from trainctl.compression.onnx_net import INPUT, quietly, session

# How an operator with a constant weight can be computed, the fastest first.
MODES = {
    "Conv": ("static",),
    "Gemm": ("static", "dynamic"),
    "MatMul": ("static", "dynamic"),
    "Gather": ("weight",),
    "LSTM": ("dynamic",),
}
STATIC = tuple(operator for operator, modes in MODES.items() if modes != ("dynamic",))
# Operators that ONNX Runtime computes in 8 bits when all that they read is in 8 bits already.
_JOINS = {"Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten"}
_JOINS |= {"Squeeze", "Unsqueeze", "Transpose", "Add", "Concat"}
_ALL_INPUTS = {"Add", "Concat"}
_WEIGHTED = {*MODES, "ConvTranspose", "GRU", "RNN", "Einsum"}
_MODULE = "module"
COMPARED = 256  # rows on which outputs are compared
SMALL = 0.01  # of all weights: an embedding of fewer stays, since 8 bits save nothing there and take three operators


@dataclass(frozen=True)
class Layer:
    """An operator with a constant weight: its name, the torch module that it comes from, and how it can be computed."""

    node: str
    operator: str
    name: str
    weights: int
    modes: tuple[str, ...]


def prepare(content: bytes) -> Any:
    """The graph with constants folded, batch norms in the layers before them and all shapes known, for `quantized`."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # a session would write its graph to a file, and there may be no room for one
    folded = ort.ModelCompiler(options, content, graph_optimization_level=level).compile_to_bytes()
    model = onnx_shapes.settle(onnx.load_model_from_string(folded))
    _name_layers(model, onnx.load_model_from_string(content))
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used or not entry.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def layers(model: Any) -> list[Layer]:
    """What can be quantized in a prepared graph, in its order; small tables and two activations' products cannot."""
    graph = Graph(model)
    few = SMALL * sum(graph.size(name) for name in graph.constants if graph.is_weight(name))
    found = []
    for node in model.graph.node:
        index = 0 if node.op_type == "Gather" else 1
        modes = MODES.get(node.op_type, ())
        if not modes or len(node.input) <= index or not graph.is_weight(node.input[index]):
            continue
        if node.op_type == "LSTM" and not (graph.is_weight(node.input[2]) and not int8_nodes.option(node, "layout", 0)):
            continue
        if node.op_type == "Gemm" and not int8_nodes.is_plain(graph, node):
            modes = ()
        if node.op_type == "Gather" and int8_nodes.option(node, "axis", 0):
            continue  # a choice among channels, not of an embedding's rows
        size = sum(graph.size(name) for name in node.input if graph.is_weight(name))
        if modes and (size >= few or node.op_type != "Gather"):
            found.append(Layer(node.name, node.op_type, module_of(node), size, modes))
    return found


def others(model: Any) -> list[tuple[str, str]]:
    """(torch module, operator) of layers with weights that `layers` does not list: they cannot be quantized."""
    graph = Graph(model)
    known = {layer.node for layer in layers(model)}
    return [
        (module_of(node), node.op_type)
        for node in model.graph.node
        if node.op_type in _WEIGHTED and node.op_type != "Gather" and node.name not in known
        and any(graph.is_weight(name) for name in node.input)
    ]  # fmt: skip


def quantized(
    model: Any,
    modes: Mapping[str, str],
    ranges: Mapping[str, Range],
    per_channel: bool = True,
    bits: int = 8,
) -> bytes:
    """A prepared graph with the nodes of `modes` computed as said; the others stay in float.

    ranges: of the float tensors, by `calibration.ranges`. per_channel: a scale per output of a weight. bits: 7 for
    CPUs whose kernels add products in 16 bits and would overflow (see vnni.py).
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not any(entry.domain == int8_nodes.MICROSOFT for entry in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid(int8_nodes.MICROSOFT, 1))
    graph = Graph(copy)
    for node in list(copy.graph.node):
        mode = modes.get(node.name)
        if node.op_type == "Gather" and mode:
            int8_nodes.gather(graph, node, bits)
        elif node.op_type == "LSTM" and mode:
            int8_nodes.lstm(graph, node, per_channel, bits)
        elif mode == "dynamic":
            int8_nodes.dynamic(graph, node, per_channel, bits)
        elif mode == "static" and node.op_type == "MatMul":
            int8_nodes.static_matmul(graph, node, ranges, per_channel, bits)
    static = {name for name, mode in modes.items() if mode == "static"}
    names = [node.name for node in copy.graph.node if node.name in static and node.op_type in ("Conv", "Gemm")]
    if names:
        copy = _joined_static(graph, names, ranges, per_channel, bits)
    return onnx_bits.write(copy)


class Maker:
    """Quantizes one prepared graph in several ways, and tells how far the outputs move on rows of train.

    per_channel: True, False, or auto: one scale for a whole weight when that adds less than a tenth to the error of
    the first plan that is asked for.
    """

    def __init__(
        self, model: Any, ranges: Mapping[str, Range], rows: np.ndarray, bits: int = 8, per_channel: bool | str = "auto"
    ) -> None:
        self.model, self.ranges, self.bits = model, ranges, bits
        self.rows = rows[:COMPARED]
        self.per_channel = per_channel if isinstance(per_channel, bool) else None
        self.expected = self._outputs(model.SerializeToString())

    def quantized(self, modes: Mapping[str, str]) -> bytes:
        """The graph with the nodes of `modes` in 8 bits."""
        if self.per_channel is None:
            self.per_channel = self._error(modes, False) > 1.1 * self._error(modes, True)
        return quantized(self.model, modes, self.ranges, self.per_channel, self.bits)

    def error(self, modes: Mapping[str, str]) -> float:
        """Root mean square distance of the outputs from those in float, as a share of their own root mean square."""
        return self._error(modes, bool(self.per_channel))

    def plan(self) -> dict[str, Any]:
        """What a run's record holds."""
        return {"bits": self.bits, "per_channel": self.per_channel}

    def _error(self, modes: Mapping[str, str], per_channel: bool) -> float:
        found = self._outputs(quantized(self.model, modes, self.ranges, per_channel, self.bits))
        power = float(np.square(self.expected).mean())
        return float(np.sqrt(np.square(found - self.expected).mean() / (power or 1.0)))

    def _outputs(self, content: bytes) -> np.ndarray:
        run = session(content, torch.get_num_threads())
        parts = [run.run(None, {INPUT: self.rows[i : i + BATCH]})[0] for i in range(0, len(self.rows), BATCH)]
        return np.concatenate(parts).astype(np.float64)


def module_of(node: Any) -> str:
    """The torch module that an operator of a prepared graph comes from, or its own name."""
    return next((str(entry.value) for entry in node.metadata_props if entry.key == _MODULE), str(node.name))


def _name_layers(model: Any, exported: Any) -> None:
    """Write the torch module to each node: ONNX Runtime forgets what the exporter told; a weight's name tells more."""
    told = {}
    for node in exported.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
        told.update(dict.fromkeys(node.output, [scope for scope in ast.literal_eval(scopes)[:-1] if scope]))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        scopes = next((told[name] for name in node.output if told.get(name)), [])
        weight = next((name for name in node.input if name.endswith(".weight")), None)
        module = weight.removesuffix(".weight") if weight is not None else next(iter(scopes[-1:]), node.name)
        del node.metadata_props[:]
        node.metadata_props.add(key=_MODULE, value=module)


def _joined_static(graph: Graph, names: list[str], ranges: Mapping[str, Range], per_channel: bool, bits: int) -> Any:
    """Convolutions and Gemms `names` in 8 bits, with what lies between them, by ONNX Runtime's own rewriting.

    Its operator form (QLinearConv, QGemm) is smaller than the form of pairs around float operators, and as fast.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata

    chosen = [*names, *_joins(graph, set(names))]
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    operators = sorted({"Conv", "Gemm"} | _JOINS)
    with quietly():
        known = onnx.shape_inference.infer_shapes(graph.model)
        add_infer_metadata(known)  # else the quantizer infers shapes by way of a file in a temporary folder
        quantizer = ONNXQuantizer(
            known, per_channel, bits < 8, QuantizationMode.QLinearOps, True, QuantType.QInt8, QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data), chosen, [], operators, {},
        )  # fmt: skip
        quantizer.quantize_model()
    result = Graph(quantizer.model.model)
    int8_nodes.float_ends(result)
    int8_nodes.fill_channels(result)
    return result.model


def _joins(graph: Graph, static: Collection[str]) -> list[str]:
    """Nodes between static ones that can stay in 8 bits: all the activations that they read are in 8 bits."""
    eight = {name for node in graph.model.graph.node if node.name in static for name in node.output}
    found = []
    for node in graph.model.graph.node:
        read = node.input if node.op_type in _ALL_INPUTS else node.input[:1]
        if node.op_type in _JOINS and read and all(name in eight for name in read):
            eight.update(node.output)
            found.append(node.name)
    return found
