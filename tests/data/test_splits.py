"""Splits cover the rows, share none, repeat from the seed, and say what is wrong when they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.data.splits import Rows, SplitPlan, split_rows
from trainctl.errors import DataError, UsageError

LABELS = np.array([0] * 700 + [1] * 250 + [2] * 50)
KEYS = np.array([f"g{i % 100}" for i in range(1000)])


def split(seed: int = 0, rows: int = 1000, **config: Any) -> Rows:
    kind = config.get("kind", "auto")
    if kind in ("group", "hash", "time"):
        config.setdefault("column", "k")
    keys = np.arange(rows)[::-1] if kind == "time" else KEYS[:rows]
    labels = LABELS[:rows] if kind in ("auto", "stratified") else None
    return split_rows(SplitPlan.from_config(config), rows, seed, labels=labels, keys=keys)


@pytest.mark.parametrize("kind", ["auto", "random", "stratified", "group", "time", "hash"])
def test_every_row_is_in_one_split_and_the_seed_decides(kind: str) -> None:
    parts = split(kind=kind)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1000))
    assert all((np.diff(rows) > 0).all() and rows.dtype == np.int64 for rows in parts.values())
    again, other = split(kind=kind), split(kind=kind, seed=1)
    assert all((parts[name] == again[name]).all() for name in parts)
    assert kind == "time" or any(list(parts[name]) != list(other[name]) for name in parts)


@pytest.mark.parametrize("kind", ["auto", "random", "stratified", "time"])
def test_sizes_are_the_fractions(kind: str) -> None:
    sizes = {name: len(rows) for name, rows in split(kind=kind, val=0.1, test=0.25).items()}
    assert sizes == {"train": 650, "val": 100, "test": 250}


def test_stratified_keeps_the_share_of_every_class() -> None:
    for rows in split(kind="stratified", val=0.2, test=0.2).values():
        share = np.bincount(LABELS[rows]) / len(rows)
        assert np.abs(share - [0.7, 0.25, 0.05]).max() < 0.005


def test_groups_stay_together() -> None:
    parts = split(kind="group")
    seen = [set(KEYS[rows]) for rows in parts.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert 100 <= len(parts["test"]) <= 200 and 100 <= len(parts["val"]) <= 200


def test_time_puts_the_last_rows_in_test_and_those_before_in_val() -> None:
    parts = split(kind="time", val=0.1, test=0.2)  # the keys count down
    assert list(parts["test"]) == list(range(200))
    assert list(parts["val"]) == list(range(200, 300))


def test_a_row_keeps_its_hash_split_when_rows_are_added() -> None:
    keys = np.array([f"user {i}" for i in range(3000)])
    plan = SplitPlan.from_config({"kind": "hash", "column": "k"})
    few, many = split_rows(plan, 2000, 0, keys=keys[:2000]), split_rows(plan, 3000, 0, keys=keys)
    for name in few:
        assert set(few[name]) == {row for row in many[name] if row < 2000}
        assert abs(len(many[name]) / 3000 - {"train": 0.7, "val": 0.15, "test": 0.15}[name]) < 0.03


def test_a_column_gives_the_splits_and_others_are_left_out() -> None:
    keys = np.array(["Train"] * 6 + ["valid"] * 2 + [" TEST "] * 3 + ["unused"] * 4)
    parts = split_rows(SplitPlan.from_config({"kind": "column", "column": "s"}), 15, 0, keys=keys)
    assert {name: list(rows) for name, rows in parts.items()} == {
        "train": list(range(6)), "val": [6, 7], "test": [8, 9, 10],
    }  # fmt: skip


def test_val_is_taken_from_train_when_the_column_does_not_give_it() -> None:
    keys = np.array(["train"] * 20 + ["test"] * 10)
    parts = split_rows(SplitPlan.from_config({"kind": "column", "column": "s", "val": 0.25}), 30, 0, keys=keys)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 15, "val": 5, "test": 10}


def test_a_column_without_train() -> None:
    with pytest.raises(DataError) as caught:
        split_rows(SplitPlan.from_config({"kind": "column", "column": "s"}), 3, 0, keys=np.array(["a", "b", "a"]))
    assert str(caught.value) == "column `s` names no row `train`; it holds: a, b; it must hold train, val and test"


@pytest.mark.parametrize("kind", ["auto", "random", "stratified", "group", "hash"])
def test_folds_cover_every_row_once(kind: str) -> None:
    tests = [split(kind=kind, folds=5, fold=fold)["test"] for fold in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(1000))
    if kind != "hash":
        assert {len(rows) for rows in tests} == {200}
    if kind == "group":
        assert sum(len(set(KEYS[rows])) for rows in tests) == 100
    if kind in ("auto", "stratified"):
        assert all(list(np.bincount(LABELS[rows])) == [140, 50, 10] for rows in tests)
    parts = split(kind=kind, folds=5, fold=2)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1000))
    assert abs(len(parts["val"]) - 0.15 * 800) < 60


@pytest.mark.parametrize("kind", ["auto", "random", "stratified", "group", "hash"])
def test_folds_of_val_leave_test_as_it_is_and_cover_the_rest(kind: str) -> None:
    unfolded = split(kind=kind)
    folds = [split(kind=kind, folds=5, fold=k, fold_as="val") for k in range(5)]
    rest = sorted(np.concatenate([unfolded["train"], unfolded["val"]]))
    assert all(list(parts["test"]) == list(unfolded["test"]) for parts in folds)
    assert sorted(np.concatenate([parts["val"] for parts in folds])) == rest
    assert all(sorted(np.concatenate([parts["val"], parts["train"]])) == rest for parts in folds)
    sizes = [len(parts["val"]) for parts in folds]
    if kind == "hash":
        assert min(sizes) > 100
    else:
        assert max(sizes) - min(sizes) <= (10 if kind == "group" else 1)
    if kind == "group":
        assert sum(len(set(KEYS[parts["val"]])) for parts in folds) == len(set(KEYS[rest]))
    if kind in ("auto", "stratified"):
        counts = np.array([np.bincount(LABELS[parts["val"]]) for parts in folds])
        assert (counts.max(0) - counts.min(0) <= 1).all()


def column_split(names: list[str], **config: Any) -> Rows:
    plan = SplitPlan.from_config({"kind": "column", "column": "part", **config})
    return split_rows(plan, len(names), 0, keys=np.array(names))


def test_folds_of_val_beside_a_test_split_that_a_column_names() -> None:
    names = ["train"] * 50 + ["val"] * 20 + ["test"] * 10 + ["unused"] * 5
    folds = [column_split(names, folds=5, fold=k, fold_as="val") for k in range(5)]
    assert all(list(parts["test"]) == list(range(70, 80)) for parts in folds)
    assert sorted(np.concatenate([parts["val"] for parts in folds])) == list(range(70))
    assert {(len(parts["val"]), len(parts["train"])) for parts in folds} == {(14, 56)}


def test_folds_of_val_where_a_column_names_val_alone_take_the_same_test_from_train() -> None:
    names = ["train"] * 80 + ["val"] * 20
    unfolded = column_split(names)
    folds = [column_split(names, folds=2, fold=k, fold_as="val") for k in range(2)]
    assert all(list(parts["test"]) == list(unfolded["test"]) for parts in folds)
    assert {(len(parts["val"]), len(parts["train"])) for parts in folds} == {(44, 44)}


def test_folds_of_val_beside_files_of_their_own() -> None:
    for given_names in ({"test"}, {"val", "test"}):
        plan = SplitPlan.from_config({"folds": 5, "fold": 0, "fold_as": "val"})
        parts = split_rows(plan, 100, 0, given=frozenset(given_names))
        assert {name: len(rows) for name, rows in parts.items()} == {"train": 80, "val": 20}


def test_too_few_groups_for_the_folds() -> None:
    with pytest.raises(DataError) as caught:
        split_rows(
            SplitPlan.from_config({"kind": "group", "column": "k", "folds": 5, "fold": 0}), 6, 0,
            keys=np.array(["a", "b", "c"] * 2),
        )  # fmt: skip
    assert str(caught.value) == "column `k` has 3 groups, too few for 5 folds"


def test_splits_with_their_own_file_take_no_rows() -> None:
    parts = split_rows(SplitPlan(), 100, 0, given=frozenset({"test"}))
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 85, "val": 15}
    parts = split_rows(SplitPlan(), 100, 0, given=frozenset({"test", "val"}))
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 100}


def test_a_split_of_no_row() -> None:
    with pytest.raises(UsageError) as caught:
        split(kind="random", rows=7, val=0.05)
    assert str(caught.value) == (
        "the split gives val 0 of 7 rows; change `data.split.val` and `data.split.test`, or bring more rows"
    )


def test_a_split_of_one_row() -> None:
    with pytest.raises(DataError) as caught:
        split(kind="random", rows=7, val=0.15, test=0.3)
    assert str(caught.value) == (
        "split `val` has 1 row of 7; it needs 2 or more: bring more rows or change `data.split`"
    )


def test_a_class_with_too_few_rows() -> None:
    with pytest.raises(DataError) as caught:
        split_rows(SplitPlan(), 100, 0, labels=np.array([0] * 98 + [1] * 2), classes=("dog", "cat"))
    assert str(caught.value) == (
        "class 'cat' has 2 rows; a stratified split needs 3 of each class: remove it, merge it with another, "
        "or set `data.split.kind=random`"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"vale": 0.1}, "unknown key `data.split.vale`; did you mean `val`?"),
        ({"zzz": 0.1}, "unknown key `data.split.zzz`; have: kind, val, test, column, folds, fold, "
         "fold_as"),
        ({"kind": "randm"}, "no `data.split.kind` 'randm'; have: auto, random, stratified, group, time, hash, column; "
         "did you mean `random`?"),
        ({"val": 0.7, "test": 0.5}, "`data.split.val` 0.7 and `data.split.test` 0.5 sum to 1.2; their sum must be "
         "below 1, the rest is train"),
        ({"val": 0}, "`data.split.val` must be a fraction between 0 and 1, got 0"),
        ({"test": 1.0}, "`data.split.test` must be a fraction between 0 and 1, got 1.0"),
        ({"test": "0.1"}, "`data.split.test` must be a fraction between 0 and 1, got '0.1'"),
        ({"test": True}, "`data.split.test` must be a fraction between 0 and 1, got True"),
        ({"kind": "group"}, "`data.split.kind=group` needs `data.split.column`, the column to split by"),
        ({"folds": 5}, "`data.split.folds` and `data.split.fold` go together, such as folds=5 and fold=0"),
        ({"folds": 1, "fold": 0}, "`data.split.folds` must be a whole number of 2 or more, got 1"),
        ({"folds": 5, "fold": 5}, "`data.split.fold` must be 0 to 4, got 5"),
        ({"kind": "time", "column": "t", "folds": 5, "fold": 0}, "`data.split.kind=time` cannot be folded; use random, "
         "stratified, group or hash"),
        ({"kind": "time", "column": "t", "folds": 5, "fold": 0, "fold_as": "val"}, "`data.split.kind=time` cannot be "
         "folded; use random, stratified, group or hash"),
        ({"fold_as": "vall"}, "`data.split.fold_as` must be test or val, got 'vall'; did you mean `val`?"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        SplitPlan.from_config(config)
    assert str(caught.value) == expected


@given(
    rows=st.integers(40, 300), seed=st.integers(0, 2**32), val=st.floats(0.1, 0.4), test=st.floats(0.1, 0.4),
    kind=st.sampled_from(["random", "stratified", "group", "time"]),
)  # fmt: skip
def test_no_row_is_lost_or_doubled(rows: int, seed: int, val: float, test: float, kind: str) -> None:
    labels = np.arange(rows) % 3
    keys = np.arange(rows) if kind == "time" else np.array([f"g{i % 20}" for i in range(rows)])
    plan = SplitPlan.from_config({"kind": kind, "val": val, "test": test, "column": "k"})
    parts = split_rows(plan, rows, seed, labels=labels, keys=keys)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
