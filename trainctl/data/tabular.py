"""Tables: CSV, TSV or Parquet files to one float32 matrix whose splits are views.

Reading is in `reading`, column kinds in `columns`, scaling and codes in `preprocessing`, the target in `target`,
the splits in `splits`; this module puts them in order and remembers what was fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainctl.data import target as targets
from trainctl.data.base import Chunk, Data, Split, read_json, write_json
from trainctl.data.columns import KINDS, Column, as_text, check_columns, infer, split_keys
from trainctl.data.preprocessing import SCALINGS, Preprocessing
from trainctl.data.quality import warnings_of
from trainctl.data.reading import MISSING_VALUES, Source
from trainctl.data.spec import DataSpec, listed
from trainctl.data.splits import SplitPlan, check_sizes, split_rows
from trainctl.data.table import Table, locate
from trainctl.errors import DataError, UsageError, did_you_mean

BUNDLED = Path(__file__).parent.parent / "datasets" / "adult"


class Tabular(Data):
    """A supervised table; without `path` the census income table that comes with the package.

    path, val_path, test_path: files (relative ones are looked for below `root` first); origin: where a named data set
    comes from, for the sentence that says it is missing. numbers: plain, english (1,234.5) or european (1.234,5).
    columns: kind by name (numeric, categorical, boolean, datetime, drop). missing: error or impute, for NaN and
    infinity. missing_target: error or drop. max_categories: texts kept per column. scaling: both, quantile, standard
    or none. target_kind: auto, class or number.
    """

    def __init__(
        self,
        path: str | None = None,
        target: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        root: str | None = None,
        origin: str | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        missing_values: Sequence[str] = MISSING_VALUES,
        numbers: str = "plain",
        columns: Mapping[str, str] | None = None,
        target_kind: str = "auto",
        missing: str = "error",
        missing_target: str = "error",
        max_categories: int = 1000,
        scaling: str = "both",
        split: dict[str, Any] | None = None,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, split, seed)
        for key, value, allowed in (
            ("missing", missing, ("error", "impute")),
            ("missing_target", missing_target, ("error", "drop")),
            ("scaling", scaling, SCALINGS),
        ):
            if value not in allowed:
                raise UsageError(f"`data.{key}` is {value!r}; it must be {' or '.join(allowed)}")
        if not isinstance(max_categories, int) or max_categories < 1:
            raise UsageError(f"`data.max_categories` is {max_categories!r}; it must be a whole number of 1 or more")
        if path is None:
            path, target = str(BUNDLED / "adult_train.csv.gz"), target or "income"
            test_path = test_path or str(BUNDLED / "adult_test.csv.gz")
        self.paths = {"main": path, "val": val_path, "test": test_path}
        self.target, self.target_kind, self.root, self.origin = target, target_kind, root, origin
        self._wanted_target, self._new_target = target, True
        self.delimiter, self.encoding, self.missing_values = delimiter, encoding, tuple(missing_values)
        self.numbers = numbers
        self.declared, self.missing, self.missing_target = dict(columns or {}), missing, missing_target
        self.max_categories, self.scaling = max_categories, scaling
        self.plan = SplitPlan.from_config(self.split_config)
        self.columns: list[Column] = []
        self.preprocessing: Preprocessing | None = None
        self._checked = False

    # -- reading --------------------------------------------------------------------------------------------------

    def load(self) -> dict[str, Split]:
        """Read the files, divide the rows, fit on train, and fill one matrix in the order train, val, test."""
        given = frozenset(name for name in ("val", "test") if self.paths[name] is not None)
        if self.plan.folded in given:
            name = self.plan.folded
            self.warnings.append(f"`{self.paths[name]}` is not used: fold {self.plan.fold} is the {name} split")
            given -= {name}
        if self.fine_tuned:
            self._retarget()
        raw = {"main": self._read("main")}
        if not self.restored:
            self.columns = infer(raw["main"].frame, self.declared, self._no_features(), self.max_categories)
        raw |= {name: self._read(name) for name in sorted(given)}
        y = self._targets(raw)
        keys = None
        if self.plan.column is not None:
            main = raw["main"]
            keys = split_keys(main.frame, self.plan.column, self.plan.kind == "time", main.source.name, main.where)
        classes, labels = self.spec.classes, y["main"].numpy() if self.spec.target == "class" else None
        parts = split_rows(self.plan, len(raw["main"].rows), self.seed, labels, keys, given, classes)
        where = {name: ("main", rows) for name, rows in parts.items()}
        for name in given:
            where[name] = (name, np.arange(len(raw[name].rows)))
        check_sizes({name: rows for name, (_, rows) in where.items()}, len(raw["main"].rows))
        tables = {name: table.typed(self.columns, self.missing) for name, table in raw.items()}
        del raw
        if not self.restored:
            self._fit(tables["main"].frame, parts["train"])
        if self._new_target and self.spec.target == "number":
            self._fit_scale(y["main"][torch.from_numpy(parts["train"])].double())
        return self._fill(tables, y, where)

    def _read(self, name: str) -> Table:
        source = self._source(locate(str(self.paths[name]), self.root, self.origin))
        self._check_target(source)
        text = [c for c, kind in self.declared.items() if kind == "categorical"]
        text += [c.name for c in self.columns if c.kind == "categorical"]
        frame = source.read(text=[*text, self._target_name])
        return Table.of(source, frame).with_target(self._target_name, self.missing_target)

    def _targets(self, raw: Mapping[str, Table]) -> dict[str, Tensor]:
        """y of every file; decides what the target is unless a restored spec says it."""
        name = self._target_name
        series = {key: table.frame.get_column(name) for key, table in raw.items()}
        if self._new_target:
            kind = targets.target_kind(series["main"], self.target_kind)
            classes = targets.find_classes([*series.values()]) if kind == "class" else ()
            before = self.spec if self.restored else DataSpec(kind="table", target=kind)
            self.spec = dataclasses.replace(before, target=kind, target_name=name, classes=classes)
        elif self.fine_tuned and self.spec.target == "class":
            self.classes_for(targets.find_classes([*series.values()]), raw["main"].source.name)
        return {key: self._y(table) for key, table in raw.items()}

    def _y(self, table: Table) -> Tensor:
        series = table.frame.get_column(self._target_name)
        if self.spec.target == "class":
            return targets.class_indices(series, self.spec.classes, table.source.name)
        return targets.numbers(series, table.where)

    def _retarget(self) -> None:
        """A fine-tuned run may learn another target of the same columns."""
        self._new_target = self._wanted_target not in (None, self.spec.target_name)
        if not self._new_target:
            return
        self.target = self._wanted_target
        if any(column.name == self.target and column.kind != "drop" for column in self.columns):
            raise UsageError(
                f"`data.target={self.target}` is a column that the source run learned from; train without `--from`"
            )

    def _fit(self, frame: pl.DataFrame, rows: np.ndarray) -> None:
        fitted = Preprocessing.fit(frame, self.columns, rows, self.scaling, self.max_categories)
        self.preprocessing = fitted
        self.spec = dataclasses.replace(self.spec, numeric=fitted.numeric, categories=fitted.categories)

    def _fit_scale(self, numbers: Tensor) -> None:
        deviation = float(numbers.std(correction=0))
        mean = float(numbers.mean())
        self.spec = dataclasses.replace(self.spec, target_mean=mean, target_std=deviation if deviation > 0 else 1.0)

    def _fill(
        self, tables: dict[str, Table], y: Mapping[str, Tensor], where: Mapping[str, tuple[str, np.ndarray]]
    ) -> dict[str, Split]:
        assert self.preprocessing is not None
        total = sum(len(rows) for _, rows in where.values())
        x = torch.empty((total, self.preprocessing.width), dtype=torch.float32)
        target, numbers = torch.empty(total, dtype=y["main"].dtype), np.empty(total, dtype=np.int64)
        bounds, start = {}, 0
        for name in ("train", "val", "test"):
            bounds[name] = slice(start, start := start + len(where[name][1]))
        for key in list(tables):
            table = tables.pop(key)
            place = np.full(len(table.rows), -1, dtype=np.int64)  # row of the file -> row of x
            for name, (home, rows) in where.items():
                if home == key:
                    place[rows] = np.arange(bounds[name].start, bounds[name].stop)
            self.preprocessing.fill_matrix(table.frame, x.numpy(), place)
            used = place >= 0
            target[torch.from_numpy(place[used])] = y[key][torch.from_numpy(used)]
            numbers[place[used]] = table.rows[used]
        return {name: Split(x[part], target[part], numbers[part]) for name, part in bounds.items()}

    # -- new files ------------------------------------------------------------------------------------------------

    def stream(self, path: Path | str, rows: int = 65536, with_target: bool | None = None) -> Iterator[Chunk]:
        """Chunks of a new file: x, y, row numbers and the raw frame. Columns are found by name.

        with_target: False never reads the target, True demands it, None takes it when the column is there.
        Unknown columns become a warning, a missing one a DataError."""
        source = self._source(Path(path))
        names = source.header
        check_columns(names, self.columns, source.name)
        known = {column.name for column in self.columns}
        unknown = [name for name in names if name not in known]
        if unknown:
            self.warnings.append(f"columns of `{source.name}` that training did not see: {', '.join(unknown)}")
        target = self._target_name
        if with_target and target not in names:
            raise DataError(f"`{source.name}` has no target column `{target}`{did_you_mean(target, names)}")
        read_target = target in names and with_target is not False
        start = 0
        for frame in source.batches(rows):
            table = Table.of(source, frame, start)
            start += len(frame)
            if read_target:
                table = table.with_target(target, self.missing_target)
            assert self.preprocessing is not None
            x = torch.from_numpy(self.preprocessing.transform(table.typed(self.columns, self.missing).frame))
            yield Chunk(x, self._y(table) if read_target else None, table.rows, table.frame)
        if start == 0:
            raise DataError(f"`{source.name}` has no data rows; it must hold at least one row below its header")

    def column(self, name: str, split: str) -> list[str | None]:
        """Raw values, read from the file again: nothing is kept in memory for it."""
        rows = self.split(split).rows
        file = split if split not in ("train", self.plan.folded) and self.paths[split] else "main"
        source = self._source(locate(str(self.paths[file]), self.root, self.origin))
        if name not in source.header:
            raise DataError(f"no column `{name}` in `{source.name}`{did_you_mean(name, source.header)}")
        text = [as_text(batch.get_column(name)) for batch in source.batches(65_536)]
        return pl.concat(text).gather(pl.Series(rows)).to_list()

    # -- keeping what was fitted ----------------------------------------------------------------------------------

    def save_fitted(self, folder: Path) -> None:
        """table.json and scaling.safetensors."""
        assert self.preprocessing is not None
        fitted = self.preprocessing.save(folder)
        write_json(folder / "table.json", {"columns": [c.to_dict() for c in self.columns], "preprocessing": fitted})

    def restore_fitted(self, folder: Path) -> None:
        """Inverse of `save_fitted`."""
        values = read_json(folder / "table.json")
        self.columns = [Column(**column) for column in values["columns"]]
        self.preprocessing = Preprocessing.load(folder, values["preprocessing"])
        self.target, self._new_target = self.spec.target_name, False

    def describe_source(self) -> dict[str, Any]:
        """Files, target, the kind of each column and why, dropped columns, and lines that say so to the user.

        What `quality` finds joins the warnings."""
        if not self._checked:
            self.warnings += warnings_of({name: self.split(name) for name in ("train", "val", "test")}, self.spec)
            self._checked = True
        kept = {kind: [c.name for c in self.columns if c.kind == kind] for kind in KINDS if kind != "drop"}
        dropped = {c.name: c.why for c in self.columns if c.kind == "drop" and c.name != self.spec.target_name}
        return {
            "files": {name: path for name, path in self.paths.items() if path is not None},
            "target": {"name": self.spec.target_name, "kind": self.spec.target, "classes": list(self.spec.classes)},
            "columns": [column.to_dict() for column in self.columns],
            "dropped": dropped,
            "lines": [
                f"target: {self.spec.target_name}, {self.spec.told_target()}",
                *(f"{kind}: {listed(names)}" for kind, names in kept.items() if names),
                *(f"`{name}` is left out: {why}" for name, why in dropped.items()),
            ],
        }

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def _target_name(self) -> str:
        assert self.target is not None  # checked by _read
        return self.target

    def _check_target(self, source: Source) -> None:
        names = source.header
        if self.target is None:
            raise UsageError(
                f"`data.target` is not set: name the column to predict; `{source.name}` has: {listed(names)}"
            )
        if self.target not in names:
            near = did_you_mean(self.target, names) or f"; it has: {listed(names)}"
            raise DataError(f"no column `{self.target}` in `{source.name}`{near}")

    def _source(self, path: Path) -> Source:
        return Source(path, self.delimiter, self.encoding, self.missing_values, self.numbers)

    def _no_features(self) -> dict[str, str]:
        skip = {self._target_name: "the target"}
        if self.plan.column is not None and self.plan.kind in ("group", "hash", "column"):
            skip.setdefault(self.plan.column, "used by data.split")
        return skip
