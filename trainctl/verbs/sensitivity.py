"""How much the objective falls when one layer alone is made smaller: the scan that `compress` begins with.

Nothing is trained: weights are changed in place, measured on rows of val spread over all of it, and put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.data.base import Data
from trainctl.verbs.job import Job
from trainctl.verbs.parent import Batch, Parent, refuse_estimator

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROWS, FEWEST, TOTAL = 512, 64, 6144  # of val for each layer, about; in a deep net fewer, for the scan must stay short
Row = dict[str, Any]


def scan(job: Job) -> tuple[list[Row], float]:
    """A row per layer ({layer, kind, share of the parameters, drop by change}), and the objective on all of val.

    Changes: weights in 8 bits and, of linear layers, in 4 (symmetric, per output), half of the outputs at zero (the
    smallest ones).
    """
    parent = Parent.restore(job)
    refuse_estimator(parent.net, "compress")
    layers = {name: layer for name, layer in parent.net.named_modules() if isinstance(layer, LAYERS)}
    rows = list(_rows(parent, min(ROWS, max(FEWEST, TOTAL // max(1, len(layers))))))
    before = parent.value(parent.net, rows)
    total = sum(parameter.numel() for parameter in parent.net.parameters())
    changes: dict[str, Callable[[Tensor], Tensor]] = {"int8": _in_bits(8), "int4": _in_bits(4), "half": _half}
    found = []
    for name, layer in layers.items():
        drop = {}
        for change, make in changes.items():
            if change == "int4" and not isinstance(layer, nn.Linear):
                continue  # no engine has 4 bits for it
            with _changed(layer.weight, make):
                drop[change] = parent.objective.drop(before, parent.value(parent.net, rows))
        share = layer.weight.numel() / max(1, total)
        found.append({"layer": name, "kind": type(layer).__name__, "share": share, "drop": drop})
    return found, parent.own_value


def _rows(parent: Parent, count: int) -> Iterator[Batch]:
    """Every k-th row of val, about `count`; all of them where the data does not say how many there are."""
    step = max(1, len(parent.data.split("val")) // count) if isinstance(parent.data, Data) else 1
    passed = 0
    for x, y in parent.val_batches():
        first = -passed % step
        passed += len(x)
        if first < len(x):
            yield x[first::step], y[first::step]


@contextmanager
def _changed(weight: Tensor, make: Callable[[Tensor], Tensor]) -> Iterator[None]:
    with torch.no_grad():
        kept = weight.detach().clone()
        weight.copy_(make(kept))
        try:
            yield
        finally:
            weight.copy_(kept)


def _in_bits(bits: int) -> Callable[[Tensor], Tensor]:
    most = 2 ** (bits - 1) - 1

    def rounded(weight: Tensor) -> Tensor:
        scale: Tensor = weight.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / most
        return scale * (weight / scale).round().clamp(-most, most)

    return rounded


def _half(weight: Tensor) -> Tensor:
    size = weight.flatten(1).abs().sum(1)
    gone = size.topk(len(size) // 2, largest=False).indices
    return weight.index_fill(0, gone, 0.0)
