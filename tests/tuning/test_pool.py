"""Warm workers with real trials: what they tell, what they leave, and what becomes of those that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuning.pools import LONG, QUICK, Study, content
from trainctl.config import saved
from trainctl.config.compose import compose
from trainctl.errors import DataError
from trainctl.run import checkpoints
from trainctl.run.run import Run
from trainctl.tuning.pool import Died, Done, Epochs


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    found = Study(tmp_path / "study", 2)
    with found.pool:
        yield found


def test_six_trials_over_two_workers_are_six_ordinary_runs(study: Study) -> None:
    facts = study.pool.prepare(content())
    assert (facts.target, facts.rows) == ("class", {"train": 420, "val": 90, "test": 90})
    assert facts.produced[:3] == ("train/loss", "val/loss", "val/accuracy")
    assert facts.epoch_s is not None and 0 < facts.epoch_s < 5
    waiting = list(range(6))
    while waiting or study.pool.idle < 2:
        while waiting and study.pool.idle:
            number = waiting.pop(0)
            study.start(number, f"optimizer.lr={0.001 * (number + 1)}")
        study.until(lambda event: isinstance(event, Done))
    done = sorted((event for event in study.heard if isinstance(event, Done)), key=lambda event: event.number)
    assert [event.number for event in done] == [0, 1, 2, 3, 4, 5]
    assert {event.slot for event in done} == {1, 2}
    for event in done:
        run = Run.open(study.path(event.number))
        assert (run.status, event.status, event.epochs, run.record["parent"]) == ("completed", "completed", 3, "../..")
        assert run.metrics == event.metrics
        assert run.metrics["parameters"] == facts.parameters
        assert len(run.metrics_log()) == 3
        assert (run.path / "report.html").exists() and (run.path / "train.log").read_text(encoding="utf-8")
        run.verify("preprocessing/spec.json")
    rows = [event.rows for event in study.heard if isinstance(event, Epochs) and 4 in event.rows]
    assert [row[4] for row in rows] == Run.open(study.path(4)).metrics_log()


@pytest.mark.slow
def test_a_trial_in_the_pool_is_bit_identical_to_the_same_words_alone(study: Study, lab: Any) -> None:
    words = ("model.dropout=0.2", "optimizer.lr=0.01", "seed=3")
    alone = lab.run("train", *QUICK, *words)
    study.pool.prepare(content())
    study.start(0, "optimizer.lr=0.1")
    study.done(0)
    slot = study.start(1, *words, latency=True)
    done = study.done(1)
    assert slot == 1  # the warm one
    run = Run.open(study.path(1))
    assert {k: v for k, v in run.metrics.items() if k not in ("parameters", "latency_ms")} == alone.metrics
    assert (run.path / "model.safetensors").read_bytes() == (alone.path / "model.safetensors").read_bytes()
    assert done.metrics["latency_ms"] is not None and done.metrics["latency_ms"] > 0
    assert (run.path / "config.yaml").read_text() == (alone.path / "config.yaml").read_text()
    timed = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in timed} for row in run.metrics_log()] == [
        {k: v for k, v in row.items() if k not in timed} for row in alone.metrics_log()
    ]
    assert run.record["data"] == alone.record["data"]
    for name in os.listdir(alone.path / "preprocessing"):
        assert (run.path / "preprocessing" / name).read_bytes() == (alone.path / "preprocessing" / name).read_bytes()


@pytest.mark.slow
def test_a_table_is_read_once_and_tested_in_a_worker_too(study: Study, lab: Any, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = [f"{i % 17},{'ab'[i % 2]},{i % 3}" for i in range(300)]
    table.write_text("\n".join(["x,c,y", *lines]) + "\n", encoding="utf-8")
    words = ("data=tabular", "data.target=y", f"data.path={table}", "train.test=true")
    alone = lab.run("train", *[w for w in QUICK if w not in ("data=synthetic", "data.rows=600", "train.test=false")],
                    *words)

    def order(number: int, *more: str) -> None:
        kept = [w for w in QUICK if w not in ("data=synthetic", "data.rows=600", "train.test=false")]
        config = yaml.safe_load(saved.dump(compose("train", [*kept, *words, *more])))
        if number == 0:
            study.pool.prepare(config)
            os.truncate(table, 0)  # whoever reads it now finds nothing
        study.pool.start({"do": "trial", "number": number, "path": str(study.path(number)), "config": config,
                          "overrides": list(more), "parent": str(study.folder), "wait": False, "latency": False})

    order(0)
    order(1, "data.batch_size=32")
    ends = study.ends(2)
    assert [event.message for event in ends] == ["", ""]
    run = Run.open(study.path(0))
    assert {k: v for k, v in run.metrics.items() if k != "parameters"} == alone.metrics
    assert (run.path / "predictions.parquet").read_bytes() == (alone.path / "predictions.parquet").read_bytes()
    assert Run.open(study.path(1)).config["data"]["batch_size"] == 32
    order(2, "data.scaling=standard")  # other data: read again, here in vain
    done = study.done(2)
    assert (done.status, done.code) == ("failed", 3)


@pytest.mark.slow
def test_a_killed_worker_is_told_and_replaced_and_the_others_finish(study: Study) -> None:
    slot = study.start(0, *LONG)
    study.start(1)
    first = study.until(lambda event: isinstance(event, Epochs) and 0 in event.rows and event.rows[0]["epoch"] >= 2)
    assert isinstance(first, Epochs)
    os.kill(Run.open(study.path(0)).record["pid"], signal.SIGKILL)
    died = study.until(lambda event: isinstance(event, Died))
    assert died == Died(slot, (0,), "killed by signal 9 (out of memory?)")
    run = Run.open(study.path(0))
    assert run.status == "failed"
    assert run.record["error"] == {"kind": "ResourceError", "message": died.why, "code": 5}
    assert "last" in checkpoints.names(run.path)
    study.start(2)
    study.ends(2)
    assert sorted(event.number for event in study.heard if isinstance(event, Done)) == [1, 2]
    assert not list((study.folder / "workers").glob(f"{slot}.log"))


@pytest.mark.slow
def test_a_failing_trial_leaves_its_worker_as_it_was(study: Study, tmp_path: Path) -> None:
    def end(number: int, *words: str) -> Done:
        assert study.start(number, *words) == 1
        return study.done(number)

    done = end(0, "optimizer=sgd", "optimizer.lr=1e30")
    assert (done.status, done.code) == ("failed", 6)
    assert "loss" in done.message
    assert Run.open(study.path(0)).record["error"]["message"] == done.message
    nowhere = tmp_path / "none.csv"
    words = ["data.target=y", f"data.path={nowhere}", "trainer.threads=1"]
    config = yaml.safe_load(saved.dump(compose("train", words)))
    study.pool.start({"do": "trial", "number": 1, "path": str(study.path(1)), "config": config, "overrides": [],
                      "parent": str(study.folder), "wait": False, "latency": False})
    done = study.done(1)
    assert (done.slot, done.status, done.code) == (1, "failed", 3)
    assert Run.open(study.path(1)).status == "failed"
    done = end(2)
    assert (done.status, done.epochs) == ("completed", 3)
    with pytest.raises(DataError) as told:
        study.pool.prepare(config)
    assert str(told.value) == Run.open(study.path(1)).record["error"]["message"]


@pytest.mark.slow
def test_a_stop_ends_the_trial_after_that_epoch_and_keeps_its_best(study: Study) -> None:
    study.start(0, *LONG, wait=True)
    why = "worse than the median"
    done = study.done(0, answer=lambda event: {0: why} if event.rows[0]["epoch"] == 3 else {})
    assert (done.status, done.epochs, done.halted) == ("completed", 3, {"epoch": 3, "why": why})
    run = Run.open(study.path(0))
    assert (run.status, run.record["halted"]) == ("completed", {"epoch": 3, "why": why})
    assert "best" in checkpoints.names(run.path) and (run.path / "model.safetensors").exists()


@pytest.mark.slow
def test_a_stop_in_the_first_fold_spares_the_others(study: Study) -> None:
    study.start(0, "train.folds=3", wait=True)
    done = study.done(0, answer=lambda event: {0: "enough"} if event.rows[0]["epoch"] == 2 else {})
    assert (done.status, done.halted) == ("completed", {"epoch": 2, "why": "enough"})
    study.start(1, "train.folds=3", wait=True)
    done = study.done(1)
    assert done.halted is None and done.metrics["val/loss_sd"] is not None
    epochs = [event.rows[1]["epoch"] for event in study.heard if isinstance(event, Epochs) and 1 in event.rows]
    assert epochs == [1, 2, 3]


@pytest.mark.slow
def test_a_stopped_pool_keeps_each_place_and_goes_on_exactly(study: Study, lab: Any) -> None:
    alone = lab.run("train", *QUICK, "trainer.max_epochs=40", "callbacks=none")
    study.start(0, "trainer.max_epochs=40", "callbacks=none", wait=True)
    seen: list[int] = []

    def answer(event: Epochs) -> dict[int, str]:
        seen.append(event.rows[0]["epoch"])
        if len(seen) == 3:
            study.pool.stop_all(signal.SIGTERM)
        return {}

    done = study.done(0, answer=answer)
    assert (done.status, done.code) == ("stopped", 143)
    assert Run.open(study.path(0)).status == "stopped"
    study.start(0, "trainer.max_epochs=40", "callbacks=none")
    study.heard.clear()
    done = study.done(0)
    assert (done.status, done.epochs) == ("completed", 40)
    weights = (study.path(0) / "model.safetensors").read_bytes()
    assert weights == (alone.path / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_signal_before_the_trial_has_begun_is_not_lost(study: Study) -> None:
    study.start(0, *LONG)
    study.pool.stop_all(signal.SIGTERM)
    done = study.done(0)
    assert (done.status, done.code) == ("stopped", 143)


@pytest.mark.slow
def test_a_trial_that_takes_too_long_failed_for_that(study: Study) -> None:
    slot = study.start(0, *LONG)
    study.until(lambda event: isinstance(event, Epochs))
    study.pool.kill(slot, "took longer than tune.trial_timeout (1 s)")
    done = study.done(0)
    assert (done.status, done.code, done.message) == ("failed", 1, "took longer than tune.trial_timeout (1 s)")
    assert Run.open(study.path(0)).record["error"]["message"] == done.message
    assert study.start(1) == slot
    assert study.done(1).status == "completed"
    study.start(2, *LONG)
    study.until(lambda event: isinstance(event, Epochs) and 2 in event.rows)
    study.pool.kill(slot, "time is up", at_once=True)
    assert study.until(lambda event: isinstance(event, Died)) == Died(slot, (2,), "time is up")
    assert Run.open(study.path(2)).status == "stopped"


@pytest.mark.slow
def test_workers_are_had_again_when_the_process_that_they_come_from_is_killed(study: Study) -> None:
    study.pool.prepare(content())
    slot = study.start(0, *LONG)
    study.until(lambda event: isinstance(event, Epochs))
    pid = Run.open(study.path(0)).record["pid"]
    os.kill(int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1]), signal.SIGKILL)
    died = study.until(lambda event: isinstance(event, Died))
    assert died == Died(slot, (0,), "the process that workers come from was killed by signal 9 (out of memory?)")
    assert Run.open(study.path(0)).record["error"]["code"] == 5
    study.start(1)
    assert study.done(1).status == "completed"


@pytest.mark.slow
def test_no_process_outlives_a_killed_study(tmp_path: Path) -> None:
    script = (
        "import json, sys\nfrom pathlib import Path\nfrom trainctl import launch\n"
        "from trainctl.tuning.pool import Epochs, Pool\n"
        "folder, config = Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "pool = Pool(2, launch.Options(quiet=True), folder)\n"
        "for k in range(2):\n"
        "    pool.start({'do': 'trial', 'number': k, 'path': str(folder / str(k)), 'config': config, 'overrides': [],\n"
        "                'parent': str(folder), 'wait': False, 'latency': False})\n"
        "seen = set()\n"
        "while True:\n"
        "    for event in pool.events(1):\n"
        "        assert isinstance(event, Epochs), event\n        seen |= set(event.rows)\n"
        "    if len(seen) == 2:\n"
        "        print(pool._zygote.pid, *(w.pid for w in pool._workers.values()), flush=True)\n"
    )
    folder = tmp_path / "study"
    folder.mkdir()
    command = [sys.executable, "-c", script, str(folder), json.dumps(content(*LONG))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3 and all(os.path.exists(f"/proc/{pid}") for pid in pids)
        process.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in pids if alive(pid)] == []
    assert Run.open(folder / "0").status == "crashed"


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to read its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
