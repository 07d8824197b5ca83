"""The points of a compression search: what each costs and saves, the Pareto front, and the best of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainctl.run import files
from trainctl.run.run import Run

NOISE = 0.05  # two points whose merits are closer are alike
Point = dict[str, Any]


def compared(source: Run, children: Sequence[tuple[Run, str]], options: Mapping[str, Any]) -> list[Point]:
    """The run itself and its points, each with what it is, measured side by side; options: the config's `measure`."""
    runs = [source, *(run for run, _ in children)]
    module, threads = importlib.import_module("trainctl.verbs.benchmark"), source.record.get("threads") or 1
    batch = int(options["batch"])
    plan = module.Plan(tuple(sorted({1, 64, batch})), (threads,), options["calls"], options["seconds"])
    found = module.benchmark(runs, plan)["runs"]
    drops = [0.0, *(drop_of(run, source) for run, _ in children)]
    texts = ["the run itself", *(what for _, what in children)]
    by_engine = {
        f"{i} {engine}": times for i, one in enumerate(found) for engine, times in one["latency"][str(threads)].items()
    }
    read = module.latency.reading(by_engine)
    first = speeds(found[0], threads, read)
    points = [
        point(number, run, what, fallen, one, found[0], speeds(one, threads, read), first, batch)
        for number, (run, what, fallen, one) in enumerate(zip(runs, texts, drops, found, strict=True))
    ]
    for one in points:
        one["front"] = not any(dominates(other, one) for other in points)
    return points


def took(run: Run, part: str) -> float:
    """Seconds of a part of a run, such as `fit_s`."""
    return float((run.record.get("timing") or {}).get(part) or 0.0)


def drop(child: Run) -> float:
    """How far the objective on val fell from the child's own parent."""
    fallen = files.read_json(child.path / "compression.json")["objective"]["drop"]
    return math.inf if fallen is None else float(fallen)


def drop_of(child: Run, source: Run) -> float:
    """How far the objective on val is below the source's: over all steps in between."""
    fallen = 0.0
    while child.path.resolve() != source.path.resolve():
        fallen += drop(child)
        assert child.parent is not None
        child = Run.open(child.parent)
    return fallen


def speeds(one: Mapping[str, Any], threads: int, read: str) -> dict[int, float]:
    """ms by batch size on the engine that is fastest for single rows."""
    chosen = min(one["latency"][str(threads)].values(), key=lambda times: times[1][read])
    return {batch: times[read] for batch, times in chosen.items()}


def point(
    number: int, run: Run, what: str, drop: float, one: Mapping[str, Any], first: Mapping[str, Any],
    speeds: dict[int, float], before: dict[int, float], batch: int,
) -> Point:  # fmt: skip
    figures = {"drop": drop, "latency_ms": speeds[batch], "latency": before[batch] / speeds[batch]}
    for name in ("bytes", "parameters", "macs"):
        if first.get(name) and one.get(name):
            figures[name] = first[name] / one[name]
    return {
        "number": number, "run": files.shown(run.path), "what": what, "figures": figures, "bytes": one["bytes"],
        "zstd_bytes": one["zstd_bytes"], "latency_ms": {str(size): ms for size, ms in speeds.items()},
        "faster": {str(size): before[size] / ms for size, ms in speeds.items()},
    }  # fmt: skip


def _costs(point: Point) -> tuple[float, ...]:
    return (point["figures"]["drop"], point["bytes"], point["figures"]["latency_ms"])


def dominates(one: Point, other: Point) -> bool:
    """Nowhere worse, and better somewhere."""
    pairs = list(zip(_costs(one), _costs(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def best(points: Sequence[Point]) -> Point | None:
    """The smallest and fastest of the points that miss nothing; where none does, the one that is closest to it.

    Of several that are as small and fast, but for what times vary by, the one that drops least.
    """
    within = [point for point in points if not point["missed"]]
    if not within:
        return min(points, key=lambda point: (len(point["missed"]), point["figures"]["drop"]), default=None)
    least = min(map(merit, within))
    return min((point for point in within if merit(point) <= least + NOISE), key=lambda point: point["figures"]["drop"])


def merit(point: Point) -> float:
    """The smaller, the better: bytes and times weigh alike, on a logarithmic scale."""
    times = point["latency_ms"].values()
    return math.log(point["bytes"]) + sum(map(math.log, times)) / len(times)
