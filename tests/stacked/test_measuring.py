"""Figures of many members at once are the figures of each."""

from __future__ import annotations

import pytest
import torch

from trainctl import metrics
from trainctl.data.spec import DataSpec
from trainctl.errors import DivergedError
from trainctl.stacked.measuring import measure_many

NUMBER = DataSpec("table", "number")


def classes(count: int) -> DataSpec:
    return DataSpec("table", "class", classes=tuple(f"c{i}" for i in range(count)))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("monitor", ["val/loss", "val/auroc", "val/f1"])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
def test_classification_equals_each_member_alone(count: int, rounded: bool, monitor: str) -> None:
    logits = drawn(6, 400, count)
    probs = (logits.mul(2).round() if rounded else logits).softmax(-1)
    y = drawn(400, count).argmax(1)
    spec = classes(count)
    found = measure_many(probs, y, spec, monitor)
    for k in range(6):
        alone = metrics.measure(probs[k], y, spec, full=False)
        if monitor == "val/f1":
            alone |= metrics.measure(probs[k], y, spec, only=["f1"])
        assert found[k] == alone


def test_each_member_may_have_its_own_rows() -> None:
    probs, y = drawn(3, 50, 2).softmax(-1), (drawn(3, 50) > 0).long()
    found = measure_many(probs, y, classes(2))
    assert found == [metrics.measure(probs[k], y[k], classes(2), full=False) for k in range(3)]


def test_undefined_figures_are_null() -> None:
    probs = drawn(2, 30, 3).softmax(-1)
    assert measure_many(probs, torch.zeros(30, dtype=torch.long), classes(3))[0]["auroc"] is None
    two = torch.arange(30) % 2
    assert measure_many(probs, two, classes(3)) == [metrics.measure(p, two, classes(3), full=False) for p in probs]
    assert measure_many(probs[:, :0], two[:0], classes(3)) == [{"accuracy": None, "auroc": None}] * 2


def test_a_number_equals_each_member_alone() -> None:
    outputs, y = drawn(4, 100), drawn(100)
    assert measure_many(outputs, y, NUMBER) == [metrics.measure(o, y, NUMBER, full=False) for o in outputs]


def test_outputs_that_are_not_finite_are_an_error_of_their_member_alone() -> None:
    probs, y = drawn(3, 50, 2).softmax(-1), torch.arange(50) % 2
    probs[1, 7:9] = torch.nan
    first, second, third = measure_many(probs, y, classes(2))
    assert isinstance(second, DivergedError)
    assert str(second) == "the predictions of 2 of 50 rows are not finite; lower `optimizer.lr`"
    assert first == metrics.measure(probs[0], y, classes(2), full=False)
    assert third == metrics.measure(probs[2], y, classes(2), full=False)
