"""Which rows are train, val and test: deterministic from the seed, pure numpy.

Kinds: random, stratified (same share of every class), group (a group is never divided), time (last rows are test),
hash (of a key: a row keeps its split when rows are added) and column (given). With folds, fold i is the test split,
or, by `fold_as: val`, the test split stays as it is without folds and fold i of the other rows is val.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainctl.errors import DataError, UsageError, did_you_mean

KINDS = ("auto", "random", "stratified", "group", "time", "hash", "column")
GIVEN_NAMES = {
    "train": "train", "training": "train", "fit": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
FOLD_AS = ("test", "val")
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class SplitPlan:
    """The `data.split` node: fractions `val` and `test` of all rows, `column` for group, time, hash and column."""

    kind: str = "auto"
    val: float = 0.15
    test: float = 0.15
    column: str | None = None
    folds: int | None = None
    fold: int | None = None
    fold_as: str = "test"

    @property
    def folded(self) -> str | None:
        """The split that is a fold, or None without folds."""
        return self.fold_as if self.folds else None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SplitPlan:
        """UsageError for unknown keys and for values that cannot be a split."""
        for key in config:
            if key not in cls.__dataclass_fields__:
                near = did_you_mean(key, cls.__dataclass_fields__) or f"; have: {', '.join(cls.__dataclass_fields__)}"
                raise UsageError(f"unknown key `data.split.{key}`{near}")
        plan = cls(**config)
        plan._check()
        return plan

    def _check(self) -> None:
        if self.kind not in KINDS:
            near = did_you_mean(str(self.kind), KINDS)
            raise UsageError(f"no `data.split.kind` {self.kind!r}; have: {', '.join(KINDS)}{near}")
        for name, value in (("val", self.val), ("test", self.test)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise UsageError(f"`data.split.{name}` must be a fraction between 0 and 1, got {value!r}")
        if self.val + self.test >= 1:
            raise UsageError(
                f"`data.split.val` {self.val} and `data.split.test` {self.test} sum to {self.val + self.test:g}; "
                "their sum must be below 1, the rest is train"
            )
        if self.kind in ("group", "time", "hash", "column") and self.column is None:
            raise UsageError(f"`data.split.kind={self.kind}` needs `data.split.column`, the column to split by")
        self._check_folds()

    def _check_folds(self) -> None:
        if self.fold_as not in FOLD_AS:
            near = did_you_mean(str(self.fold_as), FOLD_AS)
            raise UsageError(f"`data.split.fold_as` must be {' or '.join(FOLD_AS)}, got {self.fold_as!r}{near}")
        if (self.folds is None) != (self.fold is None):
            raise UsageError("`data.split.folds` and `data.split.fold` go together, such as folds=5 and fold=0")
        if self.folds is None or self.fold is None:
            return
        if not isinstance(self.folds, int) or self.folds < 2:
            raise UsageError(f"`data.split.folds` must be a whole number of 2 or more, got {self.folds!r}")
        if not isinstance(self.fold, int) or not 0 <= self.fold < self.folds:
            raise UsageError(f"`data.split.fold` must be 0 to {self.folds - 1}, got {self.fold!r}")
        if self.kind == "time" or (self.kind == "column" and self.fold_as == "test"):
            raise UsageError(f"`data.split.kind={self.kind}` cannot be folded; use random, stratified, group or hash")


def split_rows(
    plan: SplitPlan,
    num_rows: int,
    seed: int,
    labels: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    given: frozenset[str] = frozenset(),
    classes: tuple[str, ...] = (),
) -> Rows:
    """Row numbers (int64, ascending) of train, val and test.

    labels [num_rows] class indices (None for a number); keys [num_rows] values of `plan.column`; splits in `given`
    have their own file and get no rows here. UsageError for a split of 0 rows, DataError for one of 1 row."""
    everything = np.arange(num_rows, dtype=np.int64)
    wanted = [name for name in ("test", "val") if name not in given or name == plan.folded]
    parts: Rows = {}
    if plan.kind == "column":
        assert keys is not None
        parts, everything = _given_rows(plan, keys)
        wanted = [name for name in wanted if name not in parts or name == plan.folded]
    if labels is not None and plan.kind in ("auto", "stratified"):
        _check_class_sizes(labels[everything], classes, need=1 + len(wanted))
    rest = everything
    fractions = {"test": plan.test, "val": plan.val}
    for step, name in enumerate(wanted):
        generator = np.random.default_rng([seed, step])
        if name == plan.folded:
            rest = np.union1d(rest, parts.pop(name, rest[:0]))  # rows that a column names val are folded too
            taken = _fold_rows(plan, rest, generator, labels, keys, seed)
        else:
            of_all = plan.folded != "test" and plan.kind != "column"
            share = fractions[name] * (num_rows / len(rest) if of_all else 1.0)
            taken = _take(plan, rest, name, share, generator, labels, keys, seed)
        parts[name], rest = rest[taken], rest[~taken]
    parts["train"] = rest
    check_sizes(parts, num_rows)
    return parts


def check_sizes(parts: Mapping[str, np.ndarray], num_rows: int) -> None:
    """UsageError for an empty split, DataError for one of a single row."""
    for name in ("val", "test", "train"):
        if name in parts and len(parts[name]) == 0:
            raise UsageError(
                f"the split gives {name} 0 of {num_rows} rows; change `data.split.val` and `data.split.test`, "
                "or bring more rows"
            )
    for name in ("val", "test", "train"):
        if name in parts and len(parts[name]) == 1:
            raise DataError(
                f"split `{name}` has 1 row of {num_rows}; it needs 2 or more: bring more rows or change `data.split`"
            )


def _take(
    plan: SplitPlan,
    rows: np.ndarray,
    name: str,
    share: float,
    generator: np.random.Generator,
    labels: np.ndarray | None,
    keys: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """A mask over `rows` that takes `share` of them."""
    count = round(share * len(rows))
    mask = np.zeros(len(rows), dtype=bool)
    if plan.kind == "time" and keys is not None:
        mask[np.argsort(keys[rows], kind="stable")[len(rows) - count :]] = True
    elif plan.kind == "group" and keys is not None:
        _, group = np.unique(keys[rows], return_inverse=True)
        order = generator.permutation(group.max() + 1)
        sizes = np.bincount(group)[order]
        middle = np.cumsum(sizes) - sizes / 2
        mask = np.isin(group, order[: max(1, int((middle <= share * len(rows)).sum()))])
    elif plan.kind == "hash" and keys is not None:  # no count enters: a row stays where it is when rows are added
        if name == "test":
            return np.asarray(hash_fractions(keys[rows], str(seed)) < plan.test)
        if plan.folded == "test":
            return np.asarray(hash_fractions(keys[rows], f"{seed}/val") < plan.val)
        return np.asarray(hash_fractions(keys[rows], str(seed)) >= 1 - plan.val)
    elif labels is not None and plan.kind in ("auto", "stratified"):
        order = generator.permutation(len(rows))
        order = order[np.argsort(labels[rows][order], kind="stable")]
        steps = np.floor(np.arange(len(rows) + 1) * count / len(rows) + 0.5)
        mask[order[np.diff(steps) > 0]] = True  # every n-th row of the rows sorted by class
    else:
        mask[generator.permutation(len(rows))[:count]] = True
    return mask


def _fold_rows(
    plan: SplitPlan,
    rows: np.ndarray,
    generator: np.random.Generator,
    labels: np.ndarray | None,
    keys: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """A mask over `rows`: those of fold `plan.fold`; the folds of one seed share no row and cover all."""
    folds = plan.folds or 1
    if plan.kind == "hash" and keys is not None:
        salt = str(seed) if plan.fold_as == "test" else f"{seed}/val"  # what decided test must not decide the fold
        return np.asarray((hash_fractions(keys[rows], salt) * folds).astype(int) == plan.fold)
    order = generator.permutation(len(rows))
    if plan.kind == "group" and keys is not None:
        _, group = np.unique(keys[rows], return_inverse=True)
        sizes = np.bincount(group)
        if len(sizes) < folds:
            raise DataError(f"column `{plan.column}` has {len(sizes)} groups, too few for {folds} folds")
        fold_of_group, load = np.zeros(len(sizes), dtype=int), np.zeros(folds)
        shuffled = generator.permutation(len(sizes))
        for index in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            fold_of_group[index] = load.argmin()
            load[fold_of_group[index]] += sizes[index]
        return np.asarray(fold_of_group[group] == plan.fold)
    if labels is not None and plan.kind in ("auto", "stratified"):
        order = order[np.argsort(labels[rows][order], kind="stable")]
    mask = np.zeros(len(rows), dtype=bool)
    mask[order[plan.fold :: folds]] = True
    return mask


def hash_fractions(keys: np.ndarray, salt: str) -> np.ndarray:
    """A number in [0, 1) for each key, from a cryptographic hash of its text: the same on every machine."""
    values, inverse = np.unique(keys, return_inverse=True)
    digests = (hashlib.blake2b(f"{salt}:{value}".encode(), digest_size=8).digest() for value in values)
    return np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])[inverse]


def _given_rows(plan: SplitPlan, keys: np.ndarray) -> tuple[Rows, np.ndarray]:
    """Rows of val and test named by the column, and the rows of train; others are left out."""
    names = np.array([GIVEN_NAMES.get(str(key).strip().lower(), "") for key in keys])
    rows = {name: np.flatnonzero(names == name).astype(np.int64) for name in ("train", "val", "test")}
    if not len(rows["train"]):
        seen = ", ".join(sorted({str(key) for key in keys})[:5])
        raise DataError(
            f"column `{plan.column}` names no row `train`; it holds: {seen}; it must hold train, val and test"
        )
    return {name: rows[name] for name in ("val", "test") if len(rows[name])}, rows["train"]


def _check_class_sizes(labels: np.ndarray, classes: tuple[str, ...], need: int) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    for index in np.flatnonzero((counts > 0) & (counts < need)):
        name, count = classes[index] if classes else str(index), counts[index]
        raise DataError(
            f"class '{name}' has {count} row{'s' * int(count != 1)}; a stratified split needs {need} of each class: "
            "remove it, merge it with another, or set `data.split.kind=random`"
        )
