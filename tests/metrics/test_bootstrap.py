from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from trainctl.metrics import bootstrap, names
from trainctl.metrics.classification import ClassScores
from trainctl.metrics.regression import NumberScores
from trainctl.metrics.regression import regression as measure_number


def binary(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(2, (rows,), generator=generator)
    probs = (torch.randn(rows, 2, generator=generator) + torch.nn.functional.one_hot(y, 2)).softmax(1)
    return probs, y


def test_counts_weigh_as_repeated_rows_do() -> None:
    probs, y = binary(60)
    order = probs[:, 1].argsort(descending=True, stable=True)  # weights follow the sorted rows of a binary score
    counts = torch.randint(3, (60,), generator=torch.Generator().manual_seed(2))
    repeated = order.repeat_interleave(counts)
    values = ClassScores(probs, y, names.CLASS)(counts[None].double())
    again = ClassScores(probs[repeated], y[repeated], names.CLASS)(torch.ones(1, len(repeated), dtype=torch.float64))
    assert {k: v.item() for k, v in values.items()} == pytest.approx({k: v.item() for k, v in again.items()})
    assert values["auroc"].item() == pytest.approx(sk.roc_auc_score(y[repeated], probs[repeated, 1]))


def test_counts_weigh_as_repeated_rows_do_for_several_classes() -> None:
    generator = torch.Generator().manual_seed(3)
    y = torch.randint(4, (80,), generator=generator)
    probs = torch.randn(80, 4, generator=generator).round().softmax(1)
    counts = torch.randint(3, (80,), generator=generator)
    repeated = torch.arange(80).repeat_interleave(counts)
    values = ClassScores(probs, y, names.CLASS)(counts[None].double())
    again = ClassScores(probs[repeated], y[repeated], names.CLASS)(torch.ones(1, len(repeated), dtype=torch.float64))
    assert {k: v.item() for k, v in values.items()} == pytest.approx({k: v.item() for k, v in again.items()})


def test_regression_counts_weigh_as_repeated_rows_do() -> None:
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(50, generator=generator, dtype=torch.float64) + 9
    pred = y + torch.randn(50, generator=generator, dtype=torch.float64)
    counts = torch.randint(3, (50,), generator=generator)
    order = (pred - y).argsort(stable=True)
    repeated = order.repeat_interleave(counts)
    values = NumberScores(pred, y, names.NUMBER)(counts[None].double())
    expected = measure_number(pred[repeated], y[repeated])
    assert {k: v.item() for k, v in values.items()} == pytest.approx(expected)


def test_interval_agrees_with_a_plain_bootstrap_and_with_theory() -> None:
    probs, y = binary(400)
    found = bootstrap.intervals(ClassScores(probs, y, names.CLASS), 400, 1000, seed=0)
    assert found["accuracy"] is not None and found["auroc"] is not None
    accuracy = float((probs.argmax(1) == y).double().mean())
    half = 1.96 * (accuracy * (1 - accuracy) / 400) ** 0.5
    assert found["accuracy"] == pytest.approx((accuracy - half, accuracy + half), abs=0.01)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 400, 400) for _ in range(200)]
    plain = np.quantile([sk.roc_auc_score(y[d], probs[d, 1]) for d in draws], [0.025, 0.975])
    assert found["auroc"] == pytest.approx(tuple(plain), abs=0.015)


def test_same_seed_same_interval_and_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, y = binary(100)
    scores = ClassScores(probs, y, names.CLASS)
    first = bootstrap.intervals(scores, 100, 200, seed=5)
    assert first == bootstrap.intervals(scores, 100, 200, seed=5)
    assert first != bootstrap.intervals(scores, 100, 200, seed=6)
    state = torch.get_rng_state()
    bootstrap.intervals(scores, 100, 10)
    assert torch.equal(state, torch.get_rng_state())


def test_one_row_and_rare_classes_have_no_interval() -> None:
    one = NumberScores(torch.ones(1), torch.ones(1), names.NUMBER)
    assert set(bootstrap.intervals(one, 1).values()) == {None}
    probs, y = binary(30)
    y = torch.zeros_like(y)
    y[0] = 1  # a third of the resamples miss the only positive
    found = bootstrap.intervals(ClassScores(probs, y, names.CLASS), 30, 200)
    assert found["auroc"] is None and found["accuracy"] is not None


def test_large_sets_draw_fewer_resamples() -> None:
    assert bootstrap.num_resamples(16_000) == 1000
    assert bootstrap.num_resamples(640_000) == 100
    assert bootstrap.num_resamples(10**8) == 100
    assert bootstrap.num_resamples(10, asked=50) == 50


def test_thousand_resamples_of_sixteen_thousand_rows_take_seconds_at_most() -> None:
    probs, y = binary(16_000)
    start = time.process_time()
    bootstrap.intervals(ClassScores(probs, y, names.CLASS), 16_000, 1000)
    assert time.process_time() - start < 6  # measured 0.5 s on one idle thread
