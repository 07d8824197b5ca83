"""Texts in a column of a CSV, TSV or Parquet file, to rows of token ids.

A token is a run of letters, digits and underscores, with the apostrophes inside it (`don't`), or one other character
that is no blank; all in lower case. The vocabulary is that of train; 0 is padding, 1 any token that is not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainctl.data import target as targets
from trainctl.data.base import Chunk, Data, Split, read_json, write_json
from trainctl.data.columns import as_text, split_keys
from trainctl.data.quality import warnings_of
from trainctl.data.reading import Source
from trainctl.data.spec import DataSpec, listed
from trainctl.data.splits import SplitPlan, check_sizes, split_rows
from trainctl.data.table import Table, locate
from trainctl.errors import DataError, UsageError, did_you_mean

TOKEN = r"\w+(?:['’]\w+)*|[^\w\s]"
UNKNOWN, FIRST = 1, 2  # ids; 0 is padding
AUTO_SHARE = 0.99  # of the texts of train that `sequence_length: auto` takes whole


class Text(Data):
    """One text a row, in `column`, and a class or a number to predict, in `target`.

    path, val_path, test_path: files (relative ones are looked for below `root` first); origin: where a named data set
    comes from. min_count: how often a token must occur in train to be known. max_tokens: the most frequent ones that
    are known at most. sequence_length: tokens of a row, or auto: enough for 99 % of train; the rest is cut off.
    """

    def __init__(
        self,
        path: str | None = None,
        column: str = "text",
        target: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        root: str | None = None,
        origin: str | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        target_kind: str = "auto",
        missing_target: str = "error",
        min_count: int = 2,
        max_tokens: int = 20_000,
        sequence_length: int | str = "auto",
        split: dict[str, Any] | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, split, seed)
        if path is None:
            raise UsageError(
                "`data=text` needs a table with a column of texts; "
                "add `data.path=FILE data.column=COLUMN data.target=COLUMN`"
            )
        if missing_target not in ("error", "drop"):
            raise UsageError(f"`data.missing_target` is {missing_target!r}; it must be error or drop")
        lengths = {} if sequence_length == "auto" else {"sequence_length": sequence_length}
        for key, value in {"min_count": min_count, "max_tokens": max_tokens, **lengths}.items():
            if type(value) is not int or value < 1:
                auto = " or auto" if key == "sequence_length" else ""
                raise UsageError(f"`data.{key}` is {value!r}; it must be a whole number of 1 or more{auto}")
        self.paths = {"main": path, "val": val_path, "test": test_path}
        self.text_column, self.target, self.target_kind = column, target, target_kind
        self._wanted_target, self._new_target = target, True
        self.root, self.origin, self.delimiter, self.encoding = root, origin, delimiter, encoding
        self.missing_target, self.min_count, self.max_tokens = missing_target, min_count, max_tokens
        self.sequence_length = sequence_length
        self.plan = SplitPlan.from_config(self.split_config)
        self.vocabulary: list[str] = []
        self._texts: dict[str, Tensor] = {}
        self._checked = False

    # -- reading --------------------------------------------------------------------------------------------------

    def load(self) -> dict[str, Split]:
        """Read the files, divide the rows, fit the vocabulary on train."""
        given = frozenset(name for name in ("val", "test") if self.paths[name] is not None)
        if self.plan.folded in given:
            name = self.plan.folded
            self.warnings.append(f"`{self.paths[name]}` is not used: fold {self.plan.fold} is the {name} split")
            given -= {name}
        if self.fine_tuned:
            self._new_target = self._wanted_target not in (None, self.spec.target_name)
            self.target = self._wanted_target if self._new_target else self.target
        tables = {name: self._read(name) for name in ("main", *sorted(given))}
        y = self._targets(tables)
        rows = self._rows(tables, y, given)
        tokens = {name: tokenize(table.frame.get_column(self.text_column)) for name, table in tables.items()}
        if not self.restored:
            self._fit(tokens["main"].gather(rows["train"]))
        if self._new_target and self.spec.target == "number":
            train = y["main"][torch.from_numpy(rows["train"])].double()
            deviation = float(train.std(correction=0))
            self.spec = dataclasses.replace(self.spec, target_mean=float(train.mean()), target_std=deviation or 1.0)
        splits = {}
        for name, taken in rows.items():
            home = name if name in given else "main"
            x = self.encode(tokens[home].gather(taken))
            splits[name] = Split(x, y[home][torch.from_numpy(taken)], tables[home].rows[taken])
            self._texts[name] = fingerprints(tokens[home].gather(taken))
        return splits

    def _rows(
        self, tables: Mapping[str, Table], y: Mapping[str, Tensor], given: frozenset[str]
    ) -> dict[str, np.ndarray]:
        """The rows of each split: of its own file, or of the main one."""
        main, keys = tables["main"], None
        if self.plan.column is not None:
            keys = split_keys(main.frame, self.plan.column, self.plan.kind == "time", main.source.name, main.where)
        classes = self.spec.classes
        labels = y["main"].numpy() if self.spec.target == "class" else None
        rows = split_rows(self.plan, len(main.rows), self.seed, labels, keys, given, classes)
        rows |= {name: np.arange(len(tables[name].rows)) for name in given}
        check_sizes(rows, len(main.rows))
        return {name: rows[name] for name in ("train", "val", "test")}

    def _read(self, name: str) -> Table:
        source = self._source(locate(str(self.paths[name]), self.root, self.origin))
        if self.target is None:
            raise UsageError(
                f"`data.target` is not set: name the column to predict; `{source.name}` has: {listed(source.header)}"
            )
        for key in (self.text_column, self.target):
            require(source, key)
        columns = {self.text_column: 0, self.target: 0}
        if name == "main" and self.plan.column in source.header:
            columns[self.plan.column] = 0
        frame = source.read(text=[self.text_column, self.target], columns=list(columns))
        return Table.of(source, frame).with_target(self.target, self.missing_target)

    def _targets(self, tables: Mapping[str, Table]) -> dict[str, Tensor]:
        """y of every file; decides what the target is unless a restored spec says it."""
        assert self.target is not None  # checked by _read
        series = {key: table.frame.get_column(self.target) for key, table in tables.items()}
        if self._new_target:
            kind = targets.target_kind(series["main"], self.target_kind)
            classes = targets.find_classes([*series.values()]) if kind == "class" else ()
            before = self.spec if self.restored else DataSpec(kind="sequence", target=kind)
            self.spec = dataclasses.replace(before, target=kind, target_name=self.target, classes=classes)
        elif self.fine_tuned and self.spec.target == "class":
            self.classes_for(targets.find_classes([*series.values()]), tables["main"].source.name)
        return {key: self._y(table) for key, table in tables.items()}

    def _y(self, table: Table) -> Tensor:
        series = table.frame.get_column(self.spec.target_name)
        if self.spec.target == "class":
            return targets.class_indices(series, self.spec.classes, table.source.name)
        return targets.numbers(series, table.where)

    def _fit(self, tokens: pl.Series) -> None:
        counts = flat(tokens).value_counts(name="count").filter(pl.col("count") >= self.min_count)
        ordered = counts.sort(["count", "token"], descending=[True, False]).head(self.max_tokens)
        self.vocabulary = ordered.get_column("token").to_list()
        if not self.vocabulary:
            raise DataError(
                f"no token of column `{self.text_column}` occurs {self.min_count} times in train; "
                "check `data.column`, or set `data.min_count=1`"
            )
        length = self.sequence_length
        if not isinstance(length, int):
            longest = tokens.list.len().quantile(AUTO_SHARE, interpolation="higher")
            length = max(1, int(longest or 1))
        self.spec = dataclasses.replace(self.spec, sequence_length=length, num_tokens=FIRST + len(self.vocabulary))

    def encode(self, tokens: pl.Series) -> Tensor:
        """Token ids [N, spec.sequence_length] int64 of lists of tokens."""
        x = torch.zeros((len(tokens), self.spec.sequence_length), dtype=torch.int64)
        kept = tokens.list.head(self.spec.sequence_length)
        lengths = kept.list.len().cast(pl.Int64).to_numpy()
        ids = flat(kept).replace_strict(
            pl.Series(self.vocabulary, dtype=pl.String),
            pl.Series(np.arange(FIRST, FIRST + len(self.vocabulary))),
            default=UNKNOWN,
            return_dtype=pl.Int64,
        )
        rows = np.repeat(np.arange(len(tokens)), lengths)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        x.numpy()[rows, places] = ids.to_numpy()
        return x

    # -- new files ------------------------------------------------------------------------------------------------

    def stream(self, path: Path | str, rows: int = 65536, with_target: bool | None = None) -> Iterator[Chunk]:
        """Chunks of a new file: x, y, row numbers and the raw frame; the text is in the column of the same name."""
        source, start, target = self._source(Path(path)), 0, self.spec.target_name
        require(source, self.text_column)
        if with_target:
            require(source, target, "target column")
        read_target = target in source.header and with_target is not False
        for frame in source.batches(rows):
            table = Table.of(source, frame, start)
            start += len(frame)
            if read_target:
                table = table.with_target(target, self.missing_target)
            x = self.encode(tokenize(table.frame.get_column(self.text_column)))
            yield Chunk(x, self._y(table) if read_target else None, table.rows, table.frame)
        if start == 0:
            raise DataError(f"`{source.name}` has no data rows; it must hold at least one row below its header")

    def column(self, name: str, split: str) -> list[str | None]:
        """Raw values, read from the file again: nothing is kept in memory for it."""
        file = split if split not in ("train", self.plan.folded) and self.paths[split] else "main"
        source = self._source(locate(str(self.paths[file]), self.root, self.origin))
        require(source, name)
        text = [as_text(batch.get_column(name)) for batch in source.batches(65_536)]
        return pl.concat(text).gather(pl.Series(self.split(split).rows)).to_list()

    # -- keeping what was fitted ----------------------------------------------------------------------------------

    def save_fitted(self, folder: Path) -> None:
        """text.json: the vocabulary in the order of its ids."""
        write_json(folder / "text.json", {"vocabulary": self.vocabulary})

    def restore_fitted(self, folder: Path) -> None:
        """Inverse of `save_fitted`."""
        self.vocabulary = [str(token) for token in read_json(folder / "text.json")["vocabulary"]]
        self.target, self._new_target = self.spec.target_name, False

    def describe_source(self) -> dict[str, Any]:
        """Files, target, size of the vocabulary, and lines that say so to the user; rows of test that are in train."""
        if not self._checked:
            # whole texts: rows of ids are equal in all unknown tokens too
            whole = {name: dataclasses.replace(self.split(name), x=x) for name, x in self._texts.items()}
            self.warnings += warnings_of(whole, self.spec)
            self._checked = True
        x, length = self.split("val").x, self.spec.sequence_length
        unknown = int((x == UNKNOWN).sum()) / max(1, int((x != 0).sum()))
        return {
            "files": {name: path for name, path in self.paths.items() if path is not None},
            "target": {"name": self.spec.target_name, "kind": self.spec.target, "classes": list(self.spec.classes)},
            "vocabulary": len(self.vocabulary),
            "sequence_length": length,
            "lines": [
                f"target: {self.spec.target_name}, {self.spec.told_target()}",
                f"text: {self.text_column}, the first {length} tokens; {len(self.vocabulary)} known tokens, "
                f"{unknown:.1%} of val's are others",
            ],
        }

    def _source(self, path: Path) -> Source:
        return Source(path, self.delimiter, self.encoding, missing_values=("",))


def tokenize(texts: pl.Series) -> pl.Series:
    """Lists of lower-case tokens; a missing text has none."""
    if texts.dtype.is_nested():
        raise DataError(f"column `{texts.name}` holds {texts.dtype}, not texts; choose another `data.column`")
    return texts.cast(pl.String).fill_null("").str.to_lowercase().str.extract_all(TOKEN).alias("token")


def fingerprints(tokens: pl.Series) -> Tensor:
    """int64 [N, 1]: equal lists of tokens have equal numbers, others hardly ever."""
    hashed = tokens.list.join(" ").hash(0).reinterpret(signed=True)
    return torch.from_numpy(hashed.to_numpy(writable=True)).unsqueeze(1)


def flat(tokens: pl.Series) -> pl.Series:
    """The tokens of all lists in one row after another."""
    return tokens.filter(tokens.list.len() > 0).explode().cast(pl.String)


def require(source: Source, name: str, what: str = "column") -> None:
    """DataError unless the file has the column."""
    if name not in source.header:
        near = did_you_mean(name, source.header) or f"; it has: {listed(source.header)}"
        raise DataError(f"no {what} `{name}` in `{source.name}`{near}")
