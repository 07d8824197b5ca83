"""How many weights an ONNX file holds, and how many of them are not zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

# inputs (by number) that are no weights: scales, zero points, statistics; and of weights, where their zero point stands
_NO_WEIGHTS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "MatMulInteger": (2, 3),
    "ConvInteger": (2, 3),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "MatMulNBits": (2, 3, 4),
    "BatchNormalization": (3, 4),
}
_ZERO_POINTS = {
    "DequantizeLinear": {0: 2},
    "QLinearConv": {3: 5},
    "QLinearMatMul": {3: 5},
    "QGemm": {3: 5},
    "MatMulInteger": {1: 3},
    "ConvInteger": {1: 3},
    "DynamicQuantizeMatMul": {1: 3},
    "MatMulIntegerToFloat": {1: 5},
    "DynamicQuantizeLSTM": {1: 9, 2: 11},
}


def count(content: bytes) -> tuple[int, int]:
    """(weights, those that are not zero) of a model.onnx; an integer is zero where it equals its zero point.

    Whole-number constants (shapes, offsets), single numbers, scales, zero points and the statistics of batch norm do
    not count, so a float net has as many as its torch module has parameters, if nothing was folded.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(content).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    left_out, zero_points, packed = _roles(graph.node, set(held))
    total = non_zeros = 0
    for name, tensor in held.items():
        if name in left_out or not tensor.dims or tensor.data_type not in _weight_types(onnx.TensorProto):
            continue
        values = numpy_helper.to_array(tensor)
        zero = numpy_helper.to_array(held[zero_points[name]]) if zero_points.get(name) in held else None
        if name in packed:
            size, used = _four_bits(values, zero, packed[name])
        else:
            size, used = values.size, _used(values, zero)
        total, non_zeros = total + size, non_zeros + used
    return total, non_zeros


def _weight_types(types: Any) -> frozenset[int]:
    names = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4", "INT32")
    return frozenset(getattr(types, name) for name in names)


def _roles(nodes: Any, held: set[str]) -> tuple[set[str], dict[str, str], dict[str, Any]]:
    """Names that are no weights, the zero point of each weight that has one, and the nodes of 4-bit weights."""
    left_out, zero_points, packed = set(_named_beside(held)), {}, {}
    for node in nodes:
        given = dict(enumerate(node.input))
        left_out |= {given[index] for index in _NO_WEIGHTS.get(node.op_type, ()) if given.get(index)}
        for weight, zero in _ZERO_POINTS.get(node.op_type, {}).items():
            if given.get(weight) and given.get(zero):
                zero_points[given[weight]] = given[zero]
        if node.op_type == "MatMulNBits":
            packed[given[1]] = node
            if given.get(3):
                zero_points[given[1]] = given[3]
    return left_out, zero_points, packed


def _named_beside(held: set[str]) -> Iterator[str]:
    """ONNX Runtime's dynamic quantization multiplies by `w_scale`, an ordinary input, beside `w_quantized`."""
    for name in held:
        base = name.removesuffix("_quantized")
        if base != name:
            yield from (f"{base}_scale", f"{base}_zero_point")


def _used(values: Any, zero: Any) -> int:
    """How many differ from their zero point, one for all or one per channel."""
    whole = values.astype(np.int64) if values.dtype.kind not in "f" and zero is not None else values
    if zero is None:
        return int(np.count_nonzero(whole))
    points = np.asarray(zero).astype(np.int64)
    if np.all(points == points.flat[0]):
        return int(np.count_nonzero(whole != points.flat[0]))
    axis = next((axis for axis, size in enumerate(whole.shape) if size == points.size), None)
    if axis is None:  # one per block or per direction: as long as the weight in none of its axes
        return int(whole.size)
    shape = [points.size if number == axis else 1 for number in range(whole.ndim)]
    return int(np.count_nonzero(whole != points.reshape(shape)))


def _four_bits(values: Any, zero: Any, node: Any) -> tuple[int, int]:
    """Of a weight [N, blocks, bytes] with two values in a byte; the last block may be filled up."""
    options = {attribute.name: attribute.i for attribute in node.attribute}
    rows, columns, block = options["N"], options["K"], options["block_size"]
    if options.get("bits", 4) != 4:
        return rows * columns, rows * columns
    blocks = math.ceil(columns / block)
    pairs = values.reshape(rows, -1)
    codes = np.stack([pairs & 15, pairs >> 4], -1).reshape(rows, -1)[:, :columns]
    if zero is None or zero.dtype != np.uint8:
        return rows * columns, int(np.count_nonzero(codes != 8))
    pairs = zero.reshape(rows, -1)
    points = np.stack([pairs & 15, pairs >> 4], -1).reshape(rows, -1)[:, :blocks].repeat(block, 1)[:, :columns]
    return rows * columns, int(np.count_nonzero(codes != points))
