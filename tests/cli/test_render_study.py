"""What the command line says of a study: whole texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainctl.cli import render, render_study
from trainctl.cli.console import Block, Table
from trainctl.run import directory
from trainctl.run.run import Run
from trainctl.tuning import ranking

PATH = Path("runs/tune/2026-11-20_12-00-00")
DIMENSIONS = [
    {"name": "model", "kind": "choice", "choices": ["mlp", "cnn"]},
    {"name": "optimizer.lr", "kind": "float", "low": 1e-4, "high": 0.1, "log": True},
]


def trial(number: int, status: str = "completed", *values: float, **more: Any) -> dict[str, Any]:
    params = {"model": "mlp", "optimizer.lr": 0.1 / (number + 1)}
    words = ["data.path=my file.csv", f"optimizer.lr={0.1 / (number + 1)}"]
    known = {"params": params, "overrides": words, "run": str(PATH / "trials" / str(number)), "epochs": 5}
    known |= {"seconds": 61.0, "host": "vm", "why": None, **more}
    return {"number": number, "status": status, "value": values[0] if values else None, "values": list(values), **known}


def study(*trials: dict[str, Any], objectives: tuple[str, ...] = ("val/auroc",), **more: Any) -> dict[str, Any]:
    directions = ["maximize", "minimize"][: len(objectives)]
    ranking.rank(trials, directions)
    several = len(objectives) > 1
    return {
        "study": str(PATH), "status": "completed", "objectives": list(objectives), "directions": directions,
        "budget": len(trials), "dimensions": DIMENSIONS, "trials": list(trials), "importances": {}, "warnings": [],
        "best": next((one for one in trials if one["place"] == 1), None), "seconds": 10.0,
        "pareto": ranking.pareto(trials, directions) if several else [],
        "counts": ranking.counts(one["status"] for one in trials), **more,
    }  # fmt: skip


def text(blocks: list[Block]) -> list[str]:
    return [line for block in blocks for line in (block.lines() if isinstance(block, Table) else [block])]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    PATH.mkdir(parents=True)
    return Run.create(PATH, "tune", {"model": {"_target_": "x.MLP"}}, ["optimizer.lr=0.1,0.2"])


def test_the_end_of_a_study(run: Run) -> None:
    (PATH / "report.html").touch()
    found = study(
        trial(0, "completed", 0.8312),
        trial(1, "failed", why="loss is nan at step 40 (lr 1)", epochs=None, seconds=0.4),
        trial(2, "completed", 0.84, params={"model": "mlp"}),
        trial(3, "stopped", 0.5, why="below the median", epochs=2),
        importances={"optimizer.lr": 0.254, "model": 0.746},
        warnings=["the best optimizer.lr=0.0998 lies at the upper end of [1e-4, 0.1]; widen it"],
    )
    assert text(render_study.summary(found, PATH)) == [
        "place  trial  status     val/auroc  epochs        took  model  optimizer.lr  why",
        "    1      2  completed     0.8400       5  1 min 01 s  mlp",
        "    2      0  completed     0.8312       5  1 min 01 s  mlp    0.1",
        "    3      3  stopped       0.5000       2  1 min 01 s  mlp    0.025         below the median",
        "    -      1  failed             -       -       0.4 s  mlp    0.05          loss is nan at step 40 (lr 1)",
        "hyperparameter  importance",
        "model                 75 %",
        "optimizer.lr          25 %",
        "warning: the best optimizer.lr=0.0998 lies at the upper end of [1e-4, 0.1]; widen it",
        "best: runs/tune/2026-11-20_12-00-00/trials/2",
        "train it again: trainctl train 'data.path=my file.csv' optimizer.lr=0.03333333333333333",
        "study: runs/tune/2026-11-20_12-00-00",
        "report: runs/tune/2026-11-20_12-00-00/report.html",
    ]


def test_the_end_of_a_study_in_which_nothing_completed(run: Run) -> None:
    assert text(render_study.summary(study(trial(0, "failed", why="out of memory")), PATH)) == [
        "place  trial  status  val/auroc  epochs        took  model  optimizer.lr  why",
        "    -      0  failed          -       5  1 min 01 s  mlp    0.1           out of memory",
        "study: runs/tune/2026-11-20_12-00-00",
    ]
    assert text(render_study.summary(study(), PATH))[0] == "no trial has ended"


def test_a_large_study_shows_the_best_and_what_failed(run: Run) -> None:
    trials = [trial(n, "failed", why="bad") if n % 4 == 0 else trial(n, "completed", n / 100) for n in range(48)]
    lines = text(render_study.ranking(study(*trials)))
    assert [line.split()[1] for line in lines[1:4]] == ["47", "46", "45"]
    assert len(lines) == 1 + 20 + 10 + 1
    assert lines[-1] == "the best 20 of 48 trials and the first 10 of 12 that failed; study.json has all"
    lines = text(render_study.ranking(study(*(trial(n, "failed", why="bad") for n in range(41)))))
    assert lines[-1] == "the first 10 of 41 that failed; study.json has all"
    lines = text(render_study.ranking(study(*(trial(n, "completed", 0.5) for n in range(41)))))
    assert (len(lines), lines[-1]) == (22, "the best 20 of 41 trials; study.json has all")


def test_several_objectives_have_a_table_of_the_front(run: Run) -> None:
    both = ("val/auroc", "parameters")
    found = study(trial(0, "completed", 0.8, 1250.0), trial(1, "completed", 0.9, 99000.0),
                  trial(2, "completed", 0.7, 2000.0), objectives=both)  # fmt: skip
    lines = text(render_study.summary(found, PATH))
    assert lines[4:8] == [
        "Pareto front: no trial is better in every objective",
        "trial  status     val/auroc  parameters  epochs        took  model  optimizer.lr",
        "    1  completed     0.9000       99000       5  1 min 01 s  mlp    0.05",
        "    0  completed     0.8000        1250       5  1 min 01 s  mlp    0.1",
    ]


def test_a_long_reason_is_cut_and_stays_on_its_line(run: Run) -> None:
    found = study(trial(0, "failed", why="first\nsecond \x1b[31m" + "x" * 200))
    (drawn,) = render_study.ranking(found)
    assert isinstance(drawn, Table)
    assert drawn.rows[0][-1].startswith("first second \\x1b[31mxxx") and len(drawn.rows[0][-1]) == 120


def test_show_of_a_running_study(run: Run) -> None:
    found = study(trial(0, "completed", 0.8), trial(1, "running", 0.4, seconds=None, epochs=2), trial(2, "waiting"),
                  budget=50, status="running")  # fmt: skip
    lines = text(render_study.show(run, found))
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("best so far")])
    assert facts["trials"] == "50: 1 completed, 1 running, 48 to come"
    assert facts["objective"] == "maximize val/auroc"
    assert facts["best"] == "0.8000 (trial 0, runs/tune/2026-11-20_12-00-00/trials/0)"
    start = lines.index("best so far")
    assert lines[start : start + 6] == [
        "best so far",
        "place  trial  status     val/auroc  epochs        took  model  optimizer.lr",
        "    1      0  completed     0.8000       5  1 min 01 s  mlp    0.1",
        "running",
        "trial  status   val/auroc  epochs  took  model  optimizer.lr",
        "    1  running     0.4000       2     -  mlp    0.05",
    ]
    assert lines[-1].split()[0] == "run.json"


def test_show_says_what_to_type_next(run: Run) -> None:
    (PATH / "trials" / "0").mkdir(parents=True)
    found = study(trial(0, "completed", 0.8))
    run.record["status"] = "stopped"
    assert text(render_study.show(run, found))[-1] == "next: trainctl tune --resume runs/tune/2026-11-20_12-00-00"
    run.record["status"] = "completed"
    assert text(render_study.show(run, found))[-1] == (
        "next: trainctl evaluate runs/tune/2026-11-20_12-00-00/trials/0"
    )
    run.record["status"] = "failed"
    lines = text(render_study.show(run, None))
    assert "trials    cannot be read" in lines
    assert lines[-1] == "next: trainctl tune --resume runs/tune/2026-11-20_12-00-00"


def test_a_study_is_one_line_among_runs(run: Run) -> None:
    for number in range(4):
        path = PATH / "trials" / str(number)
        path.mkdir(parents=True)
        child = Run.create(path, "train", {}, [])
        if number < 2:
            child.finish({})
        elif number == 2:
            child.fail(ValueError("no"), 1, "Traceback")
    (listed,) = directory.list_runs(Path("runs"))
    assert render.runs_table([listed]).rows[0][4] == "study (3 done): optimizer.lr=0.1,0.2"
    run.finish({"val/loss": 0.3}, trials={"completed": 47, "failed": 1, "running": 1}, budget=50, monitor="val/loss")
    row = render.runs_table(directory.list_runs(Path("runs"))).rows[0]
    assert (row[0], row[1], row[3]) == ("tune/2026-11-20_12-00-00", "completed", "val/loss 0.3000")
    assert row[4] == "study of 50 (48 done): optimizer.lr=0.1,0.2"
    assert len(directory.list_runs(Path("runs"), children=True)) == 5
