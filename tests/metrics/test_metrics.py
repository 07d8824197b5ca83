from __future__ import annotations

import torch

from trainctl.data.spec import DataSpec
from trainctl.metrics import evaluate_outputs, measure, names, slices

YES_NO = DataSpec(kind="table", target="class", classes=("no", "yes"), numeric=("x",))
PRICE = DataSpec(kind="table", target="number", target_name="price", numeric=("x",))


def test_class_report_has_everything_of_one_set_of_rows() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    y = torch.tensor([0, 1, 0, 0])
    report = evaluate_outputs(probs, y, YES_NO, bootstrap=50)
    assert (report.rows, report.resamples, report.warnings) == (4, 50, [])
    assert report.metrics["accuracy"] == 0.75
    assert report.confusion == [[2, 1], [0, 1]]
    assert report.calibration is not None and sum(row["count"] for row in report.calibration) == 4
    assert report.intervals.keys() == report.metrics.keys() == measure(probs, y, YES_NO).keys()


def test_number_report_without_intervals() -> None:
    report = evaluate_outputs(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]), PRICE)
    assert report.metrics["mae"] == 1 / 3
    assert (report.intervals, report.resamples, report.confusion, report.calibration) == ({}, 0, None, None)


def test_no_rows_is_a_report_of_nulls() -> None:
    report = evaluate_outputs(torch.empty(0, 2), torch.empty(0, dtype=torch.long), YES_NO, bootstrap=10)
    assert (report.rows, report.calibration, report.intervals) == (0, [], {})
    assert set(report.metrics.values()) == {None}


def test_number_intervals_hold_the_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(200, generator=generator)
    report = evaluate_outputs(y + torch.randn(200, generator=generator), y, PRICE, bootstrap=300)
    for name in ("rmse", "mae", "r2", "error_q50"):
        interval, value = report.intervals[name], report.metrics[name]
        assert interval is not None and value is not None and interval[0] <= value <= interval[1]


def test_groups_and_gaps() -> None:
    outputs, y = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 2.0, 5.0, 9.0])
    found = slices.by_group(outputs, y, ["f", "m", "f", "m", None], lambda o, t: evaluate_outputs(o, t, PRICE, 50))
    assert list(found["groups"]) == ["f", "m", "(missing)"]
    women = found["groups"]["f"]
    assert (women["rows"], women["metrics"]["mae"], women["intervals"]["mae"]) == (2, 0.5, (0.0, 1.0))
    assert (found["gaps"]["mae"], found["other_rows"]) == (0.5, 0)


def test_a_gap_needs_two_groups_that_have_the_metric() -> None:
    outputs, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 2.0])
    found = slices.by_group(outputs, y, ["a", "a", "b"], lambda o, t: evaluate_outputs(o, t, PRICE), max_groups=1)
    assert (found["gaps"]["r2"], found["other_rows"]) == (None, 1)
    assert slices.by_group(outputs[:0], y[:0], [], lambda o, t: evaluate_outputs(o, t, PRICE))["gaps"] == {}


def test_quick_metrics_are_those_of_the_full_report() -> None:
    probs, y = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), torch.tensor([0, 1, 1])
    assert measure(probs, y, YES_NO, full=False) == {"accuracy": 2 / 3, "auroc": 1.0}
    values = measure(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), PRICE, full=False)
    assert values == {"rmse": 0.5**0.5, "mae": 0.5, "r2": 0.5}
    assert ["loss", *values] == names.quick("number")
