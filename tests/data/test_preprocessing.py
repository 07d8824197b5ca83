"""Scaling, filling and codes: fitted on train rows only, the same after a trip through files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trainctl.data.columns import Column, infer
from trainctl.data.preprocessing import BLOCK_ROWS, Preprocessing, interpolate, normal_scores

RANDOM = np.random.default_rng(0)


def fit(
    columns: dict[str, Any], rows: np.ndarray | None = None, scaling: str = "standard", **options: Any
) -> tuple[Preprocessing, pl.DataFrame]:
    frame = pl.DataFrame(columns)
    kinds = infer(frame, options.pop("declared", {}), {}, 50)
    rows = np.arange(len(frame)) if rows is None else rows
    return Preprocessing.fit(frame, kinds, rows, scaling, options.pop("max_categories", 50)), frame


def test_standard_scaling_looks_at_train_rows_only() -> None:
    values = np.concatenate([RANDOM.normal(10, 2, 500), np.full(100, 1e6)])
    fitted, frame = fit({"x": values}, rows=np.arange(500))
    x = fitted.transform(frame)
    assert x.dtype == np.float32 and x.flags.c_contiguous and x.shape == (600, 1)
    assert x[:500].mean() == pytest.approx(0, abs=1e-4) and x[:500].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(x[500:, 0], (1e6 - values[:500].mean()) / values[:500].std(), rtol=1e-5)


def test_quantile_scaling_makes_any_distribution_normal() -> None:
    fitted, frame = fit({"x": np.exp(RANDOM.normal(size=5000) * 3)}, scaling="quantile")
    x = np.sort(fitted.transform(frame)[:, 0])
    assert np.abs(np.quantile(x, [0.025, 0.16, 0.5, 0.84, 0.975]) - [-1.96, -0.994, 0, 0.994, 1.96]).max() < 0.03
    assert np.abs(x).max() <= 5.2
    extreme = fitted.transform(pl.DataFrame({"x": [-1e30, 1e30]}))[:, 0]
    assert list(extreme) == [x[0], x[-1]]


def test_both_scales_give_a_number_twice() -> None:
    values = np.concatenate([RANDOM.normal(size=999), [1e9]])
    fitted, frame = fit({"x": values, "flag": [0, 1] * 500}, scaling="both")
    assert fitted.numeric == ("x", "flag", "x (linear)")
    x = fitted.transform(frame)
    assert x.shape == (1000, 3) and np.abs(x).max() <= 5.2
    assert x[:, 2].max() == pytest.approx(3, abs=0.05)  # bent, so that one value cannot rule


def test_no_scaling_leaves_numbers_as_they_are() -> None:
    fitted, frame = fit({"x": [1.0, 5.0, 9.0]}, scaling="none")
    assert fitted.transform(frame)[:, 0].tolist() == [1, 5, 9]


def test_missing_numbers_take_the_train_median_and_a_mark() -> None:
    fitted, frame = fit(
        {"x": [1.0, 2.0, 9.0, None, 100.0], "y": [1.0, 2.0, 3.0, 4.0, None]}, rows=np.arange(4), scaling="none"
    )
    assert fitted.numeric == ("x", "y", "x (missing)")
    assert fitted.transform(frame).tolist() == [[1, 1, 0], [2, 2, 0], [9, 3, 0], [2, 4, 1], [100, 2.5, 0]]


def test_missing_booleans_take_the_train_mean() -> None:
    fitted, frame = fit({"b": [0, 0, 0, 1, None]}, scaling="none")
    assert fitted.transform(frame)[:, 0].tolist() == [0, 0, 0, 1, 0.25]


def test_nan_and_infinity_count_as_missing() -> None:
    fitted, frame = fit({"x": [1.0, 3.0, float("nan"), float("inf"), -float("inf")]}, scaling="none")
    assert fitted.transform(frame).tolist() == [[1, 0], [3, 0], [2, 1], [2, 1], [2, 1]]


def test_numbers_that_are_all_missing_in_train_stay_finite() -> None:
    frame = pl.DataFrame({"x": [None, None, 3.0]}, schema={"x": pl.Float64})
    fitted = Preprocessing.fit(frame, [Column("x", "numeric", "")], np.arange(2), "both", 50)
    assert fitted.transform(frame).tolist() == [[0, 1], [0, 1], [3, 0]]


def test_unseen_and_missing_categories_are_code_0() -> None:
    fitted, frame = fit({"c": ["b", "a", "b", None, "new"]}, rows=np.arange(4))
    assert fitted.vocabulary == {"c": ["a", "b"]}
    assert [(c.name, c.size) for c in fitted.categories] == [("c", 3)]
    assert fitted.transform(frame)[:, 0].tolist() == [2, 1, 2, 0, 0]


def test_the_most_frequent_categories_are_kept() -> None:
    fitted, frame = fit({"c": ["a"] * 3 + ["b"] * 2 + ["c"] * 4 + ["d"]}, max_categories=2)
    assert fitted.vocabulary == {"c": ["a", "c"]}
    assert fitted.transform(frame)[[0, 4, 5, 9], 0].tolist() == [1, 0, 2, 0]


def test_dates_become_the_parts_that_differ() -> None:
    days = [f"2020-0{i % 9 + 1}-{i % 28 + 1:02} 10:00:00" for i in range(90)]
    frame = pl.DataFrame({"d": pl.Series(days).str.to_datetime()})
    fitted = Preprocessing.fit(frame, [Column("d", "datetime", "")], np.arange(90), "none", 50)
    assert fitted.numeric == ("d (month)", "d (day)", "d (weekday)")
    assert fitted.transform(frame)[0].tolist() == [1, 1, 3]  # a Wednesday
    same = Preprocessing.fit(frame[:1], [Column("d", "datetime", "")], np.arange(1), "none", 50)
    assert same.numeric == ("d (year)",)


@pytest.mark.parametrize("scaling", ["both", "quantile", "standard", "none"])
def test_enormous_numbers_stay_finite(scaling: str) -> None:
    fitted, _ = fit({"x": RANDOM.normal(size=100), "flag": [0, 1] * 50}, scaling=scaling)
    assert np.isfinite(fitted.transform(pl.DataFrame({"x": [1e300, -1e300], "flag": [1e300, 0.0]}))).all()


def test_more_rows_than_a_block_come_out_in_order() -> None:
    rows = BLOCK_ROWS + 100
    fitted, frame = fit({"x": np.arange(rows)[::-1] * 0.5, "c": ["a", "b"] * (rows // 2)}, scaling="none")
    x = fitted.transform(frame)
    assert (x[:, 0] == np.arange(rows)[::-1] * 0.5).all() and (x[:, 1] == np.arange(rows) % 2 + 1).all()


@pytest.mark.parametrize("scaling", ["both", "quantile", "standard", "none"])
def test_saved_and_loaded_it_gives_the_same_bits(tmp_path: Path, scaling: str) -> None:
    columns = {
        "x": np.where(RANDOM.random(400) < 0.1, np.nan, RANDOM.normal(size=400)),
        "ünïcode 🙂": np.exp(RANDOM.normal(size=400)),
        "c": ["a", "b", None, "é"] * 100,
        "flag": [0, 1] * 200,
    }
    fitted, frame = fit(columns, scaling=scaling)
    values = json.loads(json.dumps(fitted.save(tmp_path)))
    loaded = Preprocessing.load(tmp_path, values)
    assert loaded.numeric == fitted.numeric and loaded.categories == fitted.categories
    assert (loaded.transform(frame) == fitted.transform(frame)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.safetensors"]


def test_equal_values_share_a_score_and_few_values_have_none() -> None:
    knots, scores = normal_scores(np.sort(np.concatenate([np.zeros(900), np.arange(1, 101.0)])))
    assert knots[0] == 0 and scores[0] == pytest.approx(-0.126, abs=0.01)  # the normal score of rank 0.45
    assert (np.diff(scores) > 0).all()
    assert [len(part) for part in normal_scores(np.sort(np.arange(1000) % 2 * 4.0))] == [0, 0]


def test_interpolation_equals_numpy() -> None:
    values = RANDOM.normal(size=10_000)
    knots = np.linspace(-2, 2, 50)
    assert (interpolate(values, knots, knots**3) == np.interp(values, knots, knots**3)).all()
