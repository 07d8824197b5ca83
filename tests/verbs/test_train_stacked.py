"""A group of trials trained as one stack: each ends as the run that training it alone would have made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.verbs.stacked import QUICK, Study, content
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run

DOUBLE = "trainer.precision=64-true"
TRIALS = [
    ["optimizer.lr=0.01", DOUBLE], ["optimizer.lr=0.001", DOUBLE, "model.dropout=0.3"],
    ["optimizer.weight_decay=0.5", DOUBLE], ["task.label_smoothing=0.2", DOUBLE, "task.l1=0.001"],
    ["seed=5", "data.seed=0", DOUBLE], ["seed=6", DOUBLE, "scheduler=cosine"],
]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def furthest(one: Run, other: Run) -> float:
    """The largest relative difference between the weights of two runs."""
    pairs = [load_file(run.path / "model.safetensors") for run in (one, other)]
    assert list(pairs[0]) == list(pairs[1])
    worst = 0.0
    for name, value in pairs[1].items():
        assert pairs[0][name].dtype == value.dtype and pairs[0][name].shape == value.shape
        worst = max(worst, float((pairs[0][name] - value).norm() / value.norm()))
    return worst


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what a clock says."""
    return {name: value for name, value in row.items() if name != "seconds"}


def texts(run: Run) -> list[str]:
    """The lines of the log without times."""
    lines = (run.path / "train.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 3)[3].rpartition("  ")[0] or line.split(" ", 3)[3] for line in lines]


@pytest.mark.slow
def test_each_trial_is_the_run_that_training_it_alone_makes(study: Study, lab: Any) -> None:
    told = study(*TRIALS)
    assert [len(rows) for rows in told.rows] == [6, 6, 6]
    for number, words in enumerate(TRIALS):
        alone, stacked = lab.run("train", *QUICK, *words), study.run(number)
        assert furthest(stacked, alone) < 1e-4
        rows = zip(stacked.metrics_log(), alone.metrics_log(), strict=True)
        for own, other in rows:
            assert list(own) == list(other) and figures(own) == pytest.approx(figures(other), rel=1e-5)
        assert {k: v for k, v in stacked.metrics.items() if k != "parameters"} == pytest.approx(alone.metrics, rel=1e-5)
        assert stacked.config == alone.config and stacked.record["data"] == alone.record["data"]
        assert texts(stacked) == texts(alone)
        same = ("verb", "status", "seed", "threads", "monitor", "mode", "best_epoch", "epochs", "warnings", "overrides")
        assert {k: stacked.record[k] for k in same} == {k: alone.record[k] for k in same}
        assert set(stacked.record) == {*alone.record, "stacked"}
        ours, theirs = (Manifest.read(run.path).files for run in (stacked, alone))
        assert list(ours) == list(theirs)
        assert ours["preprocessing/spec.json"] == theirs["preprocessing/spec.json"]
        assert ours["config.yaml"] == theirs["config.yaml"]
        told_of = told.ends[number]
        assert (told_of["status"], told_of["epochs"], told_of["halted"]) == ("completed", 3, None)
        assert told_of["metrics"] == stacked.metrics and told_of["seconds"] > 0


def test_what_it_records_is_what_is_told_of_it(study: Study) -> None:
    study(["optimizer.lr=0.01"], ["optimizer.lr=0.02"])
    run = study.run(1)
    assert run.record["stacked"] == 2 and run.parent == study.folder and run.record["pid"] == os.getpid()
    assert run.metrics["parameters"] == sum(v.numel() for v in load_file(run.path / "model.safetensors").values())
    assert {k: v for k, v in run.metrics_log()[-1].items() if "/" in k}.items() <= run.metrics.items()
    again = Manifest()
    again.list_files(run.path)
    assert Manifest.read(run.path).files == again.files and "report.html" in again.files
    assert set(run.record["timing"]) >= {"setup_s", "fit_s", "fit_cpu_s", "test_s", "steps_per_s", "total_s"}


def test_the_other_commands_take_it_as_any_run(study: Study, lab: Any) -> None:
    study(["optimizer.lr=0.01"], ["optimizer.lr=0.02", "model.dropout=0.2"])
    for number in (0, 1):
        run = study.run(number)
        measured = lab.run("evaluate", str(run.path), "split=val")
        for name in ("val/loss", "val/accuracy", "val/auroc"):
            assert measured.metrics[name] == pytest.approx(run.metrics[name], rel=1e-6)
    name = os.path.relpath(run.path, lab.folder)
    assert lab("show", name).code == 0
    assert lab("train", "--from", name, *QUICK[3:], "trainer.max_epochs=1").code == 0
    assert lab.sentence(4, "train", "--resume", name, "trainer.max_epochs=9") == (
        f"run `{name}` keeps no checkpoint; begin from its weights with `trainctl train --from {name}`"
    )
    assert study.run(1).status == "completed"


def test_float32_gives_the_same_figures_within_noise(study: Study, lab: Any) -> None:
    words = [["optimizer.lr=0.01"], ["optimizer.lr=0.003", "model.dropout=0.2"]]
    study(*words)
    for number, trial in enumerate(words):
        alone, stacked = lab.run("train", *QUICK, *trial), study.run(number)
        assert furthest(stacked, alone) < 1e-3
        assert stacked.metrics["val/loss"] == pytest.approx(alone.metrics["val/loss"], rel=1e-4)


def test_patience_runs_out_for_each_trial_as_alone(study: Study, lab: Any) -> None:
    words = [[f"optimizer.lr={lr}", "trainer.max_epochs=30", f"callbacks.early_stopping.patience={patience}", DOUBLE]
             for lr, patience in ((0.3, 1), (0.1, 4), (0.03, 2))]  # fmt: skip
    study(*words)
    epochs = [study.run(number).record["epochs"] for number in range(3)]
    alone = [lab.run("train", *QUICK, *trial) for trial in words]
    assert epochs == [run.record["epochs"] for run in alone] and len(set(epochs)) > 1
    for number, run in enumerate(alone):
        assert study.run(number).record["best_epoch"] == run.record["best_epoch"] < epochs[number]
        assert furthest(study.run(number), run) < 1e-4


def test_a_number_and_its_plateau_as_alone(study: Study, lab: Any) -> None:
    shared = ["data.target=number", "scheduler=plateau", "train.monitor=val/r2", DOUBLE]
    words = [[*shared, f"scheduler.patience={patience}"] for patience in (0, 3)]
    study(*words)
    for number, trial in enumerate(words):
        alone, stacked = lab.run("train", *QUICK, *trial), study.run(number)
        assert furthest(stacked, alone) < 1e-4
        assert (stacked.record["monitor"], stacked.record["mode"]) == ("val/r2", "max")
        assert [row["lr"] for row in stacked.metrics_log()] == [row["lr"] for row in alone.metrics_log()]


def test_a_halted_trial_leaves_the_stack_with_its_best_weights(study: Study, lab: Any) -> None:
    words = [["optimizer.lr=0.01", DOUBLE], ["optimizer.lr=0.02", DOUBLE], ["optimizer.lr=0.03", DOUBLE]]
    told = study(*words, stops=lambda number, epoch: "worse than most" if (number, epoch) == (1, 2) else None)
    assert [sorted(rows) for rows in told.rows] == [[0, 1, 2], [0, 1, 2], [0, 2]]
    run = study.run(1)
    assert run.status == "completed" and run.record["halted"] == {"epoch": 2, "why": "worse than most"}
    assert told.ends[1]["halted"] == run.record["halted"] and told.ends[1]["epochs"] == run.record["epochs"] == 2
    assert furthest(run, lab.run("train", *QUICK, *words[1], "trainer.max_epochs=2")) < 1e-4
    assert furthest(study.run(2), lab.run("train", *QUICK, *words[2])) < 1e-4
    assert "halted" not in study.run(0).record


def test_a_diverging_trial_fails_and_the_others_go_on(study: Study, lab: Any) -> None:
    told = study(["optimizer=sgd", DOUBLE], ["optimizer=sgd", "optimizer.lr=1e30", DOUBLE],
                 ["optimizer=sgd", "optimizer.lr=0.05", DOUBLE])  # fmt: skip
    alone = lab("train", *QUICK, "optimizer=sgd", "optimizer.lr=1e30", DOUBLE)
    sentence = alone.err.splitlines()[-1].removeprefix("trainctl: error: ").partition(";")[0]
    assert sentence.startswith("loss is ")
    assert told.ends[1]["status"] == "failed" and told.ends[1]["code"] == alone.code == 6
    assert told.ends[1]["message"] == f"{sentence}; a trial of a stack keeps no checkpoint"
    failed = study.run(1)
    assert failed.status == "failed" and failed.record["error"]["message"] == told.ends[1]["message"]
    assert "DivergedError" in (failed.path / "error.txt").read_text(encoding="utf-8")
    assert [told.ends[k]["status"] for k in (0, 2)] == ["completed"] * 2


def test_seeds_may_be_a_dimension(study: Study, lab: Any) -> None:
    words = [[f"seed={seed}", DOUBLE, "model.dropout=0.2"] for seed in (1, 2, 3)]
    study(*words)
    for number, trial in enumerate(words):
        alone, stacked = lab.run("train", *QUICK, *trial), study.run(number)
        assert furthest(stacked, alone) < 1e-4 and stacked.record["data"] == alone.record["data"]


def test_a_trial_that_is_tested_has_all_that_a_test_leaves(study: Study, lab: Any) -> None:
    words = [["train.test=true", "train.bootstrap=20", f"optimizer.lr={lr}", DOUBLE] for lr in (0.01, 0.003)]
    study(*words)
    alone, stacked = lab.run("train", *QUICK, *words[0]), study.run(0)
    assert list(stacked.metrics) == [*alone.metrics, "parameters"]
    assert stacked.metrics == pytest.approx({**alone.metrics, "parameters": stacked.metrics["parameters"]}, rel=1e-5)
    assert stacked.record["intervals"]["test/auroc"] == pytest.approx(alone.record["intervals"]["test/auroc"], rel=1e-5)
    made = set(stacked.record["artifacts"])
    assert made == set(alone.record["artifacts"]) - {"checkpoint"} and "predictions" in made
    assert stacked.test_looks() == 1
    measured = lab.run("evaluate", str(stacked.path))
    assert measured.metrics["test/accuracy"] == stacked.metrics["test/accuracy"]


@pytest.mark.slow
def test_other_rows_may_give_other_shapes(study: Study) -> None:
    table = study.folder.parents[2] / "table.csv"
    rows = [f"{i % 7},{'abcdefghij'[i % 10] if i % 30 == 9 else 'a'},{'yes' if i % 7 > 3 else 'no'}" for i in range(90)]
    table.write_text("size,kind,big\n" + "\n".join(rows) + "\n", encoding="utf-8")
    shared = ["data=tabular", f"data.path={table}", "data.target=big", "data.batch_size=16"]
    words = [[*shared, f"seed={seed}"] for seed in range(6)]
    order = study.order(*[[] for _ in words])
    for one, trial in zip(order["trials"], words, strict=True):
        rest = [w for w in QUICK if not w.startswith("data")]
        one["config"] = content([*rest, *trial])
    study.go_on(order)
    assert {end["status"] for end in study.told.ends.values()} == {"completed"}
    assert study.told.lone == []
