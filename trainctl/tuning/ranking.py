"""Which trials are best: places, the Pareto front, and whether the best lies at the end of a range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainctl.tuning.wording import number_text, setting

if TYPE_CHECKING:
    from trainctl.tuning.dimensions import Dimension

NEAR = 0.02  # of a range: so close to a bound, the best may lie beyond it
ENDED_WELL = ("completed", "stopped")
STATES = ("completed", "stopped", "failed", "running", "waiting")


def counts(states: Iterable[str]) -> dict[str, int]:
    """How many trials are in each state; states that no trial is in are left out."""
    found = dict.fromkeys(STATES, 0)
    for state in states:
        found[state] = found.get(state, 0) + 1
    return {state: number for state, number in found.items() if number}


def rank(trials: Sequence[dict[str, Any]], directions: Sequence[str]) -> None:
    """Set each trial's `place` by its first value: from 1 on, None for those without one and those that failed or run.

    A trial that a stopper ended has the value, and the weights, of its best epoch as any other has.
    """
    sign = -1.0 if directions and directions[0] == "maximize" else 1.0
    good = [trial for trial in trials if trial["value"] is not None and trial["status"] in ENDED_WELL]
    for trial in trials:
        trial["place"] = None
    for place, trial in enumerate(sorted(good, key=lambda trial: sign * trial["value"]), start=1):
        trial["place"] = place


def ranked(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials by place; those without one behind, stopped before failed, by number."""
    return sorted(trials, key=lambda t: (t["place"] is None, t["place"] or 0, STATES.index(t["status"]), t["number"]))


def dominates(one: Sequence[float], other: Sequence[float], signs: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better; a sign is 1.0 where less is better."""
    pairs = [(sign * a, sign * b) for a, b, sign in zip(one, other, signs, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[int]:
    """Numbers of the completed trials that no other beats in every objective, best in the first objective first."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    good = [t for t in trials if t["status"] == "completed" and t["values"] and None not in t["values"]]
    # sorted so, a trial can be beaten only by one before it
    good.sort(key=lambda t: ([sign * value for sign, value in zip(signs, t["values"], strict=True)], t["number"]))
    front: list[Mapping[str, Any]] = []
    for trial in good:
        if not any(dominates(better["values"], trial["values"], signs) for better in front):
            front.append(trial)
    return [trial["number"] for trial in front]


def boundary_warnings(dimensions: Iterable[Dimension], params: Mapping[str, Any]) -> list[str]:
    """A sentence for each range that the best point lies at an end of."""
    found = []
    for dimension in dimensions:
        end = _end(dimension, params.get(dimension.name))
        if end is not None:
            text = setting(dimension.name, params[dimension.name])
            bounds = f"[{number_text(dimension.low)}, {number_text(dimension.high)}]"
            found.append(f"the best {text} lies at the {end} end of {bounds}; widen it")
    return found


def _end(dimension: Dimension, value: Any) -> str | None:
    """`upper` or `lower`; None away from the ends, and at a lower end of 0: nothing lies below it."""
    if dimension.kind == "choice" or not isinstance(value, int | float) or dimension.high <= dimension.low:
        return None
    if dimension.kind == "int":
        share = 1.0 if value >= dimension.high else 0.0 if value <= dimension.low else 0.5
    else:
        low, high, at = (math.log(v) if dimension.log else v for v in (dimension.low, dimension.high, value))
        share = (at - low) / (high - low)
    if share >= 1 - NEAR:
        return "upper"
    return "lower" if share <= NEAR and dimension.low != 0 else None
