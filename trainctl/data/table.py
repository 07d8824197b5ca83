"""One table file that was read: its frame and which rows of the file are in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from trainctl.data.columns import Column, check_columns, check_finite, typed
from trainctl.data.reading import Source
from trainctl.data.target import check_missing, missing_rows
from trainctl.errors import DataError


@dataclass(frozen=True)
class Table:
    """`rows` [len(frame)] int64 are row numbers of the file."""

    source: Source
    frame: pl.DataFrame
    rows: np.ndarray

    @classmethod
    def of(cls, source: Source, frame: pl.DataFrame, start: int = 0) -> Table:
        """All rows of a frame that begins at row `start` of the file."""
        return cls(source, frame, np.arange(start, start + len(frame), dtype=np.int64))

    def where(self, row: int) -> str:
        """`line 17` of the file for a row of the frame."""
        return self.source.where(int(self.rows[row]))

    def with_target(self, target: str, policy: str) -> Table:
        """The rows that have a target; DataError for the others unless `policy` is drop."""
        missing = missing_rows(self.frame.get_column(target))
        if not missing.any():
            return self
        check_missing(missing, target, policy, self.source.name, self.where)
        return Table(self.source, self.frame.filter(~missing), self.rows[~missing.to_numpy()])

    def typed(self, columns: Sequence[Column], missing: str) -> Table:
        """The features as `columns.typed` gives them; DataError for NaN and infinity when `missing` is error."""
        check_columns(self.frame.columns, columns, self.source.name)
        frame = typed(self.frame, columns, self.where)
        if missing == "error":
            check_finite(frame, self.where)
        return Table(self.source, frame, self.rows)


def locate(path: str, root: str | None, origin: str | None) -> Path:
    """`path` below `root` when it is there, else as given; DataError that says where to get a named data set."""
    below = Path(root, path) if root is not None else Path(path)
    if below.exists() or not origin:
        return below if below.exists() else Path(path)
    if Path(path).exists():
        return Path(path)
    raise DataError(
        f"cannot read `{below}`: no such file; get it from {origin} and put it there, "
        "or point `paths.data` (or TRAINCTL_DATA) to the folder that has it"
    )
