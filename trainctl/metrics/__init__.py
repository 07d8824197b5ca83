"""Metrics as pure functions of whole tensors: `evaluate_outputs` measures what a net said against what was true.

`names` is free of torch, so this module imports the rest only when it measures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainctl.metrics import names

__all__ = ["Report", "evaluate_outputs", "measure", "names"]

if TYPE_CHECKING:
    from torch import Tensor

    from trainctl.data.spec import DataSpec


@dataclass(frozen=True)
class Report:
    """What was measured on `rows` rows: metrics by base name (None = undefined, with a sentence in `warnings`).

    `intervals` are 95 % bootstrap intervals from `resamples` resamples; `confusion` [C][C] has a row per true class;
    `calibration` a dict per non-empty bin. The last two are None for a number.
    """

    rows: int
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    calibration: list[dict[str, float]] | None = None
    resamples: int = 0


def measure(
    outputs: Tensor,
    y: Tensor,
    spec: DataSpec,
    full: bool = True,
    only: Collection[str] | None = None,
    threshold: float | None = None,
) -> dict[str, float | None]:
    """Metrics by base name of class probabilities [N, C] or values [N] against y [N]; see `names` for what there is."""
    from trainctl.metrics.classification import classification
    from trainctl.metrics.regression import regression

    if spec.target == "class":
        return classification(outputs, y, spec.classes, full, only, threshold)
    return regression(outputs, y, full, only)


def evaluate_outputs(
    outputs: Tensor, y: Tensor, spec: DataSpec, bootstrap: int = 0, seed: int = 0, threshold: float | None = None
) -> Report:
    """All metrics of class probabilities [N, C] or values [N] against y [N].

    `bootstrap`: how many resamples for the intervals, 0 for none. DivergedError when an output is not finite.
    """
    from trainctl.metrics import calibration, classification, regression
    from trainctl.metrics.bootstrap import intervals, num_resamples

    outputs, y = outputs.cpu(), y.cpu()
    metrics = measure(outputs, y, spec, threshold=threshold)
    extra: dict[str, Any] = {}
    if bootstrap and len(y):
        if spec.target == "class":
            scores: Any = classification.ClassScores(outputs, y, names.CLASS, threshold)
        else:
            scores = regression.NumberScores(outputs, y, names.NUMBER)
        extra = {"intervals": intervals(scores, len(y), bootstrap, seed), "resamples": num_resamples(len(y), bootstrap)}
    if spec.target == "number":
        return Report(len(y), metrics, warnings=regression.warnings(y, metrics), **extra)
    return Report(
        len(y),
        metrics,
        warnings=classification.warnings(y, spec.classes, metrics),
        confusion=classification.confusion(outputs, y, threshold),
        calibration=calibration.bins(outputs, y) if len(y) else [],
        **extra,
    )
