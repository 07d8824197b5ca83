"""What goes wrong in a group of stacked trials: who fails, what is said, and what is left on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.verbs.stacked import QUICK, Study, content
from trainctl.verbs import train_stacked


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_a_trial_that_cannot_be_made_fails_alone(study: Study) -> None:
    told = study([], ["model.dropout=2"], ["optimizer.betas=[2,3]"])
    assert told.ends[0]["status"] == "completed"
    assert told.ends[1]["message"] == "model.dropout=2 must be at least 0 and below 1, e.g. model.dropout=0.1"
    assert (told.ends[1]["code"], told.ends[2]["code"]) == (2, 1)
    assert told.ends[2]["message"] == "ValueError: Invalid beta parameter at index 0: 2"
    for number in (1, 2):
        run = study.run(number)
        assert run.status == "failed" and run.record["error"]["message"] in told.ends[number]["message"]


def unstackable(study: Study) -> dict[str, Any]:
    """An order of three trials that have no stacked form."""
    order = study.order([], [], [])
    for one in order["trials"]:
        rest = [w for w in QUICK if not w.startswith("model")]
        words = ["model=lstm", "data.kind=sequence", "model.dropout=0.2", f"seed={one['number']}"]
        one["config"] = content([*rest, *words])
    return order


def test_what_cannot_be_stacked_is_trained_one_by_one_and_said_once(study: Study) -> None:
    study.go_on(unstackable(study))
    assert study.told.ends == {} and [one["number"] for one in study.told.lone] == [0, 1, 2]
    first, second, _ = study.told.lone
    assert first["do"] == "trial" and first["parent"] == str(study.folder) and first["wait"] is True
    (note,) = first["notes"]
    assert note.startswith("vectorized: 3 trials are trained one by one: there is no stacked form of")
    assert second["notes"] == [] and not Path(second["path"]).exists()


def test_a_signal_to_one_that_is_trained_alone_stops_the_rest(study: Study) -> None:
    order = unstackable(study)
    study.told.codes = {1: 128 + signal.SIGINT}
    study.go_on(order)
    assert [one["number"] for one in study.told.lone] == [0, 1]
    assert study.told.ends == {2: {
        "status": "stopped", "metrics": None, "code": 130,
        "message": "stopped by SIGINT; a trial of a stack keeps no checkpoint, so it begins anew with its study",
    }}  # fmt: skip


def test_a_trial_that_was_begun_alone_is_left_to_itself(study: Study, lab: Any) -> None:
    study([], ["seed=1"])
    before = study.run(0).record
    study([], ["seed=1"])
    assert study.told.ends == {} and [one["number"] for one in study.told.lone] == [0, 1]
    assert study.run(0).record == before


def test_a_stack_too_large_for_memory_is_halved(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(train_stacked.StackedTrainer):
        def run_epoch(self) -> list[float]:
            if len(self.members) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().run_epoch()

    monkeypatch.setattr(train_stacked, "StackedTrainer", Small)
    told = study(*([f"optimizer.lr={lr}"] for lr in (0.01, 0.02, 0.03, 0.04, 0.05)))
    assert {end["status"] for end in told.ends.values()} == {"completed"} and len(told.ends) == 5
    assert [study.run(k).record["stacked"] for k in range(5)] == [2, 2, 1, 2, 2]
    assert [len(study.run(k).metrics_log()) for k in range(5)] == [3] * 5


def test_a_mistake_of_ours_is_told_of_every_trial(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> list[float]:
        raise KeyError("of ours")

    monkeypatch.setattr(train_stacked.StackedTrainer, "run_epoch", broken)
    told = study([], ["seed=1"])
    assert [(end["status"], end["code"], end["message"]) for end in told.ends.values()] == [
        ("failed", 1, "KeyError: 'of ours'")
    ] * 2
    assert "of ours" in (study.run(1).path / "error.txt").read_text(encoding="utf-8")


def test_a_signal_records_every_trial_as_stopped(study: Study) -> None:
    def stops(number: int, epoch: int) -> None:
        if epoch == 2 and number == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    told = study(["trainer.max_epochs=50"], ["trainer.max_epochs=50", "seed=1"], stops=stops)
    message = "stopped by SIGTERM at epoch 3; a trial of a stack keeps no checkpoint, so it begins anew with its study"
    for number in (0, 1):
        end, run = told.ends[number], study.run(number)
        assert (end["status"], end["code"], end["message"]) == ("stopped", 143, message)
        assert run.status == "stopped" and run.record["error"]["message"] == message
        assert len(run.metrics_log()) == 2 and "epoch 2/50" in (run.path / "train.log").read_text(encoding="utf-8")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert study([], ["seed=1"]).ends[0]["status"] == "completed"
    assert study.run(1).status == "completed"


@pytest.mark.slow
def test_killed_in_the_middle_every_run_can_be_read(study: Study) -> None:
    order = study.order(["trainer.max_epochs=50"], ["trainer.max_epochs=50", "seed=1"])
    script = (
        "import json, os, sys\n"
        "from trainctl.verbs import train_stacked\n"
        "from trainctl.verbs.kept_data import KeptData\n"
        "class Talk:\n"
        "    def tell(self, rows):\n"
        "        if rows[0]['epoch'] == 3: os.kill(os.getpid(), 9)\n"
        "        return {}\n"
        "train_stacked.run_group(json.load(sys.stdin), Talk(), KeptData(), train_stacked.Around(print))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(order), text=True, timeout=120)
    assert done.returncode == -9
    for number in (0, 1):
        run = study.run(number)
        assert run.status == "crashed" and [row["epoch"] for row in run.metrics_log()] == [1, 2, 3]
    study.go_on(study.order([], ["seed=1"]))
    assert {end["status"] for end in study.told.ends.values()} == {"completed"}
    assert len(study.run(0).metrics_log()) == 3
