"""The column to predict: class labels to indices, or numbers; which of both is decided here."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainctl.data.columns import Where, as_text, to_numbers
from trainctl.errors import DataError, UsageError

MAX_INTEGER_CLASSES = 20  # more different whole numbers than this are a number to regress
MAX_TEXT_CLASSES = 1000


def target_kind(series: pl.Series, declared: str) -> Literal["class", "number"]:
    """`class` for text, booleans and few different whole numbers, else `number`; `declared` other than auto decides."""
    if declared in ("class", "number"):
        return declared  # type: ignore[return-value]
    if declared != "auto":
        raise UsageError(f"`data.target_kind` is {declared!r}; it must be auto, class or number")
    present = series.drop_nulls()
    if present.dtype == pl.String:
        numbers = to_numbers(present)
        if numbers.null_count() < 0.1 * len(present):
            present = numbers.drop_nulls()  # a mistake among numbers is reported when they are read
    if not present.dtype.is_numeric():
        return "class"
    whole = present.dtype.is_integer() or bool((present.is_finite() & (present == present.floor())).all())
    limit = MAX_INTEGER_CLASSES if present.dtype.is_integer() else 2
    return "class" if whole and present.n_unique() <= limit else "number"


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
    codes = text.cast(pl.Enum(list(classes)), strict=False).to_physical()
    if codes.null_count():
        unknown = text.filter(codes.is_null())
        count = int((unknown == unknown[0]).sum())
        raise DataError(
            f"class '{unknown[0]}' is in `{source}` ({count} row{'s' * (count != 1)}) but not in train, "
            f"which has {len(classes)} classes: {', '.join(classes[:10])}"
        )
    return torch.from_numpy(codes.cast(pl.Int64).to_numpy(writable=True))


def numbers(series: pl.Series, where: Where) -> Tensor:
    """float32 [N]; DataError with the line of a target that is no finite number."""
    values = series.cast(pl.Float64) if series.dtype.is_numeric() else to_numbers(series.cast(pl.String))
    bad = (values.is_null() | ~values.is_finite().fill_null(False)).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"target `{series.name}`, {where(row)}: '{series[row]}' is not a finite number; correct it, "
            "or set `data.target_kind=class` if it is a label"
        )
    return torch.from_numpy(values.to_numpy().astype(np.float32))


def drop_missing(frame: pl.DataFrame, target: str, policy: str, source: str, where: Where) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows that have a target and their row numbers; DataError for the others unless `policy` is drop."""
    series = frame.get_column(target)
    missing = series.is_null() | (series.is_nan() if series.dtype.is_float() else False)
    rows = np.arange(len(frame), dtype=np.int64)
    count = int(missing.sum())
    if not count:
        return frame, rows
    if policy == "error":
        first = where(int(missing.arg_true()[0]))
        raise DataError(
            f"{count} row{'s have' if count > 1 else ' has'} no target `{target}` in `{source}` (first: {first}); "
            "set `data.missing_target=drop` to leave them out"
        )
    if count == len(frame):
        raise DataError(f"no row of `{source}` has a target `{target}`")
    return frame.filter(~missing), rows[~missing.to_numpy()]
