from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.metrics import evaluate_outputs
from trainctl.metrics.paired import agreement, paired_difference, with_interval

BINARY = DataSpec("table", "class", classes=("no", "yes"))
THREE = DataSpec("table", "class", classes=("a", "b", "c"))
NUMBER = DataSpec("table", "number", target_std=10.0)


def probabilities(rows: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=generator)
    noise = torch.randn(rows, classes, generator=generator)
    return (noise + 1.5 * torch.nn.functional.one_hot(y, classes)).softmax(1), y


@pytest.mark.parametrize("spec", [BINARY, THREE], ids=["binary", "three classes"])
def test_the_difference_and_its_interval_are_those_of_a_plain_paired_bootstrap(spec: DataSpec) -> None:
    one, y = probabilities(400, len(spec.classes), 1)
    other = one.clone()
    other[:40] = other[:40].flip(1)  # some predictions change
    value, interval = paired_difference("val/accuracy", one, other, y, spec)
    hits = [(outputs.argmax(1) == y).double().numpy() for outputs in (one, other)]
    assert value == pytest.approx(float((hits[1] - hits[0]).mean()))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 400, 400) for _ in range(2000)]
    plain = np.quantile([(hits[1] - hits[0])[draw].mean() for draw in draws], [0.025, 0.975])
    assert interval == pytest.approx(tuple(plain), abs=0.008)
    apart = np.quantile([hits[0][draw].mean() for draw in draws], [0.025, 0.975])
    assert interval is not None and interval[1] - interval[0] < apart[1] - apart[0]
    assert paired_difference("accuracy", one, other, y, spec) == (value, interval)
    assert paired_difference("accuracy", one, other, y, spec, seed=1)[1] != interval


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc", "log_loss", "ece"])
def test_equal_outputs_differ_by_nothing(metric: str) -> None:
    one, y = probabilities(200, 2, 2)
    assert paired_difference(metric, one, one.clone(), y, BINARY) == (0.0, (0.0, 0.0))


def test_rows_stay_paired_when_scores_sort_them() -> None:
    one, y = probabilities(300, 2, 3)
    other = one.flip(1)  # the order of scores is reversed; the loss of each row is another one
    value, interval = paired_difference("loss", one, other, y, BINARY)
    gaps = [torch.nn.functional.nll_loss(p.double().log(), y, reduction="none") for p in (one, other)]
    assert value == pytest.approx(float((gaps[1] - gaps[0]).mean()), rel=1e-5)
    half = 1.96 * float((gaps[1] - gaps[0]).std()) / 300**0.5
    assert interval == pytest.approx((value - half, value + half), rel=0.1)


def test_numbers_are_paired_too() -> None:
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(300, generator=generator) * 10
    one, other = (y + torch.randn(300, generator=generator) * spread for spread in (1.0, 2.0))
    value, interval = paired_difference("rmse", one, other, y, NUMBER)
    assert value == pytest.approx(float(((other - y) ** 2).mean().sqrt() - ((one - y) ** 2).mean().sqrt()), abs=1e-5)
    assert interval is not None and interval[0] < value < interval[1] and interval[0] > 0
    low = paired_difference("error_q05", one, other, y, NUMBER)
    assert low[1] is not None and low[0] == pytest.approx(
        float((other - y).double().quantile(0.05) - (one - y).double().quantile(0.05)), abs=1e-5
    )


def test_agreement_is_the_share_of_equal_predictions() -> None:
    one = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]])
    other = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.1, 0.9]])
    assert agreement(one, other, BINARY) == 0.75
    assert agreement(one, other, BINARY, threshold=0.2) == 0.5
    near = torch.tensor([1.0, 2.0, 3.0])
    assert agreement(near, near + torch.tensor([0.0, 0.1, 0.11]), NUMBER) == pytest.approx(2 / 3)
    assert agreement(one[:0], other[:0], BINARY) is None


def test_what_cannot_be_compared_is_a_sentence() -> None:
    one, y = probabilities(5, 2, 0)
    with pytest.raises(UsageError) as metric:
        paired_difference("val/accurracy", one, one, y, BINARY)
    assert str(metric.value) == "no metric `accurracy` of a class; did you mean `accuracy`?"
    with pytest.raises(UsageError) as rows:
        paired_difference("accuracy", one, one[:4], y, BINARY)
    assert str(rows.value) == "outputs of the same rows are compared; got [5, 4, 5] rows"
    assert paired_difference("accuracy", one[:0], one[:0], y[:0], BINARY) == (None, None)
    assert paired_difference("auroc", one, one, torch.zeros_like(y), BINARY) == (None, None)


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "log_loss"])
@pytest.mark.parametrize("spec", [BINARY, THREE], ids=["binary", "three classes"])
def test_one_metric_alone_has_the_interval_that_it_has_among_all(metric: str, spec: DataSpec) -> None:
    outputs, y = probabilities(300, len(spec.classes), 2)
    whole = evaluate_outputs(outputs, y, spec, 200, 5)
    value, interval = with_interval(f"val/{metric}", outputs, y, spec, 200, 5)
    assert value == pytest.approx(whole.metrics[metric], abs=1e-12)
    assert interval == pytest.approx(whole.intervals[metric], abs=1e-12)
    assert with_interval(metric, outputs[:0], y[:0], spec) == (None, None)


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "error_q05"])
def test_one_metric_of_a_number_alone_has_the_interval_that_it_has_among_all(metric: str) -> None:
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(300, generator=generator) * 10
    outputs = y + torch.randn(300, generator=generator)
    whole = evaluate_outputs(outputs, y, NUMBER, 200, 5)
    value, interval = with_interval(metric, outputs, y, NUMBER, 200, 5)
    assert value == pytest.approx(whole.metrics[metric], abs=1e-12)
    assert interval == pytest.approx(whole.intervals[metric], abs=1e-12)
