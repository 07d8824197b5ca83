"""A table's text as lines, before anything is known of its fields: what polars fills with nulls, seen as it stands."""

from __future__ import annotations

from pathlib import Path

import polars as pl

PADDING = " \t\r\ufeff"  # what may stand in a line that is blank all the same

_LINE = pl.first()


def fewest_delimiters(text: Path | bytes, separator: str) -> int:
    """Delimiters in the line that has the fewest; quotes and line breaks inside them are not understood."""
    return int(pl.scan_lines(text).select(_LINE.str.count_matches(separator, literal=True).min()).collect().item())


def blank(text: Path | bytes, separator: str) -> pl.Series:
    """For each record below the header, whether it is a line without any field; a line of delimiters has fields."""
    quotes = _LINE.str.count_matches('"', literal=True).cast(pl.Int64)
    begins = (quotes.cum_sum() - quotes) % 2 == 0  # else the line is the middle of a quoted text
    is_blank = (_LINE.str.strip_chars(PADDING) == "") & ~_LINE.str.contains(separator, literal=True)
    records = pl.scan_lines(text).select(begins=begins, blank=is_blank).filter("begins").collect().get_column("blank")
    header = (~records).arg_max() or 0
    return records[header + 1 :]
