"""The probability from which the positive (last) of two classes is predicted, chosen on validation rows."""

from __future__ import annotations

import torch
from torch import Tensor

from trainctl.errors import DataError, UsageError, did_you_mean

OBJECTIVES = ("auto", "f1", "balanced_accuracy", "youden")
NAMES = {"auto": "balanced accuracy", "balanced_accuracy": "balanced accuracy", "youden": "Youden's J"}


def check(value: object, num_classes: int) -> str | float | None:
    """What `evaluate.threshold` asks for: None, a number between 0 and 1, or one of OBJECTIVES; else UsageError."""
    if value is None:
        return None
    if num_classes != 2:
        raise UsageError(f"`evaluate.threshold` is for two classes, this run has {num_classes or 'a number as target'}")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1:
        return float(value)
    if isinstance(value, str) and value in OBJECTIVES:
        return value
    hint = did_you_mean(value, OBJECTIVES) if isinstance(value, str) else ""
    raise UsageError(
        f"`evaluate.threshold` must be a number between 0 and 1 or one of {', '.join(OBJECTIVES)}, got {value!r}{hint}"
    )


def best(probs: Tensor, y: Tensor, objective: str) -> float:
    """Threshold for probs [N, 2] and y [N] at which the objective is highest; between two neighbouring scores.

    `youden` and `auto` are the same choice as `balanced_accuracy`. DataError when a class has no rows.
    """
    if len(y) == 0 or bool((y == y[0]).all()):
        raise DataError("the validation split has rows of one class only; set `evaluate.threshold` to a number")
    score, order = probs[:, 1].double().sort(descending=True, stable=True)
    hits = (y[order] == 1).double().cumsum(0)
    last = torch.cat([score[1:] != score[:-1], torch.tensor([True])])
    rank = torch.arange(1, len(y) + 1, dtype=torch.float64)
    positives, negatives = hits[-1], rank[-1] - hits[-1]
    if objective == "f1":
        value = 2 * hits / (rank + positives)
    else:
        value = hits / positives + (negatives - (rank - hits)) / negatives
    at = int(torch.where(last, value, -1.0).argmax())
    below = float(score[at + 1]) if at + 1 < len(score) else 0.0
    return (float(score[at]) + below) / 2
