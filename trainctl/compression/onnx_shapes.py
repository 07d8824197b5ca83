"""Fewer operators about shapes: at batch 1 each of them takes as long as a small product.

An exporter works out at run time what is known beforehand: the shape of a Reshape but for the batch, and the zeros in
which an LSTM begins, which are also what it begins in when it is given none. It writes a mean over all places of an
image as such, for which there is no operator in 8 bits, while there is one for pooling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainctl.compression.int8_nodes import Graph, option
from trainctl.compression.onnx_net import quietly

RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # where the first states are
IMAGE = 4  # dimensions of [B, C, H, W]
_MOVES = {"Expand", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"}


def settle(model: Any) -> Any:
    """The graph with shapes inferred, and without what works out constant shapes and zeros, in place or a copy."""
    import onnx

    try:
        with quietly():
            from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

            model = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception:  # an operator that it does not know; onnx then tells what it can
        model = onnx.shape_inference.infer_shapes(model)
    graph = Graph(model)
    _constant_reshapes(graph)
    _zero_states(graph)
    _pools(graph)
    _drop_unused(graph)
    return model


def _constant_reshapes(graph: Graph) -> None:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.model.graph.value_info}
    for node in graph.model.graph.node:
        if node.op_type != "Reshape" or node.input[1] in graph.constants:
            continue
        known = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in shapes.get(node.output[0], ())]
        if known and known.count(-1) <= 1 and 0 not in known:
            node.input[1] = graph.constant(f"{node.output[0]}_shape", np.array(known, np.int64))


def _zero_states(graph: Graph) -> None:
    for node in graph.model.graph.node:
        for place in RECURRENT.get(node.op_type, ()):
            if len(node.input) > place and _is_zero(graph, node.input[place]):
                node.input[place] = ""


def _pools(graph: Graph) -> None:
    """A mean over all places of [B, C, H, W] becomes the pooling that it is."""
    from onnx import helper

    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.model.graph.value_info}
    for node in list(graph.model.graph.node):
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != IMAGE:
            continue
        given = len(node.input) > 1 and node.input[1] in graph.constants
        axes = graph.values(node.input[1]).tolist() if given else option(node, "axes", [])
        if {axis % IMAGE for axis in axes} != {2, 3}:
            continue
        mean, kept = node.output[0], option(node, "keepdims", 1)
        pooled = mean if kept else f"{mean}_pooled"
        new = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], node.name)]
        if not kept:
            new.append(helper.make_node("Flatten", [pooled], [mean], f"{node.name}_flat"))
        graph.replace([node], new)


def _is_zero(graph: Graph, name: str) -> bool:
    """Whether a tensor is a constant of zeros, moved about."""
    made = {output: node for node in graph.model.graph.node for output in node.output}
    while name in made and made[name].op_type in _MOVES:
        name = made[name].input[0]
    return name in graph.constants and not graph.values(name).any()


def _drop_unused(graph: Graph) -> None:
    """Nodes that nothing reads."""
    nodes = graph.model.graph.node
    used = {output.name for output in graph.model.graph.output}
    for node in reversed(list(nodes)):
        if used.isdisjoint(node.output):
            nodes.remove(node)
        else:
            used.update(node.input)
