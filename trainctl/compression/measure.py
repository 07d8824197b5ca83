"""What a net costs, before and after: the figures of compression.json, and how many times smaller or faster.

`static` counts what does not depend on the machine; `latency` and `footprint` are in `latency.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from trainctl.compression import cost
from trainctl.compression.base import Artifact
from trainctl.compression.onnx_net import OnnxNet
from trainctl.compression.trees import is_tree, num_numbers

ZSTD_LEVEL = 9  # one level for every size, or a ratio would compare levels; 19 gains 5 % and takes 20 times as long

COUNTS = ("parameters", "non_zeros", "macs", "bytes", "zstd_bytes", "peak_memory_mb", "load_ms")


class Score(TypedDict):
    """A metric on a split, and its 95 % interval [low, high]; None where undefined."""

    value: float | None
    interval: list[float] | None


class Figures(TypedDict, total=False):
    """`before` and `after` of compression.json; what could not be measured is None or left out.

    latency: {engine: {batch: median ms}}, engine `torch` or `onnxruntime`, the batch as text. objective: the metric's
    name; scores, and of `after` alone agreement (share of rows predicted as the parent does) and difference (after
    minus before, on the same rows): by split.
    """

    parameters: int
    non_zeros: int
    macs: int | None
    bytes: int
    zstd_bytes: int
    latency: dict[str, dict[str, float]]
    peak_memory_mb: float | None
    load_ms: float | None
    objective: str
    scores: dict[str, Score]
    agreement: dict[str, float]
    difference: dict[str, Score]


class Content(TypedDict, total=False):
    """compression.json."""

    method: str
    masked: bool
    before: Figures
    after: Figures
    ratio: dict[str, Any]
    notes: list[str]
    gate: dict[str, Any] | None
    took_s: float


def static(net: nn.Module, example: Tensor, files: Sequence[Path], float_net: nn.Module | None = None) -> Figures:
    """Parameters, non-zeros, multiply-adds of one row, and the bytes of `files`, plain and packed with zstd.

    example: x [1 or more, ...] as the net takes it. Multiply-adds are those of `float_net` where it is given: what a
    quantized kernel does cannot be seen, and an ONNX net without one has None. Zeros of an integer weight are its zero
    points; scales and zero points are no parameters, and neither are constants that an export adds: a quantized net has
    as many parameters as `float_net`, and the zeros of its file. A tree's are thresholds and the values of leaves; it
    multiplies nothing.
    """
    counted = float_net if float_net is not None else net
    parameters, non_zeros = parameters_of(net)
    if float_net is not None and isinstance(net, Artifact):
        zeros, parameters = parameters - non_zeros, parameters_of(float_net)[0]
        non_zeros = parameters - zeros
    return {
        "parameters": parameters,
        "non_zeros": non_zeros,
        "macs": None if isinstance(counted, Artifact) or is_tree(counted) else cost.macs(counted, example[:1]),
        "bytes": sum(path.stat().st_size for path in files),
        "zstd_bytes": sum(_packed(path) for path in files),
    }


def parameters_of(net: nn.Module) -> tuple[int, int]:
    """How many parameters a net has, tied ones once, and how many of them are not zero."""
    if isinstance(net, OnnxNet):
        from trainctl.compression import onnx_weights

        return onnx_weights.count(net.content)
    if is_tree(net):
        return num_numbers(net), num_numbers(net)
    weights = [_plain(parameter.detach()) for parameter in net.parameters()]
    return sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)


def _plain(weight: Tensor) -> Tensor:
    """The values of a weight; one of torchao is made of several tensors."""
    return weight.dequantize() if is_traceable_wrapper_subclass(weight) else weight


def _packed(path: Path) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(path.read_bytes()))


def comparison(before: Figures, after: Figures) -> dict[str, Any]:
    """{figure: before / after}: how many times fewer, smaller or faster; what is missing or zero is left out.

    latency: {engine: {batch: ratio}} for each engine of `before`, against the same one of `after` or, where `after`
    does not run on it, the one that it does run on.
    """
    ratio: dict[str, Any] = {}
    for name in COUNTS:
        one, other = before.get(name), after.get(name)
        if isinstance(one, int | float) and isinstance(other, int | float) and one > 0 and other > 0:
            ratio[name] = one / other
    speeds = faster(before.get("latency") or {}, after.get("latency") or {})
    return ratio | ({"latency": speeds} if speeds else {})


def faster(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """`comparison` of {engine: {batch: ms}} alone."""
    found: dict[str, dict[str, float]] = {}
    for engine, times in before.items():
        others = after.get(engine) or next(iter(after.values()), {})
        both = {batch: ms / others[batch] for batch, ms in times.items() if others.get(batch)}
        if both:
            found[engine] = both
    return found
