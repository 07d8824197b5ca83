"""Predictions piece by piece to a .csv, .parquet or .jsonl file that appears whole or not at all.

Memory does not grow with the number of rows. Text in a CSV cannot become a formula when a spreadsheet opens it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from trainctl.errors import DataError, UsageError
from trainctl.run import files

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".parquet", ".jsonl")
_FORMULA = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def check(source: Path, path: Path | None, force: bool = False) -> None:
    """Before anything is made: DataError when there is no `source`, UsageError when `path` cannot take predictions."""
    if not source.exists():
        raise DataError(f"cannot read `{files.shown(source)}`: no such file or folder")
    if path is None:
        return
    files.check_name(path)
    shown = files.shown(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"cannot write `{shown}`: predictions are .csv, .parquet or .jsonl; e.g. `-o {path.stem}.csv`")
    if path.is_dir():
        raise UsageError(f"cannot write `{shown}`: it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write `{shown}`: there is no directory `{files.shown(path.parent)}`")
    if path.exists():
        if path.samefile(source):
            raise UsageError(f"`{shown}` is the file to predict; name another one with `-o`")
        if not force:
            raise UsageError(f"`{shown}` exists; pass `--force` to replace it")


class PredictionFile:
    """Context manager: `write` frames of equal columns; the file takes its name when the block ends without an error.

    ResourceError when the disk is full or writing is not permitted; nothing is left behind then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._temp = files.temp_path(path)
        self._pieces: list[Path] = []

    def __enter__(self) -> PredictionFile:
        with explained(self.path):
            if self.path.suffix == ".parquet":
                self._temp.mkdir()
            else:
                self._file = open(self._temp, "xb")  # noqa: SIM115
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`."""
        with explained(self.path):
            if self.path.suffix == ".csv":
                harmless(frame).write_csv(self._file, include_header=not self.rows)
            elif self.path.suffix == ".jsonl":
                frame.write_ndjson(self._file)
            else:
                self._pieces.append(self._temp / f"{len(self._pieces):09}.parquet")
                frame.write_parquet(self._pieces[-1], compression="zstd")
        self.rows += len(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with explained(self.path):
                if self.path.suffix != ".parquet":
                    if kind is None:
                        self._file.flush()
                        os.fsync(self._file.fileno())
                    self._file.close()
                if kind is None:
                    os.replace(self._whole(), self.path)
                    files.sync_directory(self.path.parent)
        finally:
            self._remove()

    def _whole(self) -> Path:
        """The temporary file that holds every row: pieces of Parquet are joined, streaming."""
        if self.path.suffix != ".parquet":
            return self._temp
        if len(self._pieces) > 1:
            import polars as pl

            joined = self._temp / "all.parquet"
            pl.scan_parquet(self._pieces).sink_parquet(joined, compression="zstd")
            return joined
        return self._pieces[0]

    def _remove(self) -> None:
        shutil.rmtree(self._temp, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._temp.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns a failed write of `path` inside the block into a ResourceError."""
    try:
        yield
    except OSError as error:
        raise files.explain(_numbered(error), path) from error
    except Exception as error:
        if "os error" in str(error):  # so says polars when a disk is full
            raise files.explain(_numbered(error), path) from error
        raise


def _numbered(error: Exception) -> OSError:
    """The error with the system's number, which polars keeps in its text only."""
    number = re.search(r"os error (\d+)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return error if isinstance(error, OSError) else OSError(str(error))


def harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with an apostrophe before text (cells and column names) that a spreadsheet would run as a formula.

    Plain numbers such as the class `-1` stay as they are.
    """
    import polars as pl

    for name in (name for name, kind in frame.schema.items() if kind == pl.String):
        text = pl.col(name)
        risky = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER)
        frame = frame.with_columns(pl.when(risky).then(pl.lit("'") + text).otherwise(text).alias(name))
    return frame.rename({name: f"'{name}" for name in frame.columns if name[:1] in "=+-@\t\r"})
