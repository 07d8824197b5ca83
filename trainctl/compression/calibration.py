"""Where the float tensors of an ONNX graph lie on rows of the training split: the ranges that 8 bits are spread over.

minmax: the smallest and largest value seen. percentile: without the same share of values at either end. entropy: the
symmetric cut whose 128 steps lose the least information (Kullback-Leibler divergence, after TensorRT, Migacz 2017).
Everything is counted in a fixed order, so the same rows give the same ranges to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from trainctl.compression.onnx_net import INPUT, session

METHODS = ("minmax", "percentile", "entropy")
BINS, LEVELS, STRIDE = 2048, 128, 16
BATCH = 64

Range = tuple[float, float]


def ranges(model: Any, rows: np.ndarray, method: str = "minmax", percentile: float = 99.99) -> dict[str, Range]:
    """(low, high) of each float tensor of the graph, and of its input, over `rows` [N, ...]; zero lies within."""
    found: dict[str, Range] = {}
    for name, values in _values(model, rows):
        low, high = found.get(name, (0.0, 0.0))
        found[name] = min(low, float(values.min())), max(high, float(values.max()))
    if method == "minmax":
        return found
    counts = {name: np.zeros(BINS, np.int64) for name in found}
    for name, values in _values(model, rows):
        counts[name] += _histogram(values, _span(found[name], method))
    if method == "percentile":
        return {name: _percentile(counts[name], found[name], percentile) for name in found}
    return {name: _entropy(counts[name], found[name]) for name in found}


def _values(model: Any, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of each float tensor, batch by batch."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name: value for value in shown.graph.value_info}
    outputs = {output.name for output in shown.graph.output}
    made = [name for node in shown.graph.node for name in node.output if name in known and name not in outputs]
    shown.graph.output.extend(known[name] for name in made if _is_float(known[name]))
    names = [output.name for output in shown.graph.output]
    run = session(shown.SerializeToString(), torch.get_num_threads(), optimized=False)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        if batch.dtype == np.float32:
            yield INPUT, batch
        for name, values in zip(names, run.run(None, {INPUT: batch}), strict=True):
            if values.dtype == np.float32 and values.size and np.isfinite(values).all():
                yield name, values


def _is_float(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == 1)  # onnx.TensorProto.FLOAT


def _span(found: Range, method: str) -> Range:
    """What the bins of the histogram cover: magnitudes for entropy."""
    return (0.0, max(-found[0], found[1])) if method == "entropy" else found


def _histogram(values: np.ndarray, span: Range) -> np.ndarray:
    if span[0] == span[1]:
        return np.zeros(BINS, np.int64)
    return np.histogram(np.abs(values) if span[0] == 0 else values, BINS, span)[0]


def _percentile(counts: np.ndarray, found: Range, percentile: float) -> Range:
    """The range without (100 - percentile) / 2 percent of the values at each end."""
    total = counts.sum()
    if not total:
        return found
    cut = (100 - percentile) / 200
    share = np.cumsum(counts) / total
    edges = np.linspace(*found, BINS + 1)
    low, high = edges[np.searchsorted(share, cut)], edges[np.searchsorted(share, 1 - cut) + 1]
    return min(0.0, float(low)), max(0.0, float(high))


def _entropy(counts: np.ndarray, found: Range) -> Range:
    """The range cut at the magnitude where the histogram in 128 steps is nearest to the histogram itself."""
    if not counts.sum():
        return found
    tried = list(range(LEVELS, BINS + 1, STRIDE))
    best = tried[int(np.argmin([_divergence(counts, bins) for bins in tried]))]
    limit = best / BINS * max(-found[0], found[1])
    return max(found[0], -limit), min(found[1], limit)


def _divergence(counts: np.ndarray, bins: int) -> float:
    """Of the first `bins` bins, with all that lies beyond in the last, from what 128 levels make of them."""
    kept = counts[:bins].astype(np.float64)
    target = kept.copy()
    target[-1] += counts[bins:].sum()
    level = np.arange(bins) * LEVELS // bins
    filled = kept > 0
    sums = np.bincount(level, kept, LEVELS)
    sizes = np.bincount(level, filled, LEVELS)
    spread = np.where(filled, sums[level] / np.maximum(sizes[level], 1), 0)
    both = (target > 0) & (spread > 0)
    if not both.any():
        return float("inf")
    p, q = target / target.sum(), spread / spread.sum()
    missed = p[(target > 0) & ~both].sum() * 10  # mass where the levels have none would be an infinite divergence
    return float((p[both] * np.log(p[both] / q[both])).sum() + missed)
