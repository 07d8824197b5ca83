"""What kind each column of a table is, and why: numeric, categorical, boolean, datetime, or dropped.

`infer` decides once, on the training file; `typed` brings any later frame to the same types, by column name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from trainctl.data.number_text import check_plain
from trainctl.data.parallel import on_threads
from trainctl.errors import DataError, UsageError, did_you_mean

KINDS = ("numeric", "categorical", "boolean", "datetime", "drop")
BOOLEANS = {
    "true": 1.0, "yes": 1.0, "t": 1.0, "y": 1.0, "false": 0.0, "no": 0.0, "f": 0.0, "n": 0.0, "1": 1.0, "0": 0.0,
    "1.0": 1.0, "0.0": 0.0,
}  # fmt: skip
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d")
TIME_SUFFIXES = ("", *(gap + at for gap in " T" for at in ("%H:%M:%S%.f", "%H:%M", "%H:%M:%S%.fZ", "%H:%M:%S%.f%z")))
DATE_PARTS = ("year", "month", "day", "weekday", "hour", "minute")
MOSTLY_NUMBERS = 0.9  # a text column with this share of numbers is a numeric column with mistakes
ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|index)$", re.IGNORECASE)
TEXT_WORDS = 5  # mean words in a value from which a column is free text
SAMPLE = 10_000
Where = Callable[[int], str]


@dataclass(frozen=True)
class Column:
    """One column of the file: its kind and the reason; `format` of a datetime that is written as text."""

    name: str
    kind: str
    why: str
    format: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins for JSON."""
        return asdict(self)


def infer(
    frame: pl.DataFrame, declared: Mapping[str, str], skip: Mapping[str, str], max_categories: int
) -> list[Column]:
    """The kind of every column; `skip` maps names that are no features (the target) to the reason.

    UsageError for a wrong `data.columns`, DataError for free text."""
    for name, kind in declared.items():
        if name not in frame.columns:
            raise UsageError(f"`data.columns` names `{name}`, which is no column{did_you_mean(name, frame.columns)}")
        if kind not in KINDS:
            near = did_you_mean(str(kind), KINDS)
            raise UsageError(f"`data.columns.{name}` is {kind!r}; it must be one of {', '.join(KINDS)}{near}")

    def kind_of(series: pl.Series) -> Column:
        if series.name in skip:
            return Column(series.name, "drop", skip[series.name])
        given = declared.get(series.name)
        return _inferred(series, max_categories) if given is None else _declared(series, given)

    found = on_threads(kind_of, frame.iter_columns())
    if not any(column.kind != "drop" for column in found):
        dropped = ", ".join(f"`{c.name}` ({c.why})" for c in found)
        keep = [c.name for c in found if c.name not in skip][:1]
        advice = "".join(f"; keep one, such as {_setting(name, 'numeric')}" for name in keep)
        raise DataError(f"no column is left to learn from: {dropped}{advice}")
    return found


def typed(frame: pl.DataFrame, columns: Sequence[Column], where: Where) -> pl.DataFrame:
    """The columns that are not dropped, in their order: numbers, 0/1 for booleans, Datetime, or text for categories.

    DataError names the line of a value that does not fit; `where` turns a row into `line 17`."""
    result = []
    for column in columns:
        if column.kind == "drop":
            continue
        series = frame.get_column(column.name)
        if column.kind == "categorical":
            result.append(as_text(series))
        elif column.kind == "numeric":
            result.append(_as_number(series, where))
        elif column.kind == "boolean":
            result.append(_as_boolean(series, where))
        else:
            result.append(_as_datetime(series, column.format, where))
    return pl.DataFrame(result)


def as_text(series: pl.Series) -> pl.Series:
    """Values as text without blanks around them; whole numbers are written without a decimal point."""
    if series.dtype == pl.String:
        return series.str.strip_chars()
    if series.dtype.is_float():
        whole = series.drop_nulls()
        if bool((whole == whole.floor()).all()) and bool((whole.abs() < 2**53).all()):
            series = series.cast(pl.Int64)
    return series.cast(pl.String)


def to_numbers(series: pl.Series) -> pl.Series:
    """Float64 of text, null where the text is no number."""
    return series.str.strip_chars().cast(pl.Float64, strict=False)


