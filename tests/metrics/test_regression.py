from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from trainctl.errors import DivergedError
from trainctl.metrics import names
from trainctl.metrics.regression import regression, warnings


def test_equals_scikit_learn_and_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(301, generator=generator) * 3 + 1000
    pred = y + torch.randn(301, generator=generator)
    error = (pred - y).double().numpy()
    expected = {
        "mse": sk.mean_squared_error(y.double(), pred.double()),
        "rmse": sk.root_mean_squared_error(y.double(), pred.double()),
        "mae": sk.mean_absolute_error(y.double(), pred.double()),
        "r2": sk.r2_score(y.double(), pred.double()),
        "mape": sk.mean_absolute_percentage_error(y.double(), pred.double()),
        **{name: np.quantile(error, q) for name, q in names.QUANTILES.items()},
    }
    assert regression(pred, y) == pytest.approx(expected, abs=1e-6)
    assert regression(pred[:, None], y, full=False) == pytest.approx(
        {name: expected[name] for name in ("rmse", "mae", "r2")}, abs=1e-6
    )
    assert list(regression(pred, y, only=["error_q50"])) == ["error_q50"]


def test_constant_target_has_no_r2() -> None:
    y = torch.full((5,), 0.1)
    found = regression(torch.arange(5.0), y)
    assert found["r2"] is None and found["mse"] is not None
    assert warnings(y, found) == ["target is constant; R² written as null"]


def test_one_row_has_no_r2() -> None:
    found = regression(torch.tensor([2.0]), torch.tensor([1.0]))
    assert (found["r2"], found["mae"], found["error_q95"]) == (None, 1.0, 1.0)
    assert warnings(torch.tensor([1.0]), found) == ["there is 1 row; R² written as null"]


def test_zero_in_the_target_has_no_mape() -> None:
    y = torch.tensor([0.0, 1.0, 2.0])
    found = regression(torch.ones(3), y)
    assert found["mape"] is None
    assert warnings(y, found) == ["target is 0 in 1 of 3 rows; MAPE written as null"]


def test_no_rows_is_all_null() -> None:
    found = regression(torch.empty(0), torch.empty(0))
    assert set(found) == set(names.NUMBER) and set(found.values()) == {None}
    assert warnings(torch.empty(0), {"r2": None}) == ["there are no rows; r2 written as null"]


def test_non_finite_predictions_are_refused() -> None:
    with pytest.raises(DivergedError) as caught:
        regression(torch.tensor([math.inf, 1.0]), torch.ones(2))
    assert str(caught.value) == "the predictions of 1 of 2 rows are not finite; lower `optimizer.lr`"
