"""Two nets on the same rows: how often they agree, and how far a metric moves, with an interval of the difference.

The interval is of the differences in each resample. Rows that are hard for one net are hard for the other, so it is far
narrower than what two separate intervals suggest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError, did_you_mean
from trainctl.metrics import bootstrap, names
from trainctl.metrics.bootstrap import Interval
from trainctl.metrics.classification import ClassScores, labels
from trainctl.metrics.regression import NumberScores

CLOSE = 0.01  # of the target's standard deviation: numbers that differ by less are one prediction


def agreement(outputs_a: Tensor, outputs_b: Tensor, spec: DataSpec, threshold: float | None = None) -> float | None:
    """Share of rows with equal predictions, of class probabilities [N, C] or values [N]; None without rows.

    Two numbers are equal when they differ by at most 1 % of the target's standard deviation.
    """
    _same_rows(outputs_a, outputs_b)
    if not len(outputs_a):
        return None
    if spec.target == "class":
        equal = labels(outputs_a, threshold) == labels(outputs_b, threshold)
    else:
        gap = (outputs_a.double() - outputs_b.double()).reshape(len(outputs_a), -1).abs().amax(1)
        equal = gap <= CLOSE * spec.target_std
    return float(equal.double().mean())


def paired_difference(
    metric: str,
    outputs_a: Tensor,
    outputs_b: Tensor,
    y: Tensor,
    spec: DataSpec,
    resamples: int = 1000,
    seed: int = 0,
    threshold: float | None = None,
) -> tuple[float | None, Interval | None]:
    """(metric of b minus that of a, 95 % interval of this difference) on the same rows, by a paired bootstrap.

    outputs: class probabilities [N, C] or values [N]. metric: a base name or `stage/name`; `loss` is measured as
    log_loss or mse. None where a metric is undefined. UsageError for a metric that this target does not have.
    """
    _same_rows(outputs_a, outputs_b, y)
    name = measured_as(metric, spec)
    if not len(y):
        return None, None
    scores = [_scores(outputs.cpu(), y.cpu(), spec, name, threshold) for outputs in (outputs_a, outputs_b)]

    def difference(weights: Tensor) -> dict[str, Tensor]:
        one, other = (_in_order(score, weights)[name].double() for score in scores)
        return {name: other - one}

    value = difference(torch.ones(1, len(y), dtype=torch.float64))[name].item()
    interval = bootstrap.intervals(difference, len(y), resamples, seed)[name] if resamples else None
    return (None, None) if value != value else (value, interval)


def with_interval(
    metric: str, outputs: Tensor, y: Tensor, spec: DataSpec, resamples: int = 1000, seed: int = 0
) -> tuple[float | None, Interval | None]:
    """(metric, 95 % interval) of one net's outputs, as `evaluate_outputs` gives them among all metrics."""
    name = measured_as(metric, spec)
    if not len(y):
        return None, None
    outputs, y = outputs.cpu(), y.cpu()
    # the same rows are drawn only where they lie in the same order, and quantiles have numbers sorted
    scores = ClassScores(outputs, y, [name]) if spec.target == "class" else NumberScores(outputs, y, names.NUMBER)

    def of(weights: Tensor) -> dict[str, Tensor]:
        return {name: scores(weights)[name].double()}

    value = of(torch.ones(1, len(y), dtype=torch.float64))[name].item()
    interval = bootstrap.intervals(of, len(y), resamples, seed)[name] if resamples else None
    return (None, None) if value != value else (value, interval)


def measured_as(metric: str, spec: DataSpec) -> str:
    """The base name of the metric that stands for a run's objective such as `val/loss`; UsageError for none of ours."""
    name = metric.rpartition("/")[2]
    if name == "loss":
        return "log_loss" if spec.target == "class" else "mse"
    known = names.CLASS if spec.target == "class" else names.NUMBER
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
        raise UsageError(f"no metric `{name}` of a {spec.target}{hint}")
    return name


def _scores(
    outputs: Tensor, y: Tensor, spec: DataSpec, name: str, threshold: float | None
) -> ClassScores | NumberScores:
    if spec.target == "class":
        return ClassScores(outputs, y, [name], threshold)
    return NumberScores(outputs, y, [name])


def _in_order(scores: ClassScores | NumberScores, weights: Tensor) -> dict[str, Tensor]:
    """The scores of weights [R, N] of the rows as they came; some scores have sorted theirs."""
    return scores(weights if scores.order is None else weights.index_select(1, scores.order))


def _same_rows(first: Tensor, *others: Tensor) -> None:
    if any(len(first) != len(other) for other in others):
        raise UsageError(f"outputs of the same rows are compared; got {[len(first), *map(len, others)]} rows")
