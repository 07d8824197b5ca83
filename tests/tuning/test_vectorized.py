"""`tune.executor=vectorized` with real workers: each trial is the run that its own command makes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trainctl.run.run import Run

TINY = ("data=synthetic", "data.rows=400", "data.batch_size=64", "model=mlp", "model.hidden_dims=[8]",
        "trainer.max_epochs=3", "tune.executor=vectorized", "tune.jobs=1")


def tuned(lab: Any, *words: str, verb: tuple[str, ...] = ("tune",)) -> list[Run]:
    """The runs of a study's trials, which must have ended well."""
    done = lab(*verb, *TINY, *words, "--json")
    assert done.code == 0, done.err
    return [Run.open(lab.folder / trial["run"]) for trial in done.json.get("trials") or done.json["jobs"]]


def furthest(one: Path, other: Path) -> float:
    """The largest relative difference between two runs' weights."""
    pairs = [load_file(path / "model.safetensors") for path in (one, other)]
    return max(float((pairs[0][name] - value).norm() / value.norm()) for name, value in pairs[1].items())


@pytest.mark.slow
def test_every_trial_has_the_weights_that_its_command_gives(lab: Any) -> None:
    runs = tuned(lab, "optimizer.lr=interval(0.001,0.02)", "model.dropout=choice(0,0.2)", "seed=1,2",
                 "trainer.precision=64-true", "tune.trials=6", "sampler=random")  # fmt: skip
    assert [run.record["stacked"] for run in runs] == [6] * 6 and len({run.record["pid"] for run in runs}) == 1
    for run in runs:
        alone = lab.run("train", *run.record["overrides"])
        assert furthest(run.path, alone.path) < 1e-4
        assert {k: v for k, v in run.metrics.items() if k != "parameters"} == pytest.approx(alone.metrics, rel=1e-5)
        assert run.config == alone.config


@pytest.mark.slow
def test_a_stopper_drops_trials_from_the_stack(lab: Any) -> None:
    runs = tuned(lab, "optimizer=sgd", "optimizer.lr=0.1,1e-7,1e-7,1e-7,1e-7,1e-7", "sampler=grid", "stopper=asha",
                 "trainer.max_epochs=9")  # fmt: skip
    halted = [run for run in runs if run.record.get("halted")]
    assert halted and not runs[0].record.get("halted")
    for run in halted:
        assert run.status == "completed" and run.record["halted"]["epoch"] == len(run.metrics_log()) < 9
        assert (run.path / "model.safetensors").exists()


@pytest.mark.slow
def test_what_cannot_be_stacked_is_said_in_one_line(lab: Any) -> None:
    done = lab("tune", *TINY, "optimizer=adamw,muon", "optimizer.lr=0.01,0.02", "sampler=grid", "--json")
    assert done.code == 0 and done.json["counts"] == {"completed": 4}
    said = [line for line in done.err.splitlines() if "vectorized" in line]
    assert said == ["vectorized: 2 of 4 trials run on the pool: optimizer=muon cannot be stacked"]
    runs = [Run.open(lab.folder / trial["run"]) for trial in done.json["trials"]]
    assert sorted(str(run.record.get("stacked")) for run in runs) == ["2", "2", "None", "None"]


@pytest.mark.slow
def test_what_turns_out_not_to_stack_is_said_by_the_worker(lab: Any) -> None:
    words = [word for word in TINY if not word.startswith("model")]
    done = lab("tune", *words, "data.kind=sequence", "data.sequence_length=8", "model=mlp,lstm", "model.dropout=0",
               "trainer.max_epochs=1", "optimizer.lr=0.01,0.02", "sampler=grid", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["counts"] == {"completed": 4}
    said = [line for line in done.err.splitlines() if "one by one" in line]
    assert len(said) == 1
    assert said[0].startswith("vectorized: 2 trials are trained one by one: there is no stacked form of ")


@pytest.mark.slow
def test_a_signal_gives_the_stack_back_and_a_resumed_study_trains_it(lab: Any) -> None:
    words = ("optimizer.lr=0.01,0.02,0.03", "sampler=grid", "trainer.max_epochs=300", "callbacks=none")
    started = lab.start("tune", *TINY, *words)
    rows = lab.folder / "runs"
    started.wait_for("runs ")
    while not list(rows.glob("tune/*/trials/0/metrics.jsonl")):
        time.sleep(0.005)
    started.send(signal.SIGTERM)
    done = started.wait()
    assert done.code == 143, done.err
    (study,) = (rows / "tune").iterdir()
    runs = [study / "trials" / str(number) for number in range(3)]
    for path in runs:
        assert Run.open(path).record["error"]["message"].startswith("stopped by SIGTERM at epoch ")
    again = lab("tune", "--resume", str(study.relative_to(lab.folder)), "--json")
    assert again.code == 0, again.err
    assert again.json["counts"] == {"completed": 3}
    assert [trial["number"] for trial in again.json["trials"]] == [0, 1, 2]
    assert [len(Run.open(path).metrics_log()) for path in runs] == [300] * 3


@pytest.mark.slow
def test_all_points_of_a_sweep_are_tested(lab: Any) -> None:
    runs = tuned(lab, "optimizer.lr=0.01,0.02", verb=("train", "-m"))
    for run in runs:
        assert run.record["stacked"] == 2 and run.test_looks() == 1
        assert lab.run("evaluate", str(run.path)).metrics["test/accuracy"] == run.metrics["test/accuracy"]