def parse_datetime(series: pl.Series) -> tuple[pl.Series, str] | None:
    """Datetime of text in the first format that reads every value, and that format; None when none does."""
    text = series.str.strip_chars()
    sample = text.drop_nulls().head(100)
    dates = DATE_FORMATS if sample.str.contains(r"\d").all() else ()  # trying them all is slow, and all have digits
    for candidate in (date + time for date in dates for time in TIME_SUFFIXES):
        if sample.str.to_datetime(candidate, strict=False).null_count() == 0:
            parsed = text.str.to_datetime(candidate, strict=False)
            if parsed.null_count() == text.null_count():
                return parsed, candidate
    return None


def date_part(name: str, part: str) -> pl.Expr:
    """One number of a Datetime column, null where the time is missing."""
    return getattr(pl.col(name).dt, part)().cast(pl.Float64)  # type: ignore[no-any-return]


def check_columns(names: Sequence[str], columns: Sequence[Column], file: str) -> None:
    """DataError when `file` lacks a column that training used."""
    missing = [column.name for column in columns if column.kind != "drop" and column.name not in names]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise DataError(f"`{file}` has no column {listed}, which training used{did_you_mean(missing[0], names)}")


def check_finite(frame: pl.DataFrame, where: Where) -> None:
    """DataError for the first column with NaN or infinity."""
    for series in frame.iter_columns():
        if not series.dtype.is_float():
            continue
        bad = (~series.is_finite()).fill_null(False)
        if bad.any():
            count = int(bad.sum())
            raise DataError(
                f"column `{series.name}` has {count} non-finite value{'s' * (count != 1)} "
                f"({where(int(bad.arg_true()[0]))}); set `data.missing=impute` to treat NaN and infinity as missing"
            )


def split_keys(frame: pl.DataFrame, name: str, ordered: bool, file: str, where: Where) -> np.ndarray:
    """The column that `data.split` divides by: numbers or times when `ordered`, else text; none may be missing."""
    if name not in frame.columns:
        near = did_you_mean(name, frame.columns)
        raise UsageError(f"`data.split.column` is `{name}`, which is no column of `{file}`{near}")
    series = frame.get_column(name)
    if series.null_count():
        line = where(int(series.is_null().arg_true()[0]))
        raise DataError(f"split column `{name}` has {series.null_count()} missing values (first: {line})")
    if not ordered:
        return as_text(series).to_numpy()
    if series.dtype == pl.String:
        parsed = parse_datetime(series)
        series = parsed[0] if parsed else to_numbers(series)
        if series.null_count():
            raise DataError(f"split column `{name}` holds neither numbers nor dates, so its rows have no order in time")
    return series.to_physical().to_numpy()


# -- inference ----------------------------------------------------------------------------------------------------


def _declared(series: pl.Series, kind: str) -> Column:
    why = "set by data.columns"
    if kind == "datetime" and series.dtype == pl.String:
        parsed = parse_datetime(series)
        if parsed is None:
            raise DataError(
                f"column `{series.name}` is set to datetime, but no known format reads all its values, such as "
                f"{series.drop_nulls().first()!r}; write them as 2026-01-31 12:00:00"
            )
        return Column(series.name, kind, why, parsed[1])
    return Column(series.name, kind, why)


def _inferred(series: pl.Series, max_categories: int) -> Column:
    name, present = series.name, len(series) - series.null_count()
    if present == 0:
        return Column(name, "drop", "every value is missing")
    if series.dtype == pl.Boolean:
        return Column(name, "boolean", "true and false")
    if series.dtype in (pl.Date, pl.Datetime):
        return Column(name, "datetime", "dates in the file")
    if series.dtype.is_numeric():
        return _number_column(series, present)
    if series.dtype == pl.String or series.dtype in (pl.Categorical, pl.Enum):
        return _text_column(series.cast(pl.String), present, max_categories)
    return Column(name, "drop", f"cannot use values of type {series.dtype}")


def _number_column(series: pl.Series, present: int) -> Column:
    name, low, high = series.name, series.min(), series.max()
    if low == high:
        return Column(name, "drop", _always(low + 0, present < len(series)))  # type: ignore[operator]  # -0.0 is 0.0
    if series.dtype.is_integer() and present == len(series):
        # unique: a column of whole numbers that counts up, or one that is named as an id
        counts_up = high - low + 1 == present and bool((series.diff().drop_nulls() == 1).all())  # type: ignore[operator]
        if counts_up or (ID_NAME.search(name) and present > 20 and series.n_unique() == present):
            return Column(name, "drop", "an id: every row has its own number")
    if low == 0 and high == 1 and series.dtype.is_integer():
        return Column(name, "boolean", "0 and 1")
    return Column(name, "numeric", "numbers")


