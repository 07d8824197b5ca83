"""The figures of every member's outputs at once: what `Task.measure` gives for one, at a fraction of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainctl import metrics
from trainctl.data.spec import DataSpec
from trainctl.errors import DivergedError

Figures = dict[str, float | None]


def measure_many(
    outputs: Tensor, y: Tensor, spec: DataSpec, monitor: str = "val/loss"
) -> list[Figures | DivergedError]:
    """Figures of outputs [K, N, C] or [K, N] against y [N] or [K, N], by base name, as `Task.measure` has them.

    The quick ones and the monitored one. A member whose outputs are not finite gets the error that it would raise.
    """
    wanted = metrics.names.quick(spec.target)[1:]
    watched = monitor.rpartition("/")[2]
    extra = [watched] if watched in metrics.names.produced(spec.target)[1:] and watched not in wanted else []
    targets = y if y.ndim > 1 else y[None].expand(len(outputs), -1)
    if spec.target == "number" or outputs.dtype != torch.float32 or not targets.shape[1]:
        return [_alone(o, t, spec, [*wanted, *extra]) for o, t in zip(outputs, targets, strict=True)]
    bad = (~outputs.isfinite()).flatten(1).any(1).tolist()
    quick = _classification(outputs, targets)
    found: list[Figures | DivergedError] = []
    for k, figures in enumerate(quick):
        more = _alone(outputs[k], targets[k], spec, extra) if extra or bad[k] else {}
        found.append(more if isinstance(more, DivergedError) else figures | more)
    return found


def _alone(outputs: Tensor, y: Tensor, spec: DataSpec, wanted: Sequence[str]) -> Figures | DivergedError:
    try:
        return metrics.measure(outputs, y, spec, only=wanted)
    except DivergedError as error:
        return error


def _classification(probs: Tensor, y: Tensor) -> list[Figures]:
    """Accuracy and AUROC of probs [K, N, C], y [K, N]."""
    by_class = probs.transpose(1, 2).contiguous()
    num_classes = by_class.shape[1]
    predicted = (by_class[:, 1] > by_class[:, 0]).long() if num_classes == 2 else by_class.argmax(1)
    accuracy = (predicted == y).sum(1).double() / y.shape[1]
    scored = [1] if num_classes == 2 else range(num_classes)
    areas = np.stack([areas_under_roc(by_class[:, c].numpy(), (y == c).numpy()) for c in scored])
    several = (y != y[:, :1]).any(1).tolist()
    with np.errstate(invalid="ignore"):
        defined = ~np.isnan(areas)
        mean = torch.from_numpy(areas).nanmean(0).tolist()
    return [
        {"accuracy": a, "auroc": m if more and d else None}
        for a, m, more, d in zip(accuracy.tolist(), mean, several, defined.any(0).tolist(), strict=True)
    ]


def areas_under_roc(scores: Any, positive: Any) -> Any:
    """Areas [K] below the ROC curves of float32 scores [K, N], 0 or more each, against bools [K, N]; NaN if undefined.

    Scores of one sign keep their order as whole numbers, so one sort of numbers carries the labels along.
    """
    keys = (scores.view(np.int32).astype(np.int64) << 1) | positive
    keys.sort(axis=1)  # rising
    hit = keys & 1
    score = keys >> 1
    below = np.cumsum(1 - hit, axis=1)  # negatives up to here
    positives, negatives = hit.sum(1), below[:, -1]
    twice = 2 * (hit * below).sum(1)  # negatives below each positive, those of equal score counted whole
    tied = (score[:, 1:] == score[:, :-1]).any(1)
    for k in np.nonzero(tied)[0]:
        last = np.flatnonzero(np.append(score[k, 1:] != score[k, :-1], True))
        seen = below[k][last]
        gained = np.diff(np.cumsum(hit[k])[last], prepend=0)
        twice[k] = (gained * (seen + np.append(0, seen[:-1]))).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return twice.astype(np.float64) / (2.0 * positives * negatives)
