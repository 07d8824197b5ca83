"""`data=tabular` as a user meets it: a file in, splits, spec and sentences out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

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


# -- what works -----------------------------------------------------------------------------------------------------


def test_the_bundled_table_has_its_official_test_file() -> None:
    data = Tabular()
    facts = data.describe()
    assert {name: part["rows"] for name, part in facts["splits"].items()} == {
        "train": 27677, "val": 4884, "test": 16281,
    }  # fmt: skip
    assert facts["target"] == {"name": "income", "kind": "class", "classes": ["<=50K", ">50K"]}
    assert data.spec.numeric[:6] == (
        "age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week",
    )  # fmt: skip
    assert [(c.name, c.size) for c in data.spec.categories][-2:] == [("sex", 3), ("native_country", 42)]
    assert "19 rows of test are also in train" in facts["warnings"]
    train = data.split("train")
    assert train.x.shape == (27677, data.spec.num_features) and train.x.isfinite().all()
    assert float(data.split("test").y.double().mean()) == pytest.approx(0.2362, abs=1e-4)
    assert set(data.column("sex", "test")) == {"Male", "Female"}
    occupation = data.column("occupation", "train")
    assert len(occupation) == 27677 and None in occupation and "?" not in occupation


def test_a_path_and_a_target_are_enough(tmp_path: Path) -> None:
    data = Tabular(save(tmp_path, table()), "label")
    data.setup()
    assert data.spec.classes == ("no", "yes") and data.spec.target == "class" and data.spec.num_outputs == 2
    assert data.spec.numeric == ("age", "income (EUR)", "member", "age (linear)", "income (EUR) (linear)")
    assert [(c.name, c.size) for c in data.spec.categories] == [("city", 4)]
    batches = list(data.train_dataloader())
    assert sum(len(x) for x, _ in batches) == len(data.split("train")) == 210
    assert batches[0][0].dtype == torch.float32 and batches[0][1].dtype == torch.int64


def test_a_number_to_predict_keeps_its_unit(tmp_path: Path) -> None:
    columns = numbered(200)
    columns["y"] = columns["y"] * 1000 + 5000
    data = Tabular(save(tmp_path, columns), "y")
    data.setup()
    train = data.split("train")
    assert data.spec.target == "number" and data.spec.classes == () and train.y.dtype == torch.float32
    np.testing.assert_allclose(train.y.numpy(), columns["y"][train.rows].astype(np.float32))
    assert data.spec.target_mean == pytest.approx(float(train.y.mean()), rel=1e-5)
    assert data.spec.target_std == pytest.approx(float(train.y.std(correction=0)), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([3, 10, 7], "class", ("3", "7", "10")),
        ([True, False, True], "class", ("false", "true")),
        (["0.0", "1.0", "1.0"], "class", ("0.0", "1.0")),
        ([0.5, 1.5, 2.5], "number", ()),
        (list(range(30)), "number", ()),
    ],
)
def test_few_whole_numbers_are_classes_and_many_or_decimals_a_number(
    tmp_path: Path, values: list[Any], kind: str, classes: tuple[str, ...]
) -> None:
    repeats = 300 // len(values)
    rows = repeats * len(values)
    data = Tabular(save(tmp_path, {"x": RANDOM.normal(size=rows), "y": values * repeats}), "y")
    data.setup()
    assert (data.spec.target, data.spec.classes) == (kind, classes)


def test_the_kind_of_target_can_be_said(tmp_path: Path) -> None:
    path = save(tmp_path, {"x": RANDOM.normal(size=90), "y": [1, 2, 3] * 30})
    data = Tabular(path, "y", target_kind="number")
    data.setup()
    assert data.spec.target == "number"
    assert sentence(UsageError, path, "y", target_kind="label") == (
        "`data.target_kind` is 'label'; it must be auto, class or number"
    )


def test_train_decides_scaling_and_categories(tmp_path: Path) -> None:
    main = save(tmp_path, numbered(100, c=["a", "b"] * 50))
    test = save(tmp_path, numbered(10, x1=[1e9] * 10, c=["new"] * 10), "test.csv")
    alone, with_test = Tabular(main, "y"), Tabular(main, "y", test_path=test, split={"val": 0.15})
    for data in (alone, with_test):
        data.setup()
    assert with_test.spec.categories[0].size == 3
    x = with_test.split("test").x
    assert x.isfinite().all() and (x[:, -1] == 0).all() and len(with_test.split("train")) == 85


def test_splits_repeat_and_are_hashed(tmp_path: Path) -> None:
    path = save(tmp_path, table())
    facts = [Tabular(path, "label", seed=seed).describe()["splits"] for seed in (0, 0, 1)]
    assert facts[0] == facts[1] and facts[0]["train"]["sha256"] != facts[2]["train"]["sha256"]
    assert all(len(part["sha256"]) == len(hashlib.sha256().hexdigest()) for part in facts[0].values())
    changed = pl.read_csv(path).with_columns(age=pl.col("age") + (pl.int_range(pl.len()) == 5))
    assert Tabular(save(tmp_path, changed), "label").describe()["splits"] != facts[0]


@pytest.mark.parametrize("kind", ["group", "hash", "column", "time"])
def test_split_columns_are_used(tmp_path: Path, kind: str) -> None:
    keys = {
        "group": [f"g{i % 30}" for i in range(300)],
        "hash": [f"g{i % 60}" for i in range(300)],
        "column": ["train", "train", "train", "test", "val"] * 60,
        "time": [f"{2000 + i // 12}-{i % 12 + 1:02}-01" for i in range(300)],
    }[kind]
    data = Tabular(save(tmp_path, {**table(), "key": keys}), "label", split={"kind": kind, "column": "key"})
    data.setup()
    values = {name: set(data.column("key", name)) for name in ("train", "val", "test")}
    assert not (values["train"] & values["test"] or values["train"] & values["val"] or values["val"] & values["test"])
    if kind == "time":
        assert max(values["train"]) < min(values["val"]) and max(values["val"]) < min(values["test"])
        assert "key (year)" in data.spec.numeric
    else:
        assert data.describe()["dropped"] == {"key": "used by data.split"}
    if kind == "column":
        assert values == {"train": {"train"}, "val": {"val"}, "test": {"test"}}


def test_folds_put_every_row_in_one_test_split(tmp_path: Path) -> None:
    path = save(tmp_path, table())
    rows = []
    for fold in range(3):
        data = Tabular(path, "label", test_path=path, split={"folds": 3, "fold": fold})
        rows += list(data.split("test").rows)
        assert data.warnings == [f"`{path}` is not used: fold {fold} is the test split"]
        assert data.column("age", "test") == [str(v) for v in pl.read_csv(path)["age"].gather(data.split("test").rows)]
    assert sorted(rows) == list(range(300))


def test_dropped_columns_are_listed_with_the_reason(tmp_path: Path) -> None:
    columns = {"row": range(300), "same": ["x"] * 300, **table()}
    data = Tabular(save(tmp_path, columns), "label", columns={"city": "drop"})
    assert data.describe()["dropped"] == {
        "row": "an id: every row has its own number",
        "same": "constant: always 'x'",
        "city": "set by data.columns",
    }
    assert json.loads(json.dumps(data.describe())) == data.describe()


def test_parquet_and_csv_give_the_same_splits(tmp_path: Path) -> None:
    columns = table()
    path = save(tmp_path, columns)
    pl.DataFrame(columns).write_parquet(tmp_path / "x.parquet")
    one, other = Tabular(path, "label"), Tabular(str(tmp_path / "x.parquet"), "label")
    for name in ("train", "val", "test"):
        assert torch.equal(one.split(name).x, other.split(name).x)
        assert torch.equal(one.split(name).y, other.split(name).y)
        assert one.column("age", name) == other.column("age", name)


def test_the_splits_are_views_of_one_matrix(tmp_path: Path) -> None:
    data = Tabular(save(tmp_path, table()), "label")
    data.setup()
    storages = {data.split(name).x.untyped_storage().data_ptr() for name in ("train", "val", "test")}
    assert len(storages) == 1


def test_paths_are_found_below_root(tmp_path: Path) -> None:
    save(tmp_path, table())
    assert len(Tabular("x.csv", "label", root=str(tmp_path)).split("train")) == 210


# -- saved and used again -------------------------------------------------------------------------------------------


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[Tabular, Path]:
    """A fitted module of the mixed table, and where it was saved."""
    data = Tabular(save(tmp_path, table()), "label")
    data.setup()
    data.save(tmp_path / "fitted")
    return data, tmp_path


def restored(data: Tabular, folder: Path) -> Tabular:
    other = Tabular(data.paths["main"], "label")
    other.restore(folder / "fitted")
    return other


def test_restored_it_fits_nothing_and_gives_the_same_splits(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    assert {path.suffix for path in (folder / "fitted").iterdir()} == {".json", ".safetensors"}
    other = restored(data, folder)
    assert other.spec == data.spec
    assert other.describe() == data.describe()
    frame = pl.read_csv(data.paths["main"])
    save(folder, frame.with_columns(age=pl.lit(1000), city=pl.lit("Rome")))
    other = restored(data, folder)
    assert other.split("train").x.isfinite().all() and (other.split("train").x[:, -1] == 0).all()
    assert other.spec == data.spec


def test_new_rows_are_streamed_by_column_name(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    frame = pl.read_csv(data.paths["main"])
    shuffled = frame.select(reversed(frame.columns)).with_columns(extra=pl.lit(1), more=pl.lit("x"))
    other = restored(data, folder)
    chunks = list(other.stream(save(folder, shuffled, "new.csv"), rows=100))
    assert len(chunks) >= 3 and all(len(chunk) <= 100 for chunk in chunks)
    rows = np.concatenate([chunk.rows for chunk in chunks])
    x, y = torch.cat([chunk.x for chunk in chunks]), torch.cat([chunk.y for chunk in chunks])
    assert list(rows) == list(range(300))
    for name in ("train", "val", "test"):
        part = data.split(name)
        assert torch.equal(x[part.rows], part.x) and torch.equal(y[part.rows], part.y)
    assert chunks[0].frame.columns == shuffled.columns
    assert other.warnings == [f"columns of `{folder / 'new.csv'}` that training did not see: extra, more"]


def test_new_rows_need_no_target_and_may_be_unseen(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    path = write(folder, "age,income (EUR),city,member\n40,,Atlantis,yes\n?,1e300,,no\n", "new.csv")
    (chunk,) = restored(data, folder).stream(path)
    assert chunk.y is None and chunk.x.isfinite().all() and chunk.x[:, -1].tolist() == [0, 0]
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path, with_target=True))
    assert str(caught.value) == f"`{path}` has no target column `label`"


def test_a_target_can_be_ignored_or_must_be_known(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    rows = "age,income (EUR),city,member,label\n40,1,Paris,yes,maybe\n41,1,Paris,yes,maybe\n42,1,Paris,no,yes\n"
    path = write(folder, rows, "new.csv")
    (chunk,) = restored(data, folder).stream(path, with_target=False)
    assert chunk.y is None and len(chunk) == 3
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path))
    assert str(caught.value) == (
        f"class 'maybe' is in `{path}` (2 rows) but not in train, which has 2 classes: no, yes"
    )


def test_a_missing_column_is_refused_by_name(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    path = write(folder, "agee,city,member\n40,Paris,yes\n", "new.csv")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path))
    assert str(caught.value) == (
        f"`{path}` has no column `age`, `income (EUR)`, which training used; did you mean `agee`?"
    )


def test_a_streamed_mistake_names_its_line(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    lines = ["40,1.5,Paris,yes"] * 250
    lines[220] = "forty,1.5,Paris,yes"
    path = write(folder, "age,income (EUR),city,member\n" + "\n".join(lines) + "\n", "new.csv")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path, rows=100))
    assert str(caught.value).startswith("column `age`, line 222: 'forty' is not a number; ")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(write(folder, "age,income (EUR),city,member\n", "new.csv")))
    assert str(caught.value) == f"`{path}` has no data rows; it must hold at least one row below its header"


def test_labels_match_however_a_file_writes_numbers(tmp_path: Path) -> None:
    data = Tabular(save(tmp_path, {"x": RANDOM.normal(size=90), "y": [0, 1, 2] * 30}), "y")
    data.setup()
    path = write(tmp_path, "x,y\n0.5,1.0\n0.1,02\n0.2,0\n", "new.csv")
    (chunk,) = data.stream(path)
    assert chunk.y.tolist() == [1, 2, 0]
    truth = Tabular(save(tmp_path, {"x": RANDOM.normal(size=90), "y": [True, False, True] * 30}), "y")
    truth.setup()
    (chunk,) = truth.stream(write(tmp_path, "x,y\n0.5,True\n0.1,FALSE\n", "new.csv"))
    assert chunk.y.tolist() == [1, 0]


# -- what is refused ------------------------------------------------------------------------------------------------


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
        "`data.columns={x2: categorical}`"
    )
    for options in ({"missing_values": ["", "n/a"]}, {"columns": {"x2": "categorical"}}):
        Tabular(path, "y", **options).setup()
    few = write(tmp_path, "x1,x2,y\n" + "1.5,low,0.5\n2.5,3,0.25\n" * 50)
    assert sentence(DataError, few, "y", columns={"x2": "numeric"}).startswith("column `x2`, line 2: 'low' is not ")


def test_text_in_a_numeric_target(tmp_path: Path) -> None:
    lines = [f"{i}.5,{i * i % 97}.5" for i in range(120)]
    lines[86] = "1.5,oops"
    path = write(tmp_path, "x,y\n" + "\n".join(lines) + "\n")
    assert sentence(DataError, path, "y") == (
        "target `y`, line 88: 'oops' is not a finite number; correct it, or set `data.target_kind=class` "
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
