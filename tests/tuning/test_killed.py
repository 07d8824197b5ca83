"""Studies whose whole process group is killed at random moments and resumed lose nothing and do nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

WORK = [
    "tune", "data=synthetic", "data.rows=3000", "data.batch_size=32", "model.hidden_dims=[8]", "model.dropout=0.1",
    "trainer.max_epochs=4", "trainer.threads=1", "tune.jobs=2", "seed=3",
]
RATE = "optimizer.lr=tag(log, interval(1e-4,1e-1))"
SPACES = {
    "grid": ["sampler=grid", "optimizer.lr=0.001,0.003,0.01,0.03,0.1", "optimizer.weight_decay=0,0.1"],
    "random": ["sampler=random", "tune.trials=10", RATE, "optimizer.weight_decay=interval(0,0.1)"],
}
TRIALS = 10
KINDS = list(product(SPACES, ("pool", "vectorized")))


def words(space: str, executor: str) -> list[str]:
    return [*WORK, *SPACES[space], f"tune.executor={executor}"]


def study(folder: Path) -> Path:
    (path,) = (folder / "runs" / "tune").iterdir()
    return path


def table(path: Path) -> list[tuple[int, str, dict[str, Any], Any]]:
    """What study.json says of each trial, by number."""
    content = json.loads((path / "study.json").read_text(encoding="utf-8"))
    return sorted((trial["number"], trial["status"], trial["params"], trial["values"]) for trial in content["trials"])


def growth(folder: Path) -> int:
    """How much the study has written to its journal."""
    return sum(path.stat().st_size for path in folder.glob("runs/tune/*/journal.log"))


def wait_for_work(folder: Path, before: int) -> None:
    """Until the study hands out trials."""
    deadline = time.monotonic() + 60
    while growth(folder) == before and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(forked, tmp_path_factory):
    """The tables of studies that nothing happened to, and how long they took: to start, and to run trials."""
    found = {}

    def of(space: str, executor: str):
        if (space, executor) not in found:
            folder, begun = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
            started = forked.start(*words(space, executor), cwd=folder)
            wait_for_work(folder, 0)
            ready, done = time.monotonic(), started.wait()
            assert done.code == 0, done.err
            found[space, executor] = table(study(folder)), ready - begun, time.monotonic() - ready
        return found[space, executor]

    return of


def killed_until_done(
    forked, folder: Path, command: list[str], moments: random.Random, spans: list[float], limit: int
) -> int:
    """A study that is killed up to `limit` times and resumed; how often it was. Three in four kills are at work."""
    kills, begun = 0, False
    while True:
        before = growth(folder)
        started = forked.start(*(["tune", "--resume", "latest"] if begun else command), cwd=folder)
        if kills < limit:
            if moments.random() < 0.75:
                wait_for_work(folder, before)
                time.sleep(moments.uniform(0, spans[1]))
            else:
                time.sleep(moments.uniform(0, spans[0]))
            os.killpg(started.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        done = started.wait()
        if done.code == 0:
            return kills
        assert done.code == -signal.SIGKILL, done.err
        kills += 1
        listed = forked.run("runs", "--all", "--json", cwd=folder)
        assert listed.code == 0, listed.err
        assert "unreadable" not in listed.out + listed.err
        begun = any((folder / "runs" / "tune").glob("*/run.json"))  # killed before anything was there: begin again


def check(forked, folder: Path, undisturbed, space: str, executor: str, total: int, seed: int) -> None:
    """Kill studies of one kind until there were `total` kills; each ends as if nothing had happened."""
    expected, *spans = undisturbed(space, executor)
    moments, kills, number = random.Random(seed), 0, 0
    while kills < total:
        number += 1
        place = folder / f"study-{number}"
        place.mkdir()
        kills += killed_until_done(forked, place, words(space, executor), moments, spans, total - kills)
        path = study(place)
        assert table(path) == expected
        runs = {run.name: run for run in (path / "trials").iterdir()}
        assert sorted(runs) == sorted(str(number) for number in range(TRIALS))
        for run in runs.values():
            assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "completed"
            lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
        if space == "grid":
            plan = [json.loads(line) for line in (path / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
            assert [line["trial"] for line in plan] == list(range(TRIALS))
        assert not [p for p in path.rglob("*") if p.name.startswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "executor", "total"), [("random", "pool", 2), ("grid", "vectorized", 1)])
def test_killed_a_few_times_it_ends_as_if_nothing_had_happened(forked, tmp_path, undisturbed, space, executor, total):
    check(forked, tmp_path, undisturbed, space, executor, total, seed=0)


@pytest.mark.torture
@pytest.mark.parametrize(("space", "executor"), KINDS)
def test_killed_thirty_times_it_ends_as_if_nothing_had_happened(forked, tmp_path, undisturbed, space, executor):
    check(forked, tmp_path, undisturbed, space, executor, total=30, seed=1)
