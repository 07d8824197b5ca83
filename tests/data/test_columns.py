"""Which kind a column is taken for, why, and what is said when a value does not fit."""

from __future__ import annotations

import datetime
from typing import Any

import polars as pl
import pytest

from trainctl.data.columns import Column, infer, typed
from trainctl.errors import DataError, UsageError


def kinds(columns: dict[str, Any], declared: dict[str, str] | None = None) -> dict[str, Column]:
    found = infer(pl.DataFrame(columns, strict=False), declared or {}, {}, max_categories=50)
    return {column.name: column for column in found}


def where(row: int) -> str:
    return f"line {row + 2}"


WORDS = ["a", "b", "c"] * 20
VARIED = [float(i % 7) for i in range(60)]


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (VARIED, "numeric", "numbers"),
        ([str(v) for v in VARIED], "numeric", "numbers"),
        (WORDS, "categorical", "3 different texts"),
        (["yes", "no", None] * 20, "boolean", "no and yes"),
        ([True, False] * 30, "boolean", "true and false"),
        ([0, 1] * 30, "boolean", "0 and 1"),
        ([f"2020-01-{i % 28 + 1:02}" for i in range(60)], "datetime", "dates written as %Y-%m-%d"),
        ([f"2020-01-01 {i % 24:02}:30:00" for i in range(60)], "datetime", "dates written as %Y-%m-%d %H:%M:%S%.f"),
        ([f"{i % 28 + 1}.12.2021" for i in range(60)], "datetime", "dates written as %d.%m.%Y"),
        ([f"{i % 28 + 1}/12/2021" for i in range(60)], "datetime", "dates written as %d/%m/%Y"),
        ([f"12/{i % 28 + 1}/2021" for i in range(60)], "datetime", "dates written as %m/%d/%Y"),
        ([datetime.date(2020, 1, i % 28 + 1) for i in range(60)], "datetime", "dates in the file"),
        ([None] * 60, "drop", "every value is missing"),
        ([5] * 60, "drop", "constant: always 5"),
        (["x"] * 60, "drop", "constant: always 'x'"),
        (list(range(60)), "drop", "an id: every row has its own number"),
        ([f"user {i}" for i in range(60)], "drop", "an id: 60 different texts in 60 rows"),
        ([f"t{i % 55}" for i in range(200)] , "categorical", "55 different texts; the 50 most frequent are kept, "
         "the others count as unseen"),
        ([[1, 2]] * 60, "drop", "cannot use values of type List(Int64)"),
    ],
)  # fmt: skip
def test_kind_and_reason(values: list[Any], kind: str, why: str) -> None:
    keep = [float(i % 5) for i in range(len(values))]
    found = kinds({"x": values, "keep": keep})["x"]
    assert (found.kind, found.why) == (kind, why)


def test_a_shuffled_column_named_id_is_an_id_and_other_unique_numbers_are_not() -> None:
    shuffled = [(i * 37) % 101 for i in range(101)]
    found = kinds({"customer_id": shuffled, "amount": shuffled})
    assert (found["customer_id"].kind, found["amount"].kind) == ("drop", "numeric")


def test_every_kind_can_be_overridden() -> None:
    frame = {"zip": [1, 2, 3] * 20, "n": WORDS, "when": ["2020-01-01", "2020-01-02"] * 30, "flag": ["0", "1"] * 30}
    declared = {"zip": "categorical", "n": "drop", "when": "datetime", "flag": "boolean"}
    found = kinds(frame, declared)
    assert {name: column.kind for name, column in found.items()} == declared
    assert {column.why for column in found.values()} == {"set by data.columns"}
    assert found["when"].format == "%Y-%m-%d"


def test_wrong_overrides_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        kinds({"age": VARIED}, {"agee": "numeric"})
    assert str(caught.value) == "`data.columns` names `agee`, which is no column; did you mean `age`?"
    with pytest.raises(UsageError) as caught:
        kinds({"age": VARIED}, {"age": "number"})
    assert str(caught.value) == (
        "`data.columns.age` is 'number'; it must be one of numeric, categorical, boolean, datetime, drop; "
        "did you mean `numeric`?"
    )
    with pytest.raises(DataError) as caught:
        kinds({"day": WORDS}, {"day": "datetime"})
    assert str(caught.value) == (
        "column `day` is set to datetime, but no known format reads all its values, such as 'a'; "
        "write them as 2026-01-31 12:00:00"
    )


