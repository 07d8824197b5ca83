"""The report of a study: what it shows for studies of every kind, as one safe and light page."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.test_report import NASTY, Tags
from trainctl.reporting import study as report
from trainctl.reporting import study_plots
from trainctl.run.run import Run

CHOICE = {"name": "model", "kind": "choice", "choices": ["mlp", "resmlp"]}
RATE = {"name": "optimizer.lr", "kind": "float", "low": 1e-4, "high": 0.1, "log": True}
BLOCKS = {"name": "model.num_blocks", "kind": "int", "low": 1, "high": 6, "log": False}
STATUSES = ("completed", "completed", "stopped", "failed")


def trials(count: int, statuses: tuple[str, ...] = STATUSES, objectives: int = 1, **more: Any) -> list[dict[str, Any]]:
    chance = random.Random(0)
    made: list[dict[str, Any]] = []
    for number in range(count):
        status = statuses[number % len(statuses)]
        values = [chance.random(), 10 ** chance.uniform(3, 6)][:objectives] if status != "failed" else []
        params = {"model": chance.choice(CHOICE["choices"]), "optimizer.lr": 10 ** chance.uniform(-4, -1)}
        params |= {"model.num_blocks": chance.randint(1, 6)} if params["model"] == "resmlp" else {}
        made.append({
            "number": number, "status": status, "value": values[0] if values else None, "values": values,
            "params": params, "overrides": ["seed=1"], "run": None, "epochs": 3, "seconds": 2.0, "host": "vm",
            "why": None if status == "completed" else f"{status} because", "place": None, **more,
        })  # fmt: skip
    good = sorted((one for one in made if one["status"] == "completed"), key=lambda one: -one["value"])
    for place, one in enumerate(good, start=1):
        one["place"] = place
    return made


def study(made: list[dict[str, Any]], dimensions: Any = (CHOICE, RATE, BLOCKS), **more: Any) -> dict[str, Any]:
    counts = {status: sum(one["status"] == status for one in made) for status in STATUSES}
    return {
        "study": "runs/tune/a", "status": "completed", "objectives": ["val/auroc"], "directions": ["maximize"],
        "sampler": {"name": "tpe", "seed": None, "n_startup_trials": 10}, "stopper": {"name": "asha"}, "seed": 0,
        "budget": len(made), "dimensions": list(dimensions), "trials": made, "pareto": [],
        "best": next((one for one in made if one["place"] == 1), None), "importances": {"optimizer.lr": 1.0},
        "warnings": [], "counts": {status: number for status, number in counts.items() if number}, "seconds": 125.0,
        **more,
    }  # fmt: skip


def curves(made: list[dict[str, Any]]) -> dict[int, list[tuple[int, float]]]:
    return {one["number"]: [(e, one["value"] or 0.1 * e) for e in (1, 2, 3)] for one in made}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "tune", {"seed": 0, "note": NASTY}, ["optimizer.lr=tag(log, interval(1e-4,1e-1))"])


def page(run: Run, found: dict[str, Any]) -> str:
    path = report.write(run, found, curves(found["trials"]), "trainctl train seed=1")
    assert path == run.path / "report.html"
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert not {"img", "script", "link", "iframe"} & set(tags.seen)
    assert not [name for name in tags.attributes if name.startswith("on") or name == "src"]
    assert "nan" not in "".join(re.findall(r'(?:points|c[xy]|[xy][12]?|width)="[^"]*"', text)).lower()
    assert "Infinity" not in text and "None" not in text
    return text


def titles(text: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", text)


def test_a_study_has_all_its_charts(run: Run) -> None:
    text = page(run, study(trials(12), warnings=["the best lies at an end"]))
    assert titles(text) == [
        "Result", "Search", "History", "Learning curves", "Importance", "Hyperparameters", "Parallel coordinates",
        "optimizer.lr", "model", "model.num_blocks", "Trials", "Failed or stopped", "How it was made",
    ]  # fmt: skip
    assert "study of 12 trials, maximize val/auroc, started" in text
    assert "the best lies at an end" in text and "trainctl train seed=1" in text
    assert "tpe (n_startup_trials 10)" in text and "optimizer.lr 0.0001 to 0.1 (log)" in text
    assert "failed because" in text and "Stopped early: 3" in text and "not set" in text


def test_several_objectives_have_a_pareto_chart_with_a_log_axis(run: Run) -> None:
    made = trials(20, ("completed",), objectives=2)
    found = study(made, objectives=["val/auroc", "parameters"], directions=["maximize", "minimize"], pareto=[2, 5])
    text = page(run, found)
    assert titles(text)[1:3] == ["Pareto front", "val/auroc and parameters"]
    chart = study_plots.front(made, [2, 5], found["objectives"], (0, 1))
    assert chart.count("mark c0") == 18 and chart.count("dot c1") == 2
    assert ">10k<" in chart and ">100k<" in chart and ">20k<" not in chart


@pytest.mark.parametrize("statuses", [("failed",), ("stopped",), ("running",), ("completed",)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_and_sad_studies_are_readable(run: Run, count: int, statuses: tuple[str, ...]) -> None:
    text = page(run, study(trials(count, statuses), importances={}))
    assert "Result" in text and ("No trial has completed." in text) == (count == 0 or statuses != ("completed",))
    assert ("Hyperparameters" in titles(text)) == (count == 2 and statuses == ("completed",))


def test_nothing_to_search_and_nothing_measured(run: Run) -> None:
    text = page(run, study(trials(3), (), objectives=[], directions=[], importances={}))
    assert "nothing measured" in text and "Search" not in titles(text)


def test_a_thousand_trials_make_a_page_of_a_megabyte(run: Run) -> None:
    text = page(run, study(trials(1000)))
    assert len(text) < 1_200_000
    assert text.count("<polyline") < 500
    assert "The other 960 trials" in text and "Failed: 250" in text


def test_names_from_people_are_text(run: Run) -> None:
    dimension = {"name": NASTY, "kind": "choice", "choices": [NASTY, "b"]}
    made = trials(8, params={NASTY: NASTY}, why=NASTY, host=NASTY)
    text = page(run, study(made, [dimension], importances={NASTY: 1.0}, objectives=[NASTY], warnings=[NASTY]))
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_trials_lead_to_their_own_reports(run: Run) -> None:
    for name in ("0", "a b"):
        (run.path / "trials" / name).mkdir(parents=True)
        (run.path / "trials" / name / "report.html").touch()
    made = trials(3, ("completed",))
    for one, name in zip(made, ("0", "a b", "gone"), strict=True):
        one["run"] = str(run.path / "trials" / name)
    text = page(run, study(made))
    links = re.findall(r'<a href="([^"]*)">(.*?)</a>', text)
    assert sorted(links) == [("trials/0/report.html", "trial 0"), ("trials/a%20b/report.html", "trial 1")]


def test_many_long_dimensions_are_cut_not_overlapping(run: Run) -> None:
    wide = [{**BLOCKS, "name": f"model.a_very_long_block_name_{i}.option"} for i in range(15)]
    made = trials(30, ("completed",))
    for one in made:
        one["params"] = {dimension["name"]: 1 + one["number"] % 6 for dimension in wide}
    text = page(run, study(made, wide))
    assert "3 less important dimensions are left out." in text
    chart = study_plots.coordinates(made, wide, None, "val/auroc", "maximize")
    labels = re.findall(r'class="label" x="([\d.]+)" y="(\d+)" text-anchor="(\w+)">(.*?)<title>', chart)
    assert len(labels) == 13
    for height in ("14", "30"):
        row = [(float(x), anchor, len(text) * 6.6) for x, y, anchor, text in labels if y == height]
        starts = [x - {"start": 0, "middle": w / 2, "end": w}[anchor] for x, anchor, w in row]
        ends = [start + w for start, (_, _, w) in zip(starts, row, strict=True)]
        assert all(end <= start + 2 for end, start in zip(ends, starts[1:], strict=False))


def test_a_trial_far_off_does_not_press_the_others_flat(run: Run) -> None:
    made = trials(20, ("completed",))
    made[7] |= {"value": 1e9, "values": [1e9]}
    found = study(made, objectives=["val/loss"], directions=["minimize"])
    assert study_plots.limits([one["value"] for one in made], "minimize")[1] < 10
    text = page(run, found)
    assert "1 trial lies beyond the axis." in text
    assert study_plots.limits([1.0] * 9 + [1e9], "minimize")[1] < 10
    assert study_plots.limits([0.9] * 9 + [-1e9], "maximize")[0] > 0
    low, high = study_plots.limits([0.5], "maximize")
    assert low < 0.5 < high and study_plots.limits([0.0, 0.0]) == (-1.0, 1.0)


def test_the_best_so_far_only_gets_better() -> None:
    made = trials(12, ("completed",))
    chart = study_plots.history(made, "val/auroc", "maximize")
    (line,) = re.findall(r'<polyline class="line c1" points="([^"]*)"', chart)
    heights = [float(pair.split(",")[1]) for pair in line.split()]
    assert heights == sorted(heights, reverse=True)  # a picture's y grows downwards
    falling = study_plots.history(made, "val/loss", "minimize")
    (line,) = re.findall(r'<polyline class="line c1" points="([^"]*)"', falling)
    heights = [float(pair.split(",")[1]) for pair in line.split()]
    assert heights == sorted(heights)


def test_values_lie_on_their_axis() -> None:
    scale = study_plots.Scale.of(RATE, 0.0, 1.0)
    ends = [scale.x(1e-4), scale.x(math.sqrt(1e-5)), scale.x(0.1)]
    assert ends[1] == pytest.approx((ends[0] + ends[2]) / 2)
    assert [text for _, text in scale.x_ticks()] == ["0.0001", "0.001", "0.01", "0.1"]
    names = study_plots.Scale.of({"kind": "choice", "choices": [f"layer_{i}" for i in range(40)]}, 0.0, 1.0)
    assert len(names.x_ticks()) <= 12 and names.place("layer_3") == 3.0 and names.place("other") is None
    one = study_plots.Scale.of({**RATE, "low": 0.1}, 0.0, 1.0)
    assert one.low[0] < 0.1 < one.high[0]


def test_the_report_needs_no_torch() -> None:
    heavy = ("torch", "optuna", "numpy")
    script = f"import sys, trainctl.reporting.study; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
