"""The plan of a study, and how trials, values and settings are worded."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from trainctl.tuning import plan, wording
from trainctl.tuning.dimensions import Dimension
from trainctl.tuning.space import Space, parse


@functools.cache
def space() -> Space:
    words = ["model=mlp,resmlp", "optimizer.lr=tag(log, interval(1e-4,1e-1))", "model.num_blocks=range(1,5)"]
    return parse("train", [*words, "data=synthetic"], None)


def planned(**more: Any) -> plan.Plan:
    dimensions = tuple(plan.described(space()))
    known: dict[str, Any] = {
        "searched": True, "trials": 50, "objectives": ("val/auroc",), "directions": ("maximize",), "sampler": "tpe",
        "stopper": "none", "dimensions": dimensions, "jobs": 2, "executor": "pool", "remark": None, "epochs": 10,
        "runs": 1, "epoch_s": 0.8, "timeout": None, "disk": 120_000_000, "free": 45_000_000_000, "folder": "runs/tune",
    }  # fmt: skip
    return plan.Plan(**{**known, **more})


def test_the_plan_says_what_will_be_done_and_what_it_takes() -> None:
    assert planned().lines() == [
        "plan        50 trials, sampler tpe, maximize val/auroc",
        "dimensions  model             mlp, resmlp",
        "            optimizer.lr      1e-4 to 0.1 (log)",
        "            model.num_blocks  1 to 4 (int)  (only for model=resmlp)",
        "workers     2",
        "time        0.8 s an epoch, 10 epochs a training, about 3 min 20 s in all",
        "disk        about 120 MB, 45 GB free",
        "runs        runs/tune",
    ]


def test_the_plan_of_a_grid_with_folds_and_a_reason_against_stacking() -> None:
    remark = "vectorized: runs on the pool: batch normalisation"
    lines = planned(searched=False, trials=4, dimensions=(), remark=remark, epoch_s=None, epochs=1, disk=None).lines()
    assert lines == [
        "plan        4 points, each trained once",
        "workers     2",
        "            vectorized: runs on the pool: batch normalisation",
        "time        1 epoch a training",
        "disk        45 GB free",
        "runs        runs/tune",
    ]


def test_trials_take_time_beside_their_epochs() -> None:
    assert planned(fixed_s=4.0).to_json()["estimate_s"] == 300.0
    quick = planned(trials=2, epochs=1, epoch_s=0.001, fixed_s=0.04)
    assert quick.lines()[5] == "time        1.0 ms an epoch, 1 epoch a training, about 41.0 ms in all"


def test_a_time_that_a_stopper_or_a_limit_shortens_is_a_bound() -> None:
    assert "at most 3 min 20 s in all" in planned(stopper="asha").lines()[5]
    short = planned(timeout=60.0, runs=5, trials=None)
    assert short.lines()[0] == "plan        trials until time is up, 5 trainings each, sampler tpe, maximize val/auroc"
    assert short.lines()[5] == "time        0.8 s an epoch, 10 epochs a training, at most 1 min 00 s in all"
    assert (planned().to_json()["estimate_s"], short.to_json()["estimate_s"]) == (200.0, 60.0)


@pytest.mark.parametrize(("dimension", "text"), [
    (Dimension("m", "choice", tuple("abcdefghij")), "10 choices: a, b, c, d, e, f, g, h, i, j"),
    (Dimension("d", "float", low=0, high=0.5), "0 to 0.5"),
    (Dimension("d", "float", low=0, high=1, step=0.25), "0 to 1 (step 0.25)"),
    (Dimension("n", "int", low=16, high=1024, log=True), "16 to 1024 (log, int)"),
])
def test_values_of_a_dimension(dimension: Dimension, text: str) -> None:
    assert plan.values_text(dimension) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.84096, "0.8410"), (1.0, "1.000"), (0.0, "0.000"), (12.3456, "12.35"), (1250.0, "1250"), (1234567.0, "1234567"),
    (12345.67, "12346"), (3.2137e-6, "3.214e-06"), (-0.5, "-0.5000"), (None, "-"), (float("inf"), "inf"),
])
def test_a_value_has_four_significant_digits(value: float | None, text: str) -> None:
    assert wording.value_text(value) == text


@pytest.mark.parametrize(("name", "value", "text"), [
    ("optimizer.lr", 0.0031234567, "optimizer.lr=0.003123"), ("optimizer.lr", 1.5e-5, "optimizer.lr=1.5e-5"),
    ("model.width", 64, "model.width=64"), ("model.hidden_dims", "[64,64]", "model.hidden_dims=[64,64]"),
    ("data.rows", 123456.7, "data.rows=123457"), ("zip(a,b)", "a=1 b=2", "a=1 b=2"), ("@trials.csv", "a=1", "a=1"),
])
def test_a_setting_is_short(name: str, value: float | str, text: str) -> None:
    assert wording.setting(name, value) == text


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert wording.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert wording.sparkline([3.0, float("nan"), 3.0]) == "▁▁"
    assert wording.sparkline([]) == ""
    assert wording.sparkline([*range(20)], width=4, blocks=wording.ASCII_BLOCKS) == "_,+#"
