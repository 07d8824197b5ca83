"""Does the overhead of a trial grow with the number of trials, and does the parent's memory?

    python experiments/benchmarks/sweeps/noop.py [--trials 1000] [--quick] [--only grid/pool ...]

A no-op trial: one epoch of a linear model on 64 rows of 2 columns. For each sampler and executor one study of 1 000
(vectorized: 1 024, which is 32 stacks) trials; its processes are looked at every 50 ms. A trial's overhead is the CPU
and wall time that pass per finished trial: trial 10 to 100 (workers are warm then) against the last 90, or the second
to fourth stack against the last three.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from bisect import bisect_left
from itertools import product
from pathlib import Path
from time import time

from measure import TRAINCTL, adopt, cost, cpu_of_tree, machine, memory, table

STACK = 32
SAMPLERS, EXECUTORS = ("grid", "random", "tpe"), ("pool", "vectorized")
WORK = [
    "data=synthetic",
    "data.rows=64",
    "data.numeric=2",
    "data.categorical=0",
    "model=linear",
    "trainer.max_epochs=1",
    "callbacks=none",
    "trainer.threads=1",
]


def words(sampler: str, executor: str, trials: int) -> list[str]:
    jobs = 2 if executor == "pool" else 1
    chosen = [f"sampler={sampler}", f"tune.executor={executor}", f"tune.jobs={jobs}", f"tune.stack={STACK}", "-q"]
    if sampler == "grid":
        values = ",".join(f"{0.0001 + k * 1e-6:.7g}" for k in range(trials))
        return [*TRAINCTL, "tune", *WORK, f"optimizer.lr={values}", *chosen]
    return [*TRAINCTL, "tune", *WORK, "optimizer.lr=tag(log, interval(1e-4,1e-1))", f"tune.trials={trials}", *chosen]


class Samples:
    """Time, CPU of all processes and memory of the parent, as the study goes on."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu: list[float] = []
        self.memory: list[float] = []

    def __call__(self, pid: int) -> None:
        self.times.append(time())
        self.cpu.append(cpu_of_tree(pid))
        self.memory.append(memory(pid))

    def at(self, when: float, values: list[float]) -> float:
        """A value at a moment."""
        return values[min(bisect_left(self.times, when), len(values) - 1)]


def ends(folder: Path) -> list[float]:
    """When each trial ended, in order: when its record was written last."""
    records = list(folder.glob("runs/tune/*/trials/*/run.json"))
    states = [json.loads(record.read_text(encoding="utf-8"))["status"] for record in records]
    return sorted(r.stat().st_mtime for r, state in zip(records, states, strict=True) if state == "completed")


def study(sampler: str, executor: str, trials: int) -> list[object]:
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = cost(words(sampler, executor, trials), Path(folder), samples)
        moments = ends(Path(folder))
    if len(moments) != trials:
        raise SystemExit(f"{sampler}, {executor}: {len(moments)} trials of {trials} have a finished run")

    def between(first: int, last: int) -> tuple[float, float]:
        """ms of wall and CPU per trial from the end of one trial to the end of another."""
        begin, end = moments[first - 1], moments[last - 1]
        spent = samples.at(end, samples.cpu) - samples.at(begin, samples.cpu)
        return 1000 * (end - begin) / (last - first), 1000 * spent / (last - first)

    warm, span = (10, 90) if executor == "pool" else (STACK, 3 * STACK)
    early, late = between(warm, warm + span), between(trials - span, trials)
    at_first, at_last = (samples.at(moments[k - 1], samples.memory) for k in (warm + span, trials))
    return [
        sampler,
        executor,
        f"{early[0]:.1f}, {late[0]:.1f}",
        late[0] / early[0],
        f"{early[1]:.1f}, {late[1]:.1f}",
        late[1] / early[1] if early[1] else float("nan"),
        at_last - at_first,
        f"{at_last:.0f}, {max(samples.memory):.0f}",
        f"{wall:.0f}, {cpu:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a quarter of the trials")
    parser.add_argument("--only", nargs="+", help="as grid/pool")
    options = parser.parse_args()
    adopt()
    rows = []
    for sampler, executor in product(SAMPLERS, EXECUTORS):
        if options.only and f"{sampler}/{executor}" not in options.only:
            continue
        trials = 1000 if executor == "pool" else 32 * STACK
        rows.append(study(sampler, executor, trials // 4 if options.quick else trials))
        print(*rows[-1], flush=True)
    head = ["sampler", "executor", "wall ms a trial, first and last", "ratio (at most 1.3)"]
    head += ["CPU ms a trial, first and last", "ratio (at most 1.3)"]
    head += ["parent grows by MB (under 50)", "parent MB at the last trial, with the report", "whole, wall and CPU s"]
    print(f"\n{table(head, rows)}\n\n{machine()}")


if __name__ == "__main__":
    main()
