"""Tables: CSV, TSV or Parquet files to one float32 matrix whose splits are views.

Reading is in `reading`, column kinds in `columns`, scaling and codes in `preprocessing`, the target in `target`,
the splits in `splits`; this module puts them in order and remembers what was fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainctl.data import target as targets
from trainctl.data.base import Chunk, Data, Split, read_json, write_json
from trainctl.data.columns import Column, as_text, infer, parse_datetime, to_numbers, typed
from trainctl.data.preprocessing import SCALINGS, Preprocessing
from trainctl.data.quality import warnings_of
from trainctl.data.reading import MISSING_VALUES, Source
from trainctl.data.spec import DataSpec
from trainctl.data.splits import SplitPlan, check_sizes, split_rows
from trainctl.errors import DataError, UsageError, did_you_mean

BUNDLED = Path(__file__).parent.parent / "datasets" / "adult"
FILES = ("main", "val", "test")


@dataclass
class Table:
    """One file that was read: typed features, the target, row numbers in the file."""

    source: Source
    frame: pl.DataFrame
    rows: np.ndarray


class Tabular(Data):
    """A supervised table; without `path` the census income table that comes with the package.

    path, val_path, test_path: files (relative ones are looked for below `root` first); origin: where a named data set
    comes from, for the sentence that says it is missing. columns: kind by name (numeric, categorical, boolean,
    datetime, drop). missing: error or impute, for NaN and infinity. missing_target: error or drop. max_categories:
    texts kept per column. scaling: quantile, standard or none. target_kind: auto, class or number. split: see `splits`.
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
        columns: Mapping[str, str] | None = None,
        target_kind: str = "auto",
        missing: str = "error",
        missing_target: str = "error",
        max_categories: int = 1000,
        scaling: str = "quantile",
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
        self.delimiter, self.encoding, self.missing_values = delimiter, encoding, tuple(missing_values)
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
        if self.plan.folds and "test" in given:
            self.warnings.append(f"`{self.paths['test']}` is not used: the folds of `data.split.folds` are the test rows")
            given -= {"test"}
        raw = {name: self._read(name) for name in FILES if name == "main" or name in given}
        target = self._target_name
        if not self.restored:
            self.columns = infer(raw["main"].frame, self.declared, self._no_features(), self.max_categories)
        y = self._targets(raw)
        keys = None if self.plan.column is None else self._keys(raw["main"])
        classes, labels = self.spec.classes, y["main"].numpy() if self.spec.target == "class" else None
        parts = split_rows(self.plan, len(raw["main"].rows), self.seed, labels, keys, given, classes)
        where = {name: ("main", rows) for name, rows in parts.items()}
        for name in given:
            where[name] = (name, np.arange(len(raw[name].rows)))
        check_sizes({name: rows for name, (_, rows) in where.items()}, len(raw["main"].rows))
        tables = {name: self._typed(table) for name, table in raw.items()}
        del raw
        if not self.restored:
            self._fit(tables["main"].frame, parts["train"], y["main"], target)
        return self._fill(tables, y, where)

    def _read(self, name: str) -> Table:
        source = self._source(self._locate(str(self.paths[name])))
        target = self._target_name_in(source)
        text = [c for c, kind in self.declared.items() if kind == "categorical"]
        text += [c.name for c in self.columns if c.kind == "categorical"]
        frame = source.read(text=text)
        frame, rows = targets.drop_missing(frame, target, self.missing_target, source.name, source.where)
        return Table(source, frame, rows)

    def _typed(self, table: Table) -> Table:
        self._check_columns(table.frame.columns, table.source.name)
        frame = typed(table.frame, self.columns, lambda row: table.source.where(int(table.rows[row])))
        self._check_finite(frame, table.source, table.rows)
        return Table(table.source, frame, table.rows)

    def _targets(self, raw: Mapping[str, Table]) -> dict[str, Tensor]:
        """y of every file; unless restored, decides what the target is and starts the spec."""
        name = self._target_name
        series = {key: table.frame.get_column(name) for key, table in raw.items()}
        if not self.restored:
            kind = targets.target_kind(series["main"], self.target_kind)
            classes = targets.find_classes([*series.values()]) if kind == "class" else ()
            self.spec = DataSpec(kind="table", target=kind, target_name=name, classes=classes)
        return {key: self._y(series[key], table.source, table.rows) for key, table in raw.items()}

    def _y(self, series: pl.Series, source: Source, rows: np.ndarray) -> Tensor:
        if self.spec.target == "class":
            return targets.class_indices(series, self.spec.classes, source.name)
        return targets.numbers(series, lambda row: source.where(int(rows[row])))

    def _fit(self, frame: pl.DataFrame, rows: np.ndarray, y: Tensor, target: str) -> None:
        fitted = Preprocessing.fit(frame, self.columns, rows, self.scaling, self.max_categories)
        self.preprocessing = fitted
        numbers = y[torch.from_numpy(rows)].double() if self.spec.target == "number" else None
        deviation = 1.0 if numbers is None else float(numbers.std(correction=0))
        self.spec = DataSpec(
            kind="table",
            target=self.spec.target,
            target_name=target,
            classes=self.spec.classes,
            numeric=fitted.numeric,
            categories=fitted.categories,
            target_mean=0.0 if numbers is None else float(numbers.mean()),
            target_std=deviation if deviation > 0 else 1.0,
        )

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
            for first, block in self.preprocessing.blocks(table.frame):
                there = place[first : first + len(block)]
                x.numpy()[there[there >= 0]] = block[there >= 0]
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
        self._check_columns(names, source.name)
        known = {column.name for column in self.columns}
        unknown = [name for name in names if name not in known]
        if unknown:
            self.warnings.append(f"`{source.name}` has columns that training did not see, left out: {', '.join(unknown)}")
        target = self._target_name
        if with_target and target not in names:
            raise DataError(f"`{source.name}` has no target column `{target}`{did_you_mean(target, names)}")
        read_target = target in names and with_target is not False
        start = 0
        for frame in source.batches(rows):
            at = np.arange(start, start + len(frame), dtype=np.int64)
            start += len(frame)
            if read_target:

                def line(row: int, at: np.ndarray = at) -> str:
                    return source.where(int(at[row]))

                frame, kept = targets.drop_missing(frame, target, self.missing_target, source.name, line)
                at = at[kept]
            table = self._typed(Table(source, frame, at))
            assert self.preprocessing is not None
            x = torch.from_numpy(self.preprocessing.transform(table.frame))
            yield Chunk(x, self._y(frame.get_column(target), source, at) if read_target else None, at, frame)
        if start == 0:
            raise DataError(f"`{source.name}` has no data rows; it must hold at least one row below its header")

    def column(self, name: str, split: str) -> list[str | None]:
        """Raw values, read from the file again: nothing is kept in memory for it."""
        rows = self.split(split).rows
        file = split if split != "train" and self.paths[split] and not (self.plan.folds and split == "test") else "main"
        source = self._source(self._locate(str(self.paths[file])))
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
        self.target = self.spec.target_name

    def describe_source(self) -> dict[str, Any]:
        """Files, target, the kind of each column and why, dropped columns; what `quality` finds joins the warnings."""
        if not self._checked:
            self.warnings += warnings_of({name: self.split(name) for name in ("train", "val", "test")}, self.spec)
            self._checked = True
        return {
            "files": {name: path for name, path in self.paths.items() if path is not None},
            "target": {"name": self.spec.target_name, "kind": self.spec.target, "classes": list(self.spec.classes)},
            "columns": [column.to_dict() for column in self.columns],
            "dropped": {c.name: c.why for c in self.columns if c.kind == "drop" and c.name != self.spec.target_name},
        }

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def _target_name(self) -> str:
        assert self.target is not None  # _read has checked it
        return self.target

    def _target_name_in(self, source: Source) -> str:
        names = source.header
        if self.target is None:
            raise UsageError(f"`data.target` is not set: name the column to predict; `{source.name}` has: {_listed(names)}")
        if self.target not in names:
            near = did_you_mean(self.target, names) or f"; it has: {_listed(names)}"
            raise DataError(f"no column `{self.target}` in `{source.name}`{near}")
        return self.target

    def _source(self, path: Path) -> Source:
        return Source(path, self.delimiter, self.encoding, self.missing_values)

    def _locate(self, path: str) -> Path:
        """Below `root` when it is there, else as given; for a named data set, where to get it."""
        below = Path(self.root, path) if self.root is not None else Path(path)
        if below.exists() or not self.origin or Path(path).exists():
            return below if below.exists() else Path(path)
        raise DataError(
            f"cannot read `{below}`: no such file; get it from {self.origin} and put it there, "
            "or point `paths.data` (or TRAINCTL_DATA) to the folder that has it"
        )

    def _no_features(self) -> dict[str, str]:
        skip = {self._target_name: "the target"}
        if self.plan.column is not None and self.plan.kind in ("group", "hash", "column"):
            skip.setdefault(self.plan.column, "used by data.split")
        return skip

    def _keys(self, table: Table) -> np.ndarray:
        name = str(self.plan.column)
        if name not in table.frame.columns:
            near = did_you_mean(name, table.frame.columns)
            raise UsageError(f"`data.split.column` is `{name}`, which is no column of `{table.source.name}`{near}")
        series = table.frame.get_column(name)
        if series.null_count():
            line = table.source.where(int(table.rows[series.is_null().arg_true()[0]]))
            raise DataError(f"split column `{name}` has {series.null_count()} missing values (first: {line})")
        if self.plan.kind != "time":
            return as_text(series).to_numpy()
        if series.dtype == pl.String:
            parsed = parse_datetime(series)
            series = parsed[0] if parsed else to_numbers(series)
            if series.null_count():
                raise DataError(f"split column `{name}` holds neither numbers nor dates that can be ordered")
        return series.to_physical().to_numpy()

    def _check_columns(self, names: Sequence[str], file: str) -> None:
        missing = [column.name for column in self.columns if column.kind != "drop" and column.name not in names]
        if missing:
            listed = ", ".join(f"`{name}`" for name in missing)
            raise DataError(f"`{file}` has no column {listed}, which training used{did_you_mean(missing[0], names)}")

    def _check_finite(self, frame: pl.DataFrame, source: Source, rows: np.ndarray) -> None:
        if self.missing == "impute":
            return
        for series in frame.iter_columns():
            bad = (~series.is_finite()).fill_null(False) if series.dtype.is_float() else None
            if bad is not None and bad.any():
                count, first = int(bad.sum()), source.where(int(rows[int(bad.arg_true()[0])]))
                raise DataError(
                    f"column `{series.name}` has {count} non-finite value{'s' * (count != 1)} ({first}); "
                    "set `data.missing=impute` to treat NaN and infinity as missing"
                )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
