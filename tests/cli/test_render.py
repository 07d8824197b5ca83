from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from trainctl.cli import render
from trainctl.cli.console import Block, Table
from trainctl.run import directory, machine
from trainctl.run.run import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    path = Path("runs/train/2026-11-20_12-00-00")
    path.mkdir(parents=True)
    (path / "report.html").touch()
    config = {"model": {"_target_": "trainctl.models.mlp.MLP"}, "data": {"_target_": "x.Tabular"}, "task": None}
    run = Run.create(path, "train", config, ["model=mlp", "data.path=my file.csv"], seed=0, monitor="val/loss")
    run.finish(
        {"val/loss": 0.25, "val/accuracy": 0.8512, "test/accuracy": 0.84, "test/auroc": None, "lr": 1e-5},
        intervals={"test/accuracy": [0.81, 0.87]},
        timing={"fit_s": 65.2, "steps_per_s": 812.4},
        artifacts={"report": "report.html", "predictions": "/elsewhere/out.csv"},
    )
    times = {"started": "2026-11-20T12:00:00+00:00", "ended": "2026-11-20T12:03:20+00:00"}
    run.update(**times, user="ada", host="lovelace", versions={"torch": "2.13.0"})
    return run


def text(blocks: list[Block]) -> list[str]:
    return [line for block in blocks for line in (block.lines() if isinstance(block, Table) else [block])]


def test_metrics_table_has_a_row_per_metric_and_a_column_per_stage() -> None:
    metrics = {"test/r2": 12345.678, "val/r2": 0.5, "val/loss": 0.0, "train/loss": 1e-7, "custom/x/y": -1.0, "lr": None}
    assert render.metrics_table(metrics).columns == ["metric", "train", "val", "test", "", "custom"]
    rows = {row[0]: row[1:] for row in render.metrics_table(metrics, {"val/r2": [0.4, 0.6]}).rows}
    assert rows == {
        "r2": ["", "0.5000 [0.4000, 0.6000]", "1.235e+04", "", ""],
        "loss": ["1e-07", "0.0000", "", "", ""],
        "x/y": ["", "", "", "", "-1.0000"],
        "lr": ["", "", "", "-", ""],
    }


def test_the_spread_over_folds_stands_behind_the_mean() -> None:
    table = render.metrics_table({"test/f1": 0.9, "test/f1_sd": 0.01, "test/r2": None, "test/r2_sd": None, "a_sd": 1.0})
    assert table.rows == [["f1", "0.9000 ± 0.0100", ""], ["r2", "-", ""], ["a_sd", "", "1.0000"]]


def test_a_run_ends_with_its_metrics_its_path_and_the_next_command(run: Run) -> None:
    lines = text(render.run_summary(run, ["trainctl evaluate runs/train/2026-11-20_12-00-00"]))
    assert lines[-3:] == [
        "run: runs/train/2026-11-20_12-00-00",
        "report: runs/train/2026-11-20_12-00-00/report.html",
        "next: trainctl evaluate runs/train/2026-11-20_12-00-00",
    ]
    assert lines[0].split() == ["metric", "val", "test"]


def test_show_tells_all_that_the_directory_says(run: Run) -> None:
    run.count_test_look()
    described = {
        "splits": {"train": {"rows": 70, "sha256": "x"}, "val": {"rows": 15}, "test": {"rows": 15}},
        "columns": [
            {"name": "id", "kind": "drop", "why": "an id"},
            {"name": "age", "kind": "numeric", "why": "floats"},
        ],
        "warnings": ["12 rows of test are also in train"],
    }
    run.update(data=described, git={"commit": "0123456789abcdef", "dirty": True})
    fold = run.path / "folds" / "0"
    fold.mkdir(parents=True)
    Run.create(fold, "train", {}, [], parent=run.path)
    lines = text(render.show(run, directory.children(run), ["trainctl predict RUN FILE"]))
    assert lines[:17] == [
        "run         runs/train/2026-11-20_12-00-00",
        "verb        train",
        "status      completed",
        "started     2026-11-20 12:00:00 by ada on lovelace",
        "took        3 min 20 s",
        "timing      fit 1 min 05 s, steps_per_s 812",
        "command     trainctl train model=mlp 'data.path=my file.csv'",
        "config      model MLP, data Tabular",
        "seed        0",
        "children    folds/0 running",
        "git         0123456789ab with changes",
        "versions    torch 2.13.0",
        "test looks  test split looked at 1 time",
        "data: train 70 rows, val 15 rows, test 15 rows",
        "dropped column id: an id",
        "warning: 12 rows of test are also in train",
        lines[16],
    ]
    assert [line.split()[0] for line in lines[-9:]] == [
        "lr", "file", "config.yaml", "manifest.json", "metrics.json", "report.html", "run.json", "test_looks.jsonl",
        "next:",
    ]  # fmt: skip
    child = Run.open(fold)
    assert "parent    runs/train/2026-11-20_12-00-00" in text(render.show(child))


