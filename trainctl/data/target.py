"""The column to predict: class labels to indices, or numbers; which of both is decided here."""

from __future__ import annotations

from typing import Literal

import polars as pl
import torch
from torch import Tensor

from trainctl.data.columns import Where, as_text, to_numbers
from trainctl.data.number_text import check_plain
from trainctl.errors import DataError, UsageError

MAX_INTEGER_CLASSES = 20  # more different whole numbers than this are a number to regress
MAX_TEXT_CLASSES = 1000


def target_kind(series: pl.Series, declared: str) -> Literal["class", "number"]:
    """`class` for text, booleans and few different whole numbers, else `number`; `declared` other than auto decides."""
    if declared in ("class", "number"):
        return declared  # type: ignore[return-value]
    if declared != "auto":
        raise UsageError(f"`data.target_kind` is {declared!r}; it must be auto, class or number")
    present, integers = series.drop_nulls(), series.dtype.is_integer()
    if present.dtype == pl.String:
        found = to_numbers(present)
        if found.null_count() >= 0.1 * len(present):
            counted = present.value_counts()
            check_plain(counted[series.name], counted["count"], f"target `{series.name}`", "`data.target_kind=class`")
            return "class"
        integers = not present.str.contains("[.eE]").any()
        present = found.drop_nulls()  # a mistake among numbers is reported when they are read
    if not present.dtype.is_numeric():
        return "class"
    whole = bool((present == present.floor()).all()) if present.dtype.is_float() else True
    return "class" if whole and present.n_unique() <= (MAX_INTEGER_CLASSES if integers else 2) else "number"


def find_classes(files: list[pl.Series]) -> tuple[str, ...]:
    """Labels of all files in order (numeric order when all are numbers); the last of two is the positive class."""
    labels = pl.concat([as_text(series).drop_nulls().unique() for series in files]).unique()
    if len(labels) > MAX_TEXT_CLASSES:
        raise DataError(
            f"target `{files[0].name}` has {len(labels)} different labels in {len(files[0])} rows, more than "
            f"{MAX_TEXT_CLASSES}; set `data.target_kind=number` or choose another `data.target`"
        )
    numbers = to_numbers(labels)
    if numbers.null_count() == 0:
        return tuple(pl.DataFrame([labels.alias("label"), numbers.alias("n")]).sort("n", "label")["label"].to_list())
    return tuple(sorted(labels.to_list()))


def class_indices(series: pl.Series, classes: tuple[str, ...], source: str) -> Tensor:
    """int64 [N]; DataError for a label that is not among `classes`."""
    text = as_text(series)
    if set(classes) <= {"true", "false"}:
        text = text.str.to_lowercase()
    codes = text.cast(pl.Enum(list(classes)), strict=False).to_physical().cast(pl.Int64)
    if codes.null_count():  # 1, 1.0 and 01 are one label
        values = to_numbers(pl.Series(classes)).to_list()
        by_value = {value: index for index, value in enumerate(values) if value is not None}
        codes = codes.fill_null(to_numbers(text).replace_strict(by_value, default=None, return_dtype=pl.Int64))
    if codes.null_count():
        unknown = text.filter(codes.is_null())
        count = int((unknown == unknown[0]).sum())
        raise DataError(
            f"class '{unknown[0]}' is in `{source}` ({count} row{'s' * (count != 1)}) but not in train, "
            f"which has {len(classes)} classes: {', '.join(classes[:10])}"
        )
    return torch.from_numpy(codes.to_numpy(writable=True))


def numbers(series: pl.Series, where: Where) -> Tensor:
    """float32 [N]; DataError with the line of a target that is no finite number."""
    values = series.cast(pl.Float64) if series.dtype.is_numeric() else to_numbers(series.cast(pl.String))
    values = values.cast(pl.Float32)  # too large for it is not finite either
    bad = (values.is_null() | ~values.is_finite().fill_null(False)).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"target `{series.name}`, {where(row)}: '{series[row]}' is not a finite number; correct it, "
            "or set `data.target_kind=class` if it is a label"
        )
    return torch.from_numpy(values.to_numpy(writable=True))


def missing_rows(series: pl.Series) -> pl.Series:
    """True where there is no target; NaN, also written as text, is none."""
    if series.dtype == pl.String:
        return series.is_null() | series.str.strip_chars().str.to_lowercase().is_in(["", "nan"]).fill_null(True)
    return series.is_null() | series.is_nan() if series.dtype.is_float() else series.is_null()


def check_missing(missing: pl.Series, target: str, policy: str, source: str, where: Where) -> None:
    """DataError for rows without a target unless `policy` is drop and some rows have one."""
    count = int(missing.sum())
    if count == len(missing):
        raise DataError(f"no row of `{source}` has a target `{target}`; check `data.target`")
    if policy == "error":
        raise DataError(
            f"{count} row{'s have' if count > 1 else ' has'} no target `{target}` in `{source}` "
            f"(first: {where(int(missing.arg_true()[0]))}); set `data.missing_target=drop` to leave them out"
        )