def test_free_text_is_refused_with_a_hint() -> None:
    review = [f"this film number {i} was not what I had hoped for" for i in range(60)]
    with pytest.raises(DataError) as caught:
        kinds({"review text": review, "n": VARIED})
    assert str(caught.value) == (
        "column `review text` holds free text (11 words a value), which a table cannot use; set "
        "`'data.columns={review text: drop}'` to leave it out, or `categorical` to take each text as a category"
    )
    assert kinds({"review text": review, "n": VARIED}, {"review text": "drop"})["n"].kind == "numeric"


def test_nothing_left_to_learn_from() -> None:
    with pytest.raises(DataError) as caught:
        kinds({"a": [1, 1], "b": ["x", "x"]})
    assert str(caught.value) == (
        "no column is left to learn from: `a` (constant: always 1), `b` (constant: always 'x'); keep one, such as "
        "`data.columns.a=numeric`"
    )


def test_text_in_a_mostly_numeric_column_names_line_and_value() -> None:
    values = [str(v) for v in VARIED]
    values[58] = "n/a"
    column = kinds({"x2": values})["x2"]
    with pytest.raises(DataError) as caught:
        typed(pl.DataFrame({"x2": values}), [column], where)
    assert str(caught.value) == (
        "column `x2`, line 60: 'n/a' is not a number; correct it, add it to `data.missing_values`, or set "
        "`data.columns.x2=categorical`"
    )


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (Column("x", "boolean", ""), "is neither true nor false"),
        (Column("x", "datetime", "", "%Y-%m-%d"), "is not a date written as %Y-%m-%d"),
    ],
)
def test_values_that_do_not_fit_a_kind(column: Column, problem: str) -> None:
    good = {"boolean": "yes", "datetime": "2020-01-31"}[column.kind]
    with pytest.raises(DataError) as caught:
        typed(pl.DataFrame({"x": [good, None, "perhaps"]}), [column], where)
    assert str(caught.value) == (
        f"column `x`, line 4: 'perhaps' {problem}; correct it, add it to `data.missing_values`, or set "
        "`data.columns.x=categorical`"
    )


def test_typed_frames_do_not_depend_on_how_a_file_stores_its_values() -> None:
    columns = [
        Column("n", "numeric", ""),
        Column("c", "categorical", ""),
        Column("b", "boolean", ""),
        Column("d", "datetime", "", "%Y-%m-%d"),
        Column("gone", "drop", ""),
    ]
    day = datetime.date(2020, 1, 31)
    text = {"n": [" 1", "2.0"], "c": ["1", " 2"], "b": ["Yes", "no"], "d": ["2020-01-31"] * 2}
    stored = {"n": [1, 2], "c": [1.0, 2.0], "b": [True, False], "d": [day, day]}
    for values in (text, stored):
        frame = typed(pl.DataFrame(values), columns, where)
        assert frame["n"].cast(pl.Float64).to_list() == [1.0, 2.0]
        assert frame["c"].to_list() == ["1", "2"]
        assert frame["b"].to_list() == [1.0, 0.0]
        assert frame["d"].to_list() == [datetime.datetime(2020, 1, 31)] * 2
    assert typed(pl.DataFrame({"n": [True]}), columns[:1], where)["n"].to_list() == [1.0]
    assert typed(pl.DataFrame({"b": [1]}), columns[2:3], where)["b"].to_list() == [1]


@pytest.mark.parametrize(
    "text", ["2024-01-{:02}T10:30:00+00:00", "2024-01-{:02} 10:30:00.250+0200", "2024-01-{:02}T10:30"]
)
def test_times_with_an_offset_and_without_seconds(text: str) -> None:
    frame = pl.DataFrame({"when": [text.format(1 + i % 28) for i in range(60)]})
    (column,) = infer(frame, {}, {}, 1000)
    assert column.kind == "datetime"
    when = typed(frame, [column], lambda row: f"row {row}")["when"]
    assert when.null_count() == 0 and when.dt.day().to_list() == [1 + i % 28 for i in range(60)]


def test_constants_among_missing_values_and_negative_zeros() -> None:
    frame = pl.DataFrame({"few": ["5", None, "5"], "zero": [-0.0, 0.0, -0.0], "x": [0.5, 1.5, 2.5]})
    whys = [column.why for column in infer(frame, {}, {}, 1000)]
    assert whys == ["constant: always '5' or missing", "constant: always 0.0", "numbers"]