def test_show_says_how_a_run_ended(run: Run, tmp_path: Path) -> None:
    run.fail(ValueError("loss is nan at epoch 2 step 40"), 6, "Traceback")
    status = text(render.show(Run.open(run.path)))[2]
    assert status == "status    failed: loss is nan at epoch 2 step 40 (runs/train/2026-11-20_12-00-00/error.txt)"
    record = json.loads((run.path / "run.json").read_text())
    del record["error"]
    (run.path / "run.json").write_text(json.dumps({**record, "status": "running", "pid": -1, "host": machine.host()}))
    assert text(render.show(Run.open(run.path)))[2] == "status    crashed: its process ended without a word"
    (run.path / "config.yaml").write_text("[")
    assert "config    damaged" in text(render.show(Run.open(run.path)))


def test_show_gives_the_command_line_that_made_the_run(run: Run) -> None:
    made = ["data=from_run", "model=from_run", "freeze=[a]"]
    tuned, read = Path("runs/train/2026-11-20_15-00-00"), Path("runs/predict/2026-11-20_15-00-00")
    for path in (tuned, read):
        path.mkdir(parents=True)
    parent = "runs/train/2026-11-20_12-00-00"
    tuning = Run.create(tuned, "train", {}, made, parent=run.path)
    assert f"command   trainctl train --from {parent} 'freeze=[a]'" in text(render.show(tuning))
    assert render.runs_table([tuning]).rows[0][4] == "freeze=[a]"
    predicted = Run.create(read, "predict", {}, [], parent=run.path, input="my new.csv")
    assert f"command   trainctl predict {parent} 'my new.csv'" in text(render.show(predicted))


def test_test_looks_in_words() -> None:
    assert render.looks(3) == "test split looked at 3 times"


def test_foreign_data_descriptions_are_no_trouble() -> None:
    assert render.data_blocks(None) == [] == render.data_blocks({"columns": ["x"], "splits": []})
    assert render.data_blocks({"splits": {"train": 3}}) == ["data: train 3 rows"]


def test_runs_table(run: Run, tmp_path: Path) -> None:
    sweep = Path("runs/train/2026-11-20_13-00-00")
    sweep.mkdir()
    (sweep / "sweep.json").write_text("{}")
    (Path("runs/train/2026-11-20_14-00-00")).mkdir()
    listed = directory.list_runs(Path("runs"))
    run.update(overrides=["x=" + "1" * 100])
    assert render.runs_table(listed, "val/accuracy").rows[0][3] == "0.8512"
    assert [row[:4] for row in render.runs_table(listed).rows] == [
        ["train/2026-11-20_12-00-00", "completed", "3 min 20 s", "val/loss 0.2500"],
        ["train/2026-11-20_13-00-00", "completed", "-", "-"],
        ["train/2026-11-20_14-00-00", "damaged", "-", "-"],
    ]
    assert render.runs_table(listed).rows[1][4] == "sweep of 0"
    last = render.runs_table([run, listed[2]]).rows
    assert last[0][4] == "x=" + "1" * 55 + "..."
    assert last[1][4] == "`runs/train/2026-11-20_14-00-00` is not a run directory: ..."


def test_sweep_table() -> None:
    rows = [
        {
            "run": "runs/s/1",
            "status": "completed",
            "overrides": ["seed=1"],
            "metric": "val/loss",
            "value": 0.25,
            "place": 1,
        },
        {"run": "runs/s/0", "status": "failed", "overrides": "seed=0", "error": "out of memory", "value": None},
    ]
    assert render.sweep_table(rows).lines() == [
        "place  run       status                 val/loss  overrides",
        "    1  runs/s/1  completed                0.2500  seed=1",
        "    -  runs/s/0  failed: out of memory         -  seed=0",
    ]


def test_json_has_the_promised_keys_and_paths_from_here(run: Run, tmp_path: Path) -> None:
    path = "runs/train/2026-11-20_12-00-00"
    child = Path("runs/evaluate/2026-11-20_13-00-00")
    child.mkdir(parents=True)
    content = render.run_json(run)
    assert content == {
        "run": path,
        "verb": "train",
        "status": "completed",
        "parent": None,
        "metrics": {"val/loss": 0.25, "val/accuracy": 0.8512, "test/accuracy": 0.84, "test/auroc": None, "lr": 1e-5},
        "intervals": {"test/accuracy": [0.81, 0.87]},
        "timing": {
            "import_s": None, "setup_s": None, "fit_s": 65.2, "test_s": None, "total_s": None, "steps_per_s": 812.4
        },
        "artifacts": {"report": f"{path}/report.html", "predictions": "/elsewhere/out.csv"},
    }  # fmt: skip
    assert render.run_json(Run.create(child, "evaluate", {}, [], parent=run.path))["parent"] == path
    os.chdir(tmp_path / "runs" / "evaluate")
    assert render.run_json(Run.open(tmp_path / path))["run"] == str(tmp_path / path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.84, "0.8 s"), (42, "42 s"), (59.99, "60 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert render.duration(seconds) == text


def test_quoted_paths_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert render.quoted(tmp_path / "my runs" / "a") == "'my runs/a'"
