"""The torch module of a table's preprocessing gives the same bits as the preprocessing itself."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from trainctl.data.columns import Column, typed
from trainctl.data.preprocessing import SCALINGS, Preprocessing
from trainctl.exporting.columns import CODES, NUMBERS, RawColumns
from trainctl.exporting.prepared import Curves, TableRows, date_parts


def test_curves_are_those_of_numpy_for_every_value_and_number_of_knots() -> None:
    draw = np.random.default_rng(0)
    knots = [np.sort(draw.normal(size=count)) * 10.0**power for count, power in ((3, 0), (7, 20), (1001, -3), (500, 5))]
    scores = [np.sort(draw.normal(size=len(one))) for one in knots]
    values = np.stack([np.concatenate((one, one * 1.01, [-1e30, 1e30, 0.0]))[draw.integers(0, 2 * len(one) + 3, 4000)]
                       for one in knots], 1)  # fmt: skip
    expected = np.stack([np.interp(values[:, i], knots[i], scores[i]) for i in range(4)], 1)
    assert np.array_equal(Curves(knots, scores)(torch.from_numpy(values)).numpy(), expected)


def test_parts_of_dates_are_those_of_polars() -> None:
    seconds = np.random.default_rng(0).integers(-6_000_000_000, 9_000_000_000, 20_000)
    times = pl.Series(seconds * 1_000_000).cast(pl.Datetime("us"))
    for part, values in date_parts(torch.from_numpy(seconds.astype(np.float64))).items():
        assert np.array_equal(getattr(times.dt, part)().to_numpy(), values.numpy()), part


def table(rows: int = 3000) -> tuple[pl.DataFrame, list[Column]]:
    """Every kind of column, with holes, extremes and texts that training did not keep."""
    draw = np.random.default_rng(0)
    wage = np.exp(draw.normal(size=rows))
    wage[:20], wage[20:25], wage[25:27], wage[27:30] = np.nan, np.inf, 1e25, -0.0
    start = draw.integers(0, 2_000_000_000, rows) * 1_000_000
    frame = pl.DataFrame({
        "wage": wage,
        "few": draw.integers(0, 2, rows).astype(float) * 7,
        "flag": draw.choice(["yes", "no", "Yes", ""], rows),
        "when": pl.Series(start).cast(pl.Datetime("us")).to_frame().select(
            pl.when(pl.int_range(pl.len()) > 9).then(pl.first())).to_series(),
        "city": draw.choice(["a", "b", " c", "", "rare", "ö"], rows, p=[0.3, 0.2, 0.2, 0.1, 0.01, 0.19]),
    })  # fmt: skip
    kinds = {"wage": "numeric", "few": "numeric", "flag": "boolean", "when": "datetime", "city": "categorical"}
    return frame, [Column(name, kind, "no and yes") for name, kind in kinds.items()]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("kinds", ["all", "numbers", "texts"])
def test_rows_are_prepared_bit_for_bit(scaling: str, kinds: str) -> None:
    frame, columns = table()
    columns = [c for c in columns if kinds == "all" or (c.kind == "categorical") == (kinds == "texts")]
    values = typed(frame, columns, str)
    fitted = Preprocessing.fit(values, columns, np.arange(0, 3000, 2), scaling, max_categories=4)
    raw = RawColumns.of(columns, fitted.vocabulary, frame)
    feed = raw.stacked(values)
    assert list(feed) == {"all": [NUMBERS, CODES], "numbers": [NUMBERS], "texts": [CODES]}[kinds]
    made = TableRows(fitted, raw.numbers)(*map(torch.from_numpy, feed.values()))
    assert np.array_equal(made.numpy(), fitted.transform(values))


def test_the_graph_of_the_columns_makes_the_same_tensors_of_raw_values() -> None:
    from trainctl.compression.onnx_net import session

    frame, columns = table()
    values = typed(frame, columns, str)
    fitted = Preprocessing.fit(values, columns, np.arange(3000), "both", max_categories=4)
    raw = RawColumns.of(columns, fitted.vocabulary, frame)
    assert [str(port) for port in raw.ports()] == [
        "wage float64 [batch]", "few float64 [batch]", "flag string [batch]", "when float64 [batch]",
        "city string [batch]",
    ]  # fmt: skip
    runner = session(raw.graph(20).SerializeToString(), 1)
    for rows in (1, 3000):
        feed = {name: column[:rows] for name, column in raw.feed(values, frame).items()}
        for made, expected in zip(runner.run(None, feed), raw.stacked(values).values(), strict=True):
            assert np.array_equal(made, expected[:rows], equal_nan=True)
