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
from trainctl.errors import DataError, UsageError

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
    with pytest.raises(UsageError) as caught:
        Tabular(path, "y", target_kind="label").setup()
    assert str(caught.value) == "`data.target_kind` is 'label'; it must be auto, class or number"


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
    assert data.describe()["lines"] == [
        "target: label, 2 classes: no, yes",
        "numeric: age, income (EUR)",
        "boolean: member",
        "`row` is left out: an id: every row has its own number",
        "`same` is left out: constant: always 'x'",
        "`city` is left out: set by data.columns",
    ]


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


def test_a_row_of_missing_cells_is_counted_and_a_blank_line_is_not(tmp_path: Path) -> None:
    lines = [f"{x:.4f},{y:.4f}" for x, y in RANDOM.normal(size=(100, 2))]
    path = write(tmp_path, "\n".join(["x1,y", *lines[:50], "", *lines[50:], ",", "?,NA", "", ""]))
    with pytest.raises(DataError) as caught:
        Tabular(path, "y").describe()
    assert str(caught.value) == (
        f"2 rows have no target `y` in `{path}` (first: line 103); set `data.missing_target=drop` to leave them out"
    )
    facts = Tabular(path, "y", missing_target="drop").describe()
    assert sum(part["rows"] for part in facts["splits"].values()) == 100