def _text_column(series: pl.Series, present: int, max_categories: int) -> Column:
    name = series.name
    counted = series.str.strip_chars().drop_nulls().value_counts(sort=True)  # all below looks at each text once
    text, counts, distinct = counted.get_column(name), counted.get_column("count"), len(counted)
    if distinct == 1:
        return Column(name, "drop", _always(text[0], present < len(series)))
    if int(counts.filter(to_numbers(text).is_not_null()).sum()) >= MOSTLY_NUMBERS * present:
        return Column(name, "numeric", "numbers")
    check_plain(text, counts, f"column `{name}`", _setting(name, "categorical"))
    if distinct == 2 and {BOOLEANS.get(value) for value in text.str.to_lowercase()} == {0.0, 1.0}:
        return Column(name, "boolean", " and ".join(sorted(text)))
    parsed = parse_datetime(text)
    if parsed is not None:
        return Column(name, "datetime", f"dates written as {parsed[1]}", parsed[1])
    words = float(text.head(SAMPLE).str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    if words >= TEXT_WORDS and distinct > 0.5 * present and distinct > 20:
        raise DataError(
            f"column `{name}` holds free text ({words:.0f} words a value), which a table cannot use; set "
            f"{_setting(name, 'drop')} to leave it out, or `categorical` to take each text as a category"
        )
    if present > 20 and (distinct == present or (distinct > max_categories and distinct > 0.9 * present)):
        return Column(name, "drop", f"an id: {distinct} different texts in {present} rows")
    if distinct > max_categories:
        why = f"{distinct} different texts; the {max_categories} most frequent are kept, the others count as unseen"
        return Column(name, "categorical", why)
    return Column(name, "categorical", f"{distinct} different texts")


def _always(value: object, missing: bool) -> str:
    return f"constant: always {value!r}{' or missing' if missing else ''}"


def _setting(name: str, kind: str) -> str:
    """What sets a column's kind: an override as a shell takes it, or for names that no override can hold, a file."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return f"`data.columns.{name}={kind}`"
    if re.fullmatch(r"[\w /\-+.%*@?|()\[\]{}:=,]+", name, re.ASCII):
        escaped = re.sub(r"([()\[\]{}:=,])", r"\\\1", name)
        return f"`'data.columns={{{escaped}: {kind}}}'`"
    return f"`data.columns: {{{name!r}: {kind}}}` in a config file"


# -- conversion ---------------------------------------------------------------------------------------------------


def _as_number(series: pl.Series, where: Where) -> pl.Series:
    if series.dtype.is_numeric():
        return series
    if series.dtype == pl.Boolean:
        return series.cast(pl.Float64)
    text = series.cast(pl.String)
    numbers = to_numbers(text)
    _refuse(text, numbers, where, "is not a number", "categorical")
    return numbers


def _as_boolean(series: pl.Series, where: Where) -> pl.Series:
    if series.dtype.is_numeric():
        return series
    text = as_text(series).str.to_lowercase()
    values = text.replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64)
    _refuse(text, values, where, "is neither true nor false", "categorical")
    return values


def _as_datetime(series: pl.Series, format: str | None, where: Where) -> pl.Series:
    if series.dtype in (pl.Date, pl.Datetime):
        return series.cast(pl.Datetime)
    text = series.cast(pl.String)
    format = format or "%Y-%m-%d"  # a column of dates in the training file that is text in this one
    values = text.str.strip_chars().str.to_datetime(format, strict=False)
    _refuse(text, values, where, f"is not a date written as {format}", "categorical")
    return values


def _refuse(text: pl.Series, values: pl.Series, where: Where, problem: str, instead: str) -> None:
    """DataError for the first value that was lost in a conversion."""
    lost = values.is_null() & text.is_not_null() & (text.str.strip_chars() != "")
    if lost.any():
        row = int(lost.arg_true()[0])
        raise DataError(
            f"column `{text.name}`, {where(row)}: '{text[row]}' {problem}; correct it, add it to "
            f"`data.missing_values`, or set {_setting(text.name, instead)}"
        )
