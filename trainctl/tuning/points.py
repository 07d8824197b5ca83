"""Points that are given: `zip(a=1,2 b=3,4)` pairs values, `@trials.csv` has one point in each row."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from trainctl.config import overrides
from trainctl.config.overrides import OverrideError
from trainctl.errors import UsageError
from trainctl.tuning.dimensions import Dimension, listed, read, split, text_of


def zipped(word: str) -> Dimension:
    """The dimension of `zip(a=1,2 b=3,4)`, its choices `a=1 b=3` and `a=2 b=4`; UsageError unless they pair."""
    columns: dict[str, list[str]] = {}
    if not word.endswith(")"):
        raise UsageError(f"`{word}` has no closing bracket; write it in quotes as one word: 'zip(a=1,2 b=3,4)'")
    for inner in split(word[len("zip(") : -1]):
        override = read(inner)
        key = override.get_key_element()
        if key in columns:
            raise UsageError(f"`{word}` gives `{key}` twice; keep one")
        values = listed(override, inner, []) if override.is_sweep_override() else [override.value()]
        columns[key] = [f"{key}={text_of(key, value)}" for value in values]
    if not columns:
        raise UsageError("`zip()` pairs nothing; write it as in 'zip(optimizer.lr=0.1,0.01 model.dropout=0,0.5)'")
    first, *others = columns
    for other in others:
        if len(columns[other]) != len(columns[first]):
            raise UsageError(
                f"`{word}` pairs lists of different lengths: `{first}` has {_values(len(columns[first]))} "
                f"and `{other}` has {_values(len(columns[other]))}"
            )
    rows = [" ".join(row) for row in zip(*columns.values(), strict=True)]
    return Dimension(f"zip({','.join(columns)})", "choice", tuple(dict.fromkeys(rows)))


def from_csv(word: str) -> Dimension:
    """The dimension of `@trials.csv`: its header names the keys, each row is a point, an empty cell sets nothing."""
    file = Path(word[1:])
    if not file.is_file():
        raise UsageError(f"`{word}` names no file: `{file}` does not exist; it must be a CSV file with one point a row")
    try:
        reader = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"`{file}` is not a CSV file in UTF-8: {error}") from error
    if len(lines) < 2:
        raise UsageError(f"`{file}` has no rows; its header names the keys, and each row below is a point")
    header = [name.strip() for name in lines[0][1]]
    for number, name in enumerate(header, start=1):
        if not name or header.index(name) + 1 < number:
            problem = f"gives `{name}` twice" if name else f"has no name for column {number}"
            raise UsageError(f"the header of `{file}` {problem}; each column needs a key of its own")
    rows = [_row(file, line, header, row) for line, row in lines[1:]]
    return Dimension(word, "choice", tuple(dict.fromkeys(rows)))


def _row(file: Path, line: int, header: list[str], row: list[str]) -> str:
    if len(row) != len(header):
        raise UsageError(f"`{file}` line {line} has {_values(len(row))} for {len(header)} columns")
    words = []
    for name, cell in zip(header, row, strict=True):
        if not cell.strip():
            continue
        typed = f"{name}={cell.strip()}"
        try:
            (override,) = overrides.parse([typed])
        except OverrideError as error:
            raise UsageError(f"`{file}` line {line}: {error}") from error
        if override.is_sweep_override():
            raise UsageError(f"`{file}` line {line}: `{typed}` gives several values; a row is one point")
        words.append(f"{override.get_key_element()}={text_of(name, override.value())}")
    return " ".join(words)


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
