"""benchmark: what runs cost side by side: time, memory, bytes. It makes no run and changes none.

All nets are in one process and take turns call by call, each on rows of its own data, so that what the machine does
besides falls on all of them alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainctl.compression import latency, measure
from trainctl.compression.footprint import footprint
from trainctl.run import machine
from trainctl.run.run import Run
from trainctl.verbs.entrants import Entrant, entrant

log = logging.getLogger("trainctl")

Times = dict[str, dict[int, dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """What to measure: batch sizes, thread counts, calls of each, and at most about so many seconds for one of them."""

    batches: tuple[int, ...] = (1, 64)
    threads: tuple[int, ...] = (1,)
    calls: int = 200
    seconds: float = 2.0


def benchmark(runs: Sequence[Run], plan: Plan) -> dict[str, Any]:
    """Figures of each run and ratios to the first (JSON-able). Their configs must be trusted already.

    Raises RunError (no weights), DataError (no rows can be had).
    """
    torch.set_num_threads(1)
    seen: dict[str, Tensor] = {}
    entrants = []
    for number, run in enumerate(runs, start=1):
        log.info("restoring %s (%d of %d)", run.name, number, len(runs))
        entrants.append(entrant(run, max(plan.batches), seen))
    found = [sizes(one, max(plan.batches)) for one in entrants]
    for threads in plan.threads:
        for one, times in zip(found, timed(entrants, plan, threads), strict=True):
            one["latency"][str(threads)] = times
            one["throughput"][str(threads)] = throughput(times, max(plan.batches))
    for one in found:
        one["ratio"] = ratios(found[0], one)
    described = {"schema": 1, "hardware": machine.hardware(), "versions": machine.versions()}
    asked = {"batches": list(plan.batches), "threads": list(plan.threads), "calls": plan.calls}
    return {**described, **asked, "waited": waiting(found), "runs": found}


def sizes(one: Entrant, batch: int) -> dict[str, Any]:
    """What does not depend on calls: counts, bytes, memory at the peak of a call for `batch` rows, time to load."""
    log.info("loading %s", one.run.name)
    return {
        "run": one.name,
        "name": f"{one.run.verb}/{one.run.name}",
        "verb": one.run.verb,
        "file": one.file.name,
        "rows": one.rows,
        **one.counts(),
        **footprint(one.load, one.head(batch)),
        "latency": {},
        "throughput": {},
        "notes": one.notes,
    }


def timed(entrants: Sequence[Entrant], plan: Plan, threads: int) -> list[Times]:
    """Of each run {engine: {batch: figures}}, all in turns."""
    subjects: dict[str, latency.Subject] = {}
    rows: dict[str, Mapping[int, Any]] = {}
    for number, one in enumerate(entrants):
        heads = {batch: one.head(batch) for batch in plan.batches}
        for engine, subject in one.engines(threads).items():
            subjects[f"{number} {engine}"], rows[f"{number} {engine}"] = subject, heads
    log.info("timing %d nets on %d thread%s", len(subjects), threads, "s" * (threads > 1))
    found: list[Times] = [{} for _ in entrants]
    for name, times in latency.latency(subjects, rows, plan.calls, threads, plan.seconds).items():
        place, _, engine = name.partition(" ")
        found[int(place)][engine] = times
    return found


def waiting(found: Sequence[dict[str, Any]]) -> float:
    """Share of the time that calls on one thread waited for a core: 0 on a machine that is free."""
    parts = [
        part["waited"] for one in found for times in one["latency"].get("1", {}).values() for part in times.values()
    ]
    return round(sum(parts) / len(parts), 3) if parts else 0.0


def throughput(times: Times, batch: int) -> dict[str, float]:
    """Rows a second of each engine, in batches of that size."""
    return {engine: round(batch / found[batch]["median_ms"] * 1e3, 1) for engine, found in times.items()}


def ratios(first: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """How many times fewer, smaller or faster a run is than the first.

    latency: {threads: {engine: {engine of the first: {batch: ratio}}}}.
    """
    found = measure.comparison(_counts(first), _counts(one))
    found["latency"] = {
        threads: {
            engine: {
                other: {batch: theirs[batch]["median_ms"] / own[batch]["median_ms"] for batch in own}
                for other, theirs in first["latency"][threads].items()
            }
            for engine, own in engines.items()
        }
        for threads, engines in one["latency"].items()
    }
    return found


def _counts(one: dict[str, Any]) -> measure.Figures:
    counts: Any = {name: one[name] for name in measure.COUNTS}
    return counts  # type: ignore[no-any-return]
