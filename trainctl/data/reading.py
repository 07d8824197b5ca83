"""Table files as polars frames: CSV and TSV (also gzipped) and Parquet, with errors that name the line.

`Source.read` is the fast road for data that fits in memory, `Source.batches` the bounded one. Cells listed in
`missing_values` become null; lines without any field are skipped; rows are numbered from 0 without the header.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

if "OMP_NUM_THREADS" in os.environ:  # polars sizes its pool when it is imported
    os.environ.setdefault("POLARS_MAX_THREADS", os.environ["OMP_NUM_THREADS"])

import polars as pl

from trainctl.data import blocks, lines, number_text
from trainctl.errors import DataError, UsageError

MISSING_VALUES = ("", "?", "NA", "NULL")
INFER_ROWS = 10_000
HEAD_BYTES = 65_536
LONGEST_HEADER = 1 << 24


@dataclass(frozen=True)
class Source:
    """One table file. `delimiter` None: tab for .tsv, else the most frequent of , ; tab | in the header.

    `numbers`: how they are written in text, plain, english or european."""

    path: Path
    delimiter: str | None = None
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = MISSING_VALUES
    numbers: str = "plain"

    def __post_init__(self) -> None:
        number_text.check_style(self.numbers)
        if self.delimiter is not None and len(self.delimiter.encode()) != 1:
            raise UsageError(f"`data.delimiter` is {self.delimiter!r}; it must be one character such as ',' or ';'")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise UsageError(f"`data.encoding` is {self.encoding!r}; try utf-8, latin-1 or utf-16") from None

    @property
    def name(self) -> str:
        """The path as the user gave it, for sentences."""
        return str(self.path)

    @cached_property
    def is_parquet(self) -> bool:
        """Parquet by its first bytes or its ending; DataError when the file cannot be opened."""
        return self._head[:4] == b"PAR1" or self.path.suffix in (".parquet", ".pq")

    @cached_property
    def header(self) -> list[str]:
        """Column names, blanks around them removed; DataError when two are equal."""
        if self.is_parquet:
            with self._readable():
                return list(pl.read_parquet_schema(self.path))
        names = [name.strip() or f"column_{i}" for i, name in enumerate(self._raw_header, start=1)]
        for name, count in Counter(names).items():
            if count > 1:
                at = ", ".join(str(i) for i, other in enumerate(names, start=1) if other == name)
                raise DataError(
                    f"column `{name}` appears {count} times in `{self.name}` (columns {at}); "
                    "give every column its own name"
                )
        return names

    def read(self, text: Sequence[str] = (), columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The whole file; `text` columns stay text (leading zeros are kept), `columns` limits what is read.

        DataError for a file that is missing, empty, ragged or in another encoding."""
        names = self.header
        with self._readable():
            if self.is_parquet:
                frame = pl.read_parquet(self.path, columns=None if columns is None else list(columns))
            else:
                with self._as_utf8() as path:
                    frame = self._without_blank_lines(self._read_csv(path, [name in text for name in names]), path)
                frame = frame if columns is None else frame.select(columns)
        if len(frame) == 0:
            raise DataError(f"`{self.name}` has no data rows; it must hold at least one row below its header")
        return frame

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """Pieces of at most `rows` rows, in order and in bounded memory; all columns of a CSV come as text."""
        with self._readable():
            if self.is_parquet:
                scan = pl.scan_parquet(self.path)  # its batches would read ahead without a bound
                for start in range(0, scan.select(pl.len()).collect().item(), rows):
                    yield scan.slice(start, rows).collect()
                return
            for text in self._blocks():
                yield from self._without_blank_lines(self._parse(text, infer_schema=False), text).iter_slices(rows)

    def where(self, row: int) -> str:
        """`line 17` for a row of a CSV (quoted line breaks counted), `row 16` for Parquet."""
        if self.is_parquet:
            return f"row {row + 1}"
        for number, (line, _) in enumerate(self._records()):
            if number == row + 1:
                return f"line {line}"
        return f"row {row + 1}"

    @property
    def _null_values(self) -> list[str]:
        padded = f"{self._separator} ".encode() in self._head  # `39, ?, 5`: each one to look for costs time
        return [blank + value for value in self.missing_values for blank in (("", " ") if padded else ("",))]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _read_csv(self, path: Path, as_text: list[bool]) -> pl.DataFrame:
        if self.numbers != "plain":
            text = [name for name, wanted in zip(self.header, as_text, strict=True) if wanted]
            return number_text.as_typed(self._parse(path, infer_schema=False), text)
        overrides = {name: pl.String for name, wanted in zip(self.header, as_text, strict=True) if wanted}
        try:
            return self._parse(path, schema_overrides=overrides, infer_schema_length=INFER_ROWS)
        except pl.exceptions.ComputeError:  # a late value did not fit, so look at every row
            return self._parse(path, schema_overrides=overrides, infer_schema_length=None)

    def _parse(self, text: Path | bytes, **options: Any) -> pl.DataFrame:
        try:
            frame = pl.read_csv(
                text, separator=self._separator, new_columns=self.header, null_values=self._null_values, **options
            )
            return number_text.as_plain(frame, self.numbers)
        except pl.exceptions.ComputeError:
            if options.get("infer_schema_length") != INFER_ROWS:
                self._check_fields()
            raise

    def _blocks(self) -> Iterator[bytes]:
        """The file as UTF-8 in pieces of whole records, each below the header."""
        with self._open() as stream:
            header = b""
            for text in blocks.records(blocks.utf8(stream, self._codec)):
                yield header + text
                header = header or text[: blocks.first_end(text)]

    def _without_blank_lines(self, frame: pl.DataFrame, text: Path | bytes) -> pl.DataFrame:
        # polars fills a blank line and a short row with nulls up to the last column: only then look closer
        if len(frame) == 0 or (frame.width > 1 and frame.to_series(frame.width - 1).null_count() == 0):
            return frame
        fewest = lines.fewest_delimiters(text, self._separator)
        if fewest < frame.width - 1:
            self._check_fields()
        return frame if fewest else frame.filter(~lines.blank(text, self._separator))

    def _check_fields(self) -> None:
        width = len(self._raw_header)
        for line, fields in self._records():
            if fields != width:
                raise DataError(
                    f"`{self.name}`: line {line} has {fields} field{'s' * (fields != 1)}, the header has {width}; "
                    "correct the line, or quote the text that holds the delimiter"
                )

    @cached_property
    def _raw_header(self) -> list[str]:
        text = self._head.decode(self._codec, errors="replace").lstrip("\ufeff")
        return next((row for row in csv.reader(io.StringIO(text), delimiter=self._separator) if row), [])

    @cached_property
    def _separator(self) -> str:
        if self.delimiter is not None:
            return self.delimiter
        first = self._head.decode(self._codec, errors="replace").lstrip("\ufeff\r\n").split("\n", 1)[0]
        unquoted = re.sub(r'"[^"]*"', "", first)
        if ".tsv" in self.path.suffixes and ("\t" in unquoted or not re.search("[,;|]", unquoted)):
            return "\t"
        return max(",;\t|", key=unquoted.count)  # the first of equals: a comma

    @property
    def _codec(self) -> str:
        return "utf-8-sig" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding

    @cached_property
    def _head(self) -> bytes:
        """The first bytes, decompressed; DataError when there is nothing that could be a table."""
        with self._readable(), self._open() as stream:
            head = stream.read(HEAD_BYTES)
            if head[:4] != b"PAR1" and b"\n" not in head:
                head += stream.readline(LONGEST_HEADER)
        if head[:4] == b"PAR1":
            return head
        if head[:2] == b"PK":
            raise DataError(f"`{self.name}` is a zip or spreadsheet file; save it as CSV or Parquet")
        wide = codecs.lookup(self.encoding).name.startswith(("utf-16", "utf-32"))
        if not wide and (head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:200:2].count(0) > 0.4 * len(head[1:200:2])):
            raise DataError(f"`{self.name}` is not UTF-8 (it looks like UTF-16); pass `data.encoding=utf-16`")
        if not wide and b"\0" in head:
            line = head[: head.index(b"\0")].count(b"\n") + 1
            raise DataError(f"`{self.name}` holds NUL bytes (line {line}); it is binary or damaged, not a text table")
        if not head.decode(self._codec, errors="replace").strip():
            raise DataError(f"`{self.name}` is empty; it must hold a header and at least one row")
        if b"\r" in head and b"\n" not in head:
            raise DataError(
                f"the lines of `{self.name}` end as on an old Macintosh (CR alone); save it with line ends LF or CRLF"
            )
        return head

    def _open(self) -> IO[bytes]:
        with open(self.path, "rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        return cast(IO[bytes], gzip.open(self.path, "rb")) if zipped else open(self.path, "rb")

    @contextmanager
    def _as_utf8(self) -> Iterator[Path]:
        """The file itself, or for another encoding a temporary copy in UTF-8."""
        if self._codec == "utf-8-sig":
            yield self.path
            return
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".csv") as copy:
            with io.TextIOWrapper(self._open(), encoding=self.encoding, newline="") as stream:
                while block := stream.read(1 << 20):
                    copy.write(block)
            copy.flush()
            yield Path(copy.name)

    def _records(self) -> Iterator[tuple[int, int]]:
        """(line number, number of fields) of the header and every row; blank lines are left out."""
        separator, start, pending = self._separator, 1, ""
        with io.TextIOWrapper(self._open(), encoding=self._codec, errors="replace", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if not pending and '"' not in line:
                    if separator in line or line.strip(lines.PADDING + "\n"):
                        yield number, line.count(separator) + 1
                    continue
                start = start if pending else number
                pending += line
                if pending.count('"') % 2 == 0:
                    yield start, len(next(csv.reader(io.StringIO(pending, newline=""), delimiter=separator)))
                    pending = ""
        if pending:
            raise DataError(f"`{self.name}`: the quote that opens in line {start} is never closed; correct that line")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what the system or polars says about an unreadable file into one sentence."""
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"cannot read `{self.name}`: no such file; check `data.path`") from None
        except IsADirectoryError:
            raise DataError(f"cannot read `{self.name}`: it is a directory; name a CSV or Parquet file") from None
        except PermissionError:
            raise DataError(f"cannot read `{self.name}`: permission denied") from None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise DataError(f"cannot read `{self.name}`: the gzip file is damaged or cut off; copy it again") from None
        except csv.Error as error:
            raise DataError(f"cannot read `{self.name}`: {error}") from None
        except UnicodeError:
            raise DataError(f"`{self.name}` is not {self.encoding}; pass the right `data.encoding=`") from None
        except pl.exceptions.PolarsError as error:
            if "utf-8" in str(error).lower():
                raise DataError(
                    f"`{self.name}` is not UTF-8 (line {self._bad_line()}); pass `data.encoding=`, such as latin-1"
                ) from None
            raise DataError(f"cannot read `{self.name}`: {str(error).splitlines()[0]}") from None

    def _bad_line(self) -> int:
        with self._open() as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        return 0
