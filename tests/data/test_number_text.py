"""Numbers with decimal commas and thousands separators."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from trainctl.data.number_text import check_plain
from trainctl.data.reading import Source
from trainctl.data.tabular import Tabular
from trainctl.errors import DataError, UsageError

EUROPEAN = ["1.234,56", "-0,5", "12", "1.000", "1 234,5", "1,5e3", None]
ENGLISH = ["1,234.56", "-0.5", "12", "1,000", "1,234.5", "1500.0", None]
VALUES = [1234.56, -0.5, 12.0, 1000.0, 1234.5, 1500.0, None]


def table(path: Path, price: list[str | None], rows: int = 70) -> Path:
    frame = pl.DataFrame(
        {
            "price": [price[i % len(price)] for i in range(rows)],
            "plz": [f"{i % 5:05}" for i in range(rows)],
            "n": list(range(0, 3 * rows, 3)),
            "y": ["ab"[i % 2] for i in range(rows)],
        }
    )
    frame.write_csv(path, separator=";")
    return path


@pytest.mark.parametrize(("style", "texts"), [("european", EUROPEAN), ("english", ENGLISH)])
def test_a_style_is_read_whole_and_in_pieces(tmp_path: Path, style: str, texts: list[str | None]) -> None:
    source = Source(table(tmp_path / "x.csv", texts), numbers=style)
    frame = source.read(text=["plz"])
    assert frame["price"].to_list()[:7] == VALUES
    assert frame.dtypes == [pl.Float64, pl.String, pl.Int64, pl.String]
    assert frame["plz"][3] == "00003"
    pieces = pl.concat(list(source.batches(10)))
    assert pieces["price"].cast(pl.Float64).to_list()[:7] == VALUES


def test_a_table_in_another_style_trains_as_in_plain(tmp_path: Path) -> None:
    plain = [None if v is None else str(v) for v in VALUES]
    one = Tabular(str(table(tmp_path / "plain.csv", plain)), "y")
    two = Tabular(str(table(tmp_path / "comma.csv", EUROPEAN)), "y", numbers="european")
    one.setup()
    two.setup()
    assert [(c.name, c.kind) for c in one.columns] == [(c.name, c.kind) for c in two.columns]
    assert one.content_hash("train") == two.content_hash("train")


@pytest.mark.parametrize(
    ("texts", "example", "setting"),
    [
        (["1,5", "2,25", "3"], "1,5", "`data.numbers=european` (as in 1.234,5)"),
        (["1,234.5", "2,000.0", "3"], "1,234.5", "`data.numbers=english` (as in 1,234.5)"),
        (
            ["1,234", "2,500"],
            "1,234",
            "`data.numbers=english` (as in 1,234.5) or `data.numbers=european` (as in 1.234,5)",
        ),
    ],
)
def test_a_column_of_such_numbers_is_refused_with_the_way_to_read_it(
    tmp_path: Path, texts: list[str], example: str, setting: str
) -> None:
    with pytest.raises(DataError) as caught:
        Tabular(str(table(tmp_path / "x.csv", [*texts])), "y").setup()
    assert str(caught.value) == (
        f"column `price` holds numbers written as '{example}'; set {setting}, or `data.columns.price=categorical`"
    )


def test_a_target_of_such_numbers_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Tabular(str(table(tmp_path / "x.csv", ["1,5", "2,25", "3,125", "0,5"])), "price").setup()
    assert str(caught.value) == (
        "target `price` holds numbers written as '0,5'; set `data.numbers=european` (as in 1.234,5), "
        "or `data.target_kind=class`"
    )


@pytest.mark.parametrize("texts", [["a,b", "1,2"], ["1.2.3", "2.0.1"], ["10.0.0.1", "10.0.0.2"], ["01:30", "02:15"]])
def test_other_texts_with_commas_and_points_are_left_alone(texts: list[str]) -> None:
    check_plain(pl.Series(texts), pl.Series([1] * len(texts)), "column `x`", "nothing")


def test_a_style_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Source(tmp_path / "x.csv", numbers="french")
    assert str(caught.value) == (
        "`data.numbers` is 'french'; it must be plain (1234.5), english (1,234.5) or european (1.234,5)"
    )
