"""The same metrics per group of rows, and how far apart the groups are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainctl.metrics import Report

MISSING = "(missing)"


def by_group(
    outputs: Tensor,
    y: Tensor,
    groups: Sequence[str | None],
    report: Callable[[Tensor, Tensor], Report],
    max_groups: int = 50,
) -> dict[str, Any]:
    """{"groups": {value: {"rows", "metrics", "intervals"}}, "gaps": {metric: max - min}, "other_rows"} of a raw column.

    Most frequent groups first; beyond `max_groups` the rest is left out and counted in "other_rows". A gap is None
    when fewer than two groups have the metric.
    """
    codes: dict[str, list[int]] = {}
    for row, value in enumerate(groups):
        codes.setdefault(MISSING if value is None else str(value), []).append(row)
    ordered = sorted(codes.items(), key=lambda item: (-len(item[1]), item[0]))
    found: dict[str, dict[str, Any]] = {}
    for value, rows in ordered[:max_groups]:
        index = torch.tensor(rows)
        measured = report(outputs[index], y[index])
        found[value] = {"rows": measured.rows, "metrics": measured.metrics, "intervals": measured.intervals}
    return {
        "groups": found,
        "gaps": _gaps([group["metrics"] for group in found.values()]),
        "other_rows": sum(len(rows) for _, rows in ordered[max_groups:]),
    }


def _gaps(measured: list[dict[str, float | None]]) -> dict[str, float | None]:
    gaps: dict[str, float | None] = {}
    for name in measured[0] if measured else ():
        defined = [value for metrics in measured if (value := metrics[name]) is not None]
        gaps[name] = max(defined) - min(defined) if len(defined) > 1 else None
    return gaps
