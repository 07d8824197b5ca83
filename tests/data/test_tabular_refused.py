"""Tables that cannot be used, or only with a warning: the whole sentence that a user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trainctl.data.tabular import Tabular
from trainctl.errors import DataError, TrainctlError, UsageError

RANDOM = np.random.default_rng(0)


def table(rows: int = 300) -> dict[str, Any]:
    """Mixed columns and a target `label` in {no, yes}."""
    age = RANDOM.integers(18, 90, rows)
    return {
        "age": age,
        "income (EUR)": np.exp(RANDOM.normal(10, 1, rows)).round(2),
        "city": RANDOM.choice(["Köln", "Paris", "Łódź"], rows),
        "member": RANDOM.choice(["yes", "no"], rows),
        "label": np.where(age + RANDOM.normal(0, 5, rows) > 50, "yes", "no"),
    }


def save(folder: Path, columns: Any, name: str = "x.csv") -> str:
    pl.DataFrame(columns).write_csv(folder / name)
    return str(folder / name)


def write(folder: Path, text: str, name: str = "x.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def numbered(rows: int, **columns: Any) -> dict[str, Any]:
    """x1, x2 and a numeric target y, all without repetition."""
    return {"x1": RANDOM.normal(size=rows), "x2": RANDOM.normal(size=rows), "y": RANDOM.normal(size=rows), **columns}


def sentence(kind: type[TrainctlError], *args: Any, **options: Any) -> str:
    """What a user is told when the data is set up."""
    with pytest.raises(kind) as caught:
        Tabular(*args, **options).setup()
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


def test_row_18_a_missing_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x.csv")
    assert sentence(DataError, path, "y") == f"cannot read `{path}`: no such file; check `data.path`"


def test_a_named_data_set_says_where_to_get_it(tmp_path: Path) -> None:
    message = sentence(DataError, "houses/houses.csv", "y", root=str(tmp_path), origin="'x/y' on GitHub")
    assert message == (
        f"cannot read `{tmp_path / 'houses/houses.csv'}`: no such file; get it from 'x/y' on GitHub and put it there, "
        "or point `paths.data` (or TRAINCTL_DATA) to the folder that has it"
    )


def test_row_19_only_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y\n")
    expected = f"`{path}` has no data rows; it must hold at least one row below its header"
    assert sentence(DataError, path, "y") == expected


def test_row_21_duplicated_names(tmp_path: Path) -> None:
    path = write(tmp_path, "age,y,age\n1,2,3\n")
    expected = f"column `age` appears 2 times in `{path}` (columns 1, 3); give every column its own name"
    assert sentence(DataError, path, "y") == expected


def test_row_23_no_target_column(tmp_path: Path) -> None:
    path = write(tmp_path, "x,labels\n1,2\n")
    assert sentence(DataError, path, "label") == f"no column `label` in `{path}`; did you mean `labels`?"
    assert sentence(DataError, path, "zzz") == f"no column `zzz` in `{path}`; it has: x, labels"
    assert sentence(UsageError, path) == (
        f"`data.target` is not set: name the column to predict; `{path}` has: x, labels"
    )


@pytest.mark.parametrize("hole", ["", "NA", "nan", " "])
def test_row_24_rows_without_a_target(tmp_path: Path, hole: str) -> None:
    lines = [f"{i}.5,{i * i % 97}.25" for i in range(60)]
    for row in (15, 20, 30):
        lines[row] = f"{row}.5,{hole}"
    path = write(tmp_path, "x,y\n" + "\n".join(lines) + "\n")
    assert sentence(DataError, path, "y") == (
        f"3 rows have no target `y` in `{path}` (first: line 17); set `data.missing_target=drop` to leave them out"
    )
    data = Tabular(path, "y", missing_target="drop")
    rows = np.concatenate([data.split(name).rows for name in ("train", "val", "test")])
    assert sorted(rows) == [row for row in range(60) if row not in (15, 20, 30)]


def test_no_row_with_a_target(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y\n1,\n2,\n")
    assert sentence(DataError, path, "y", missing_target="drop") == (
        f"no row of `{path}` has a target `y`; check `data.target`"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity"])
def test_row_25_numbers_that_are_not_finite(tmp_path: Path, value: str) -> None:
    lines = [f"{i}.5,{i % 7}.25,{i * i % 97}.5" for i in range(60)]
    lines[3] = f"3.5,{value},9.5"
    path = write(tmp_path, "x1,x2,y\n" + "\n".join(lines) + "\n")
    assert sentence(DataError, path, "y") == (
        "column `x2` has 1 non-finite value (line 5); set `data.missing=impute` to treat NaN and infinity as missing"
    )
    data = Tabular(path, "y", missing="impute", split={"val": 0.1, "test": 0.1})
    assert data.split("train").x.isfinite().all()


def test_row_26_text_in_a_numeric_column(tmp_path: Path) -> None:
    lines = [f"{i}.5,{i % 7}.25,{i * i % 97}.5" for i in range(120)]
    lines[86] = "1.5,n/a,9.5"
    path = write(tmp_path, "x1,x2,y\n" + "\n".join(lines) + "\n")
    assert sentence(DataError, path, "y") == (
        "column `x2`, line 88: 'n/a' is not a number; correct it, add it to `data.missing_values`, or set "
        "`data.columns.x2=categorical`"
    )
    for options in ({"missing_values": ["", "n/a"]}, {"columns": {"x2": "categorical"}}):
        Tabular(path, "y", **options).setup()
    few = write(tmp_path, "x1,x2,y\n" + "1.5,low,0.5\n2.5,3,0.25\n" * 50)
    assert sentence(DataError, few, "y", columns={"x2": "numeric"}).startswith("column `x2`, line 2: 'low' is not ")


@pytest.mark.parametrize("value", ["oops", "inf", "1e300"])
def test_no_number_in_a_numeric_target(tmp_path: Path, value: str) -> None:
    lines = [f"{i}.5,{i * i % 97}.5" for i in range(120)]
    lines[86] = f"1.5,{value}"
    path = write(tmp_path, "x,y\n" + "\n".join(lines) + "\n")
    assert sentence(DataError, path, "y") == (
        f"target `y`, line 88: '{value}' is not a finite number; correct it, or set `data.target_kind=class` "
        "if it is a label"
    )


def test_row_27_a_class_that_train_has_not(tmp_path: Path) -> None:
    main = save(tmp_path, {"x": RANDOM.normal(size=90), "y": ["dog", "cow"] * 45})
    test = save(tmp_path, {"x": RANDOM.normal(size=9), "y": ["dog", "cat", "cow"] * 3}, "test.csv")
    assert sentence(DataError, main, "y", test_path=test) == (
        "class 'cat' is in test (3 rows) but not in train; set `data.split.kind=stratified` or leave that class out"
    )


def test_a_text_with_a_thousand_values_is_no_class(tmp_path: Path) -> None:
    path = save(tmp_path, {"x": RANDOM.normal(size=1500), "y": [f"name {i}" for i in range(1500)]})
    assert sentence(DataError, path, "y") == (
        "target `y` has 1500 different labels in 1500 rows, more than 1000; set `data.target_kind=number` or choose "
        "another `data.target`"
    )


def test_row_29_and_36_targets_that_say_nothing(tmp_path: Path) -> None:
    one = Tabular(save(tmp_path, {"x": RANDOM.normal(size=90), "y": ["a"] * 90}), "y").describe()["warnings"]
    assert one == [
        f"{name} has one class only ('a'): AUROC is undefined there and written as null"
        for name in ("train", "val", "test")
    ]
    path = save(tmp_path, {"x": RANDOM.normal(size=90), "y": [2.5] * 90})
    constant = Tabular(path, "y", target_kind="number")
    assert constant.describe()["warnings"] == [
        f"target `y` is constant in {name} (2.5): R2 is written as null" for name in ("train", "val", "test")
    ]
    assert constant.spec.target_std == 1.0


def test_row_30_a_split_of_one_row(tmp_path: Path) -> None:
    path = save(tmp_path, numbered(7))
    assert sentence(DataError, path, "y", split={"val": 0.15, "test": 0.3}) == (
        "split `val` has 1 row of 7; it needs 2 or more: bring more rows or change `data.split`"
    )
    test = save(tmp_path, numbered(1), "test.csv")
    assert sentence(DataError, save(tmp_path, numbered(50)), "y", test_path=test) == (
        "split `test` has 1 row of 50; it needs 2 or more: bring more rows or change `data.split`"
    )


def test_row_31_fractions_that_give_no_row(tmp_path: Path) -> None:
    path = save(tmp_path, numbered(7))
    assert sentence(UsageError, path, "y", split={"val": 0.05, "test": 0.3}) == (
        "the split gives val 0 of 7 rows; change `data.split.val` and `data.split.test`, or bring more rows"
    )
    assert sentence(UsageError, path, "y", split={"val": 0.7, "test": 0.5}) == (
        "`data.split.val` 0.7 and `data.split.test` 0.5 sum to 1.2; their sum must be below 1, the rest is train"
    )


def test_row_33_rows_in_train_and_test(tmp_path: Path) -> None:
    main = save(tmp_path, numbered(100))
    copied = pl.read_csv(main)
    rows = Tabular(main, "y", test_path=main).split("train").rows[:12]
    test = save(tmp_path, pl.concat([copied[rows.tolist()], pl.DataFrame(numbered(20))]), "test.csv")
    assert Tabular(main, "y", test_path=test).describe()["warnings"] == ["12 rows of test are also in train"]


def test_wrong_split_columns(tmp_path: Path) -> None:
    path = save(tmp_path, {**table(), "when": [None] + ["soon"] * 299})
    assert sentence(UsageError, path, "label", split={"kind": "group", "column": "citi"}) == (
        f"`data.split.column` is `citi`, which is no column of `{path}`; did you mean `city`?"
    )
    assert sentence(DataError, path, "label", split={"kind": "group", "column": "when"}) == (
        "split column `when` has 1 missing values (first: line 2)"
    )
    assert sentence(DataError, path, "label", split={"kind": "time", "column": "city"}) == (
        "split column `city` holds neither numbers nor dates, so its rows have no order in time"
    )


def test_a_slice_column_that_is_not_there(tmp_path: Path) -> None:
    path = save(tmp_path, table())
    with pytest.raises(DataError) as caught:
        Tabular(path, "label").column("citi", "test")
    assert str(caught.value) == f"no column `citi` in `{path}`; did you mean `city`?"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"missing": "ignore"}, "`data.missing` is 'ignore'; it must be error or impute"),
        ({"missing_target": "keep"}, "`data.missing_target` is 'keep'; it must be error or drop"),
        ({"scaling": "minmax"}, "`data.scaling` is 'minmax'; it must be both or quantile or standard or none"),
        ({"max_categories": 0}, "`data.max_categories` is 0; it must be a whole number of 1 or more"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], expected: str) -> None:
    assert sentence(UsageError, **options) == expected
