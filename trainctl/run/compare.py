"""Choose and rank runs: what `trainctl runs` and `train -m` show."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainctl.errors import RunError, UsageError, did_you_mean
from trainctl.metrics import names
from trainctl.run.run import STATUSES, Run

_VERBS = ("train", "evaluate", "predict", "tune", "prune", "quantize", "compress", "export")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Ranked:
    """One row of a ranking; `place` counts from 1 and is None for a run without the metric."""

    place: int | None
    run: Run
    value: float | None


def rank(runs: Iterable[Run], metric: str, mode: str = "auto") -> list[Ranked]:
    """Best run first (`mode`: min, max, or auto by the metric's name); runs without a finite value come last.

    UsageError when no run has the metric, with the nearest name.
    """
    if mode not in ("auto", "min", "max"):
        raise UsageError(f"mode must be min, max or auto, got '{mode}'")
    sign = -1.0 if (names.mode(metric) if mode == "auto" else mode) == "max" else 1.0
    tables = [(run, metrics_of(run)) for run in runs]
    known = sorted({name for _, metrics in tables for name in metrics})
    if tables and known and metric not in known:
        raise UsageError(
            f"no run has the metric `{metric}`{did_you_mean(metric, known) or '; have: ' + ', '.join(known)}"
        )
    values = [(run, value_of(metrics, metric)) for run, metrics in tables]
    found = sorted(((run, value) for run, value in values if value is not None), key=lambda pair: sign * pair[1])
    missing = [Ranked(None, run, None) for run, value in values if value is None]
    return [Ranked(place, run, value) for place, (run, value) in enumerate(found, start=1)] + missing


def select(
    runs: Iterable[Run], verb: str | None = None, status: str | None = None, since: str | None = None
) -> list[Run]:
    """Runs of a verb, with a status, started since a date (`2026-11-20`, `2026-11-20 14:00`) or an age (`2h`, `3d`)."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"no status `{status}`; one of {', '.join(STATUSES)}{did_you_mean(status, STATUSES)}")
    runs = list(runs)
    hint = did_you_mean(verb, {*_VERBS, *(run.verb for run in runs)}) if verb is not None else ""
    if hint and not any(run.verb == verb for run in runs) and verb not in _VERBS:
        raise UsageError(f"no runs of `{verb}`{hint}")
    after = _moment(since) if since is not None else None
    return [
        run
        for run in runs
        if (verb is None or run.verb == verb)
        and (status is None or run.status == status)
        and (after is None or ((begin := started(run)) is not None and begin >= after))
    ]


def started(run: Run) -> datetime | None:
    """When the run started, with its time zone; None when its record does not say."""
    return _time(run.record.get("started"))


def seconds(run: Run) -> float | None:
    """How long the run took, or has been running; None when its record does not say."""
    begin, end = started(run), _time(run.record.get("ended"))
    if begin is None:
        return None
    if end is None and run.status != "running":
        return None
    return max(0.0, ((end or datetime.now().astimezone()) - begin).total_seconds())


def metrics_of(run: Run) -> dict[str, float | None]:
    """The run's metrics; empty when they are missing or damaged."""
    try:
        return run.metrics
    except RunError:
        return {}


def value_of(metrics: dict[str, float | None], metric: str) -> float | None:
    """A metric's value when it is a finite number, else None."""
    value = metrics.get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone() if isinstance(text, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _moment(since: str) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", since.strip())
    try:
        if ago:
            return datetime.now().astimezone() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(since.strip()).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"cannot read the time `{since}`; write a date like 2026-11-20, or an age like 30m, 2h or 3d"
        ) from error
