"""8 bits where they do no harm: layer by layer static, dynamic or float32, found by measuring each layer alone.

Each layer is quantized alone and the distance of the outputs from those in float is its sensitivity. From the plan
with all layers in 8 bits, the worst are taken back, from static to dynamic first and then to float, until the
objective on val has fallen by no more than `max_drop`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from trainctl.compression import onnx_int8
from trainctl.compression.base import Context, Node
from trainctl.compression.int8_static import OnnxInt8, nothing, told
from trainctl.compression.onnx_int8 import Layer
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import UsageError

FLOAT = "float"
DROPS = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05)

Modes = dict[str, str]  # by the node's name


class Int8(OnnxInt8):
    """Static, dynamic or float32 for each layer, so that the objective on val drops by `max_drop` at most.

    max_drop: in the objective's own unit.
    """

    method = "int8"

    def __init__(
        self,
        max_drop: float = 0.002,
        calibration: str = "minmax",
        percentile: float = 99.99,
        per_channel: bool | str = "auto",
        rows: int = 512,
        exclude: Sequence[str] = (),
        reduce_range: bool | str = "auto",
        backend: str = "auto",
        plan: Node | None = None,
    ) -> None:
        super().__init__(calibration, percentile, per_channel, rows, exclude, reduce_range, backend, plan)
        self.max_drop = max_drop

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        model, layers = self.graph(net, context)
        if not layers:
            raise UsageError(nothing(self.method))
        maker = self.maker(model, context)
        starts = [_start(layers, first) for first in _order(layers)]
        maker.quantized(starts[0])  # settles the scales
        errors = {(x.node, mode): maker.error({x.node: mode}) for x in layers for mode in x.modes}
        # a small val split can tell no smaller drop than of some rows
        before: float = context.remember("score", lambda: context.score(net))
        wanted = before - max(self.max_drop, 1.001 * context.resolution)

        def enough(modes: Modes) -> bool:
            return context.score(OnnxNet(maker.quantized(modes))) >= wanted

        plans: list[Modes] = []
        for start in starts:
            plan = least_taken_back(start, taken_back(layers, start, errors), enough)
            if plan not in plans:
                plans.append(plan)
        chosen = _most([{node: mode for node, mode in plan.items() if mode != FLOAT} for plan in plans])
        if not chosen:
            raise UsageError(
                f"`compressor=int8` finds no layer that can be quantized with a drop of {self.max_drop:g} at most; "
                f"give more, e.g. compressor.max_drop={max(0.01, 2 * self.max_drop):g}, or take `compressor=qat`"
            )
        self.plan = {**maker.plan(), "layers": told(onnx_int8.layers(model), chosen)}
        self.plan["sensitivity"] = _sensitivity(layers, errors)
        for layer in layers:
            if layer.node not in chosen:
                context.note(f"`{layer.name}` stays in float: with it in 8 bits the drop exceeds {self.max_drop:g}")
        return OnnxNet(maker.quantized(chosen))

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """From no drop to one of 0.05."""
        return [{"max_drop": drop} for drop in DROPS]


def taken_back(layers: Sequence[Layer], start: Modes, errors: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """(node, its next mode) one after the other, the layer with the largest error first, until all are in float."""
    place = {layer.node: index for index, layer in enumerate(layers)}
    after = {layer.node: [*layer.modes[layer.modes.index(start[layer.node]) + 1 :], FLOAT] for layer in layers}
    queue = [(-errors[node, mode], place[node], node) for node, mode in start.items()]
    heapq.heapify(queue)
    steps = []
    while queue:
        error, _, node = heapq.heappop(queue)
        mode = after[node].pop(0)
        while mode != FLOAT and errors[node, mode] >= -error:
            mode = after[node].pop(0)  # no gentler than what it has
        steps.append((node, mode))
        if mode != FLOAT:
            heapq.heappush(queue, (-errors[node, mode], place[node], node))
    return steps


def least_taken_back(start: Modes, steps: Sequence[tuple[str, str]], enough: Callable[[Modes], bool]) -> Modes:
    """`start` after the fewest of `steps` with which it is good enough; all of them always are.

    By bisection; where that leaves nothing in 8 bits, chance has spoken in between, and each place is tried.
    """
    low, high = -1, len(steps)
    while high - low > 1:
        middle = (low + high) // 2 if low >= 0 else 0
        if enough({**start, **dict(steps[:middle])}):
            high = middle
        else:
            low = middle
    if high == len(steps):
        tried = range(1, len(steps))
        high = next((place for place in tried if enough({**start, **dict(steps[:place])})), high)
    return {**start, **dict(steps[:high])}


def _order(layers: Sequence[Layer]) -> list[str]:
    """The usual first mode first: chains of dense layers and convolutions are faster static, attention dynamic."""
    dense = any(layer.operator == "Conv" for layer in layers) or not any(x.operator == "MatMul" for x in layers)
    return ["static", "dynamic"] if dense else ["dynamic", "static"]


def _start(layers: Sequence[Layer], first: str) -> Modes:
    return {layer.node: first if first in layer.modes else layer.modes[0] for layer in layers}


def _most(plans: Sequence[Modes]) -> Modes:
    """The plan with the most layers in 8 bits, the usual one of several: a choice by the clock would differ by run."""
    return max(plans, key=len)


def _sensitivity(layers: Sequence[Layer], errors: Mapping[tuple[str, str], float]) -> dict[str, dict[str, float]]:
    """By layer and mode: the share by which the outputs move when that layer alone is quantized."""
    names = told(layers, {layer.node: layer.node for layer in layers})
    return {name: {m: float(f"{e:.3g}") for (n, m), e in errors.items() if n == node} for name, node in names.items()}
