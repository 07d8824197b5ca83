"""Typed columns to one float32 matrix: fill, mark missing, scale, code categories. Fitted on train rows only.

Numbers come first (numeric and 0/1 columns, date parts, their linear twins, then one 0/1 mark per number that was
missing in train), category codes last; code 0 is a missing, rare or unseen value. Scaling `quantile` gives a number
its normal score among the train rows, `standard` its distance from the mean in standard deviations, `both` gives
both (the second bent at 3, so that an extreme cannot rule). Everything fitted is JSON and safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from trainctl.data.columns import DATE_PARTS, Column, date_part
from trainctl.data.parallel import on_threads
from trainctl.data.spec import Category

SCALINGS = ("both", "quantile", "standard", "none")
BLOCK_ROWS = 32_768  # rows that are transformed at once
QUANTILES = 1001
STATISTIC_ROWS = 200_000  # of a longer train split, every n-th row is enough for means, medians and quantiles
EXTREME = 5.2  # normal score of the lowest and highest value of train, as in scikit-learn
LARGEST = 1e30  # float32 holds it, and its square fits into float64
BEND = 3.0  # standard deviations from which a linear twin flattens


@dataclass(frozen=True)
class Number:
    """A numeric feature: column `source`, or its date `part`; named `name` in the spec."""

    name: str
    source: str
    part: str | None = None

    @property
    def expression(self) -> pl.Expr:
        """Float64; null where missing or not finite."""
        value = pl.col(self.source).cast(pl.Float64) if self.part is None else date_part(self.source, self.part)
        return pl.when(value.is_finite()).then(value)


@dataclass
class Preprocessing:
    """What was fitted. fill, center, scale [numbers] float64; knots and scores: per number, value to normal score."""

    scaling: str
    numbers: list[Number]
    marks: list[int]  # indices of the numbers that were missing in train
    vocabulary: dict[str, list[str]]
    fill: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    knots: list[np.ndarray]
    scores: list[np.ndarray]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric columns of x."""
        names = tuple(number.name for number in self.numbers)
        twins = tuple(f"{names[index]} (linear)" for index in self.twins)
        return names + twins + tuple(f"{names[index]} (missing)" for index in self.marks)

    @property
    def twins(self) -> list[int]:
        """Indices of the numbers that are given a second time, on a linear scale."""
        return [index for index, knots in enumerate(self.knots) if len(knots)] if self.scaling == "both" else []

    @property
    def categories(self) -> tuple[Category, ...]:
        """Names and sizes of the category columns of x."""
        return tuple(Category(name, len(values) + 1) for name, values in self.vocabulary.items())

    @property
    def width(self) -> int:
        """Columns of x."""
        return len(self.numeric) + len(self.vocabulary)

    @classmethod
    def fit(
        cls, frame: pl.DataFrame, columns: Sequence[Column], rows: np.ndarray, scaling: str, max_categories: int
    ) -> Preprocessing:
        """`frame` is typed; only its `rows` are looked at."""
        train = pl.Series(rows)
        texts, numbers = [c.name for c in columns if c.kind == "categorical"], []

        def frequent(name: str) -> list[str]:
            return _frequent(frame.get_column(name).gather(train), max_categories)

        vocabulary = dict(zip(texts, on_threads(frequent, texts), strict=True))
        for column in (c for c in columns if c.kind not in ("drop", "categorical")):
            if column.kind == "datetime":
                numbers += _date_numbers(pl.DataFrame([frame.get_column(column.name).gather(train)]), column.name)
            else:
                numbers.append(Number(column.name, column.name))
        fill, center, scale = np.zeros((3, len(numbers)))
        fitted = cls(scaling, numbers, [], vocabulary, fill, center, scale, [], [])
        if not numbers:
            return fitted
        sample = frame.select(list(dict.fromkeys(n.source for n in numbers)))[
            rows[:: max(1, len(rows) // STATISTIC_ROWS)]
        ]
        boolean = {column.name for column in columns if column.kind == "boolean"}

        def fit_number(index: int) -> tuple[np.ndarray, np.ndarray]:
            number = numbers[index]  # in a frame of one column: polars looks at all that it is given
            values = sample.get_column(number.source).to_frame().select(number.expression).to_series()
            return fitted._fit_number(index, values, binary=number.source in boolean)

        for knots, scores in on_threads(fit_number, range(len(numbers))):
            fitted.knots.append(knots)
            fitted.scores.append(scores)
        in_train = np.zeros(len(frame), dtype=bool)
        in_train[rows] = True
        holes = [(n.expression.is_null() & pl.lit(pl.Series(in_train))).any().alias(n.name) for n in numbers]
        fitted.marks.extend(index for index, found in enumerate(frame.select(holes).row(0)) if found)
        return fitted

    def transform(self, frame: pl.DataFrame) -> np.ndarray:
        """x float32 [rows, width] of a typed frame."""
        x = np.empty((len(frame), self.width), dtype=np.float32)
        self.fill_matrix(frame, x, np.arange(len(frame)))
        return x

    def fill_matrix(self, frame: pl.DataFrame, x: np.ndarray, place: np.ndarray) -> None:
        """Row i of a typed frame becomes row place[i] of x, none where that is negative.

        Some rows at a time, so that no second copy of the table is made; on the threads that polars uses."""
        numbers, others = self._number_expressions(), [*self._mark_expressions(), *self._category_expressions()]
        twins = {index: place for place, index in enumerate(self.twins, start=len(numbers))}  # number -> column of x

        def fill(start: int) -> None:
            part = frame.slice(start, BLOCK_ROWS)
            block = np.empty((len(part), self.width), dtype=np.float32)
            for index, column in enumerate(part.select(numbers).iter_columns()):
                values = column.to_numpy()
                if index in twins:
                    scaled = ((values - self.center[index]) / self.scale[index]).clip(-LARGEST, LARGEST)
                    block[:, twins[index]] = scaled / np.sqrt(1.0 + (scaled / BEND) ** 2)
                if len(self.knots[index]):
                    values = interpolate(values, self.knots[index], self.scores[index])
                block[:, index] = values
            for index, column in enumerate(part.select(others).iter_columns(), start=len(numbers) + len(twins)):
                block[:, index] = column.to_numpy()
            there = place[start : start + BLOCK_ROWS]
            x[there[there >= 0]] = block if (there >= 0).all() else block[there >= 0]

        starts = range(0, len(frame), BLOCK_ROWS)
        if len(starts) == 1:
            fill(0)
        else:
            with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
                list(pool.map(fill, starts))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays as safetensors; what JSON can hold is returned."""
        arrays = {"fill": self.fill, "center": self.center, "scale": self.scale}
        for index, knots in enumerate(self.knots):
            arrays |= {f"knots.{index}": knots, f"scores.{index}": self.scores[index]}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "scaling.safetensors")
        numbers = [[n.name, n.source, n.part] for n in self.numbers]
        return {"scaling": self.scaling, "numbers": numbers, "marks": self.marks, "vocabulary": self.vocabulary}

    @classmethod
    def load(cls, folder: Path, values: dict[str, Any]) -> Preprocessing:
        """Inverse of `save`."""
        arrays = load_file(folder / "scaling.safetensors")
        count = sum(name.startswith("knots.") for name in arrays)
        return cls(
            scaling=values["scaling"],
            numbers=[Number(*number) for number in values["numbers"]],
            marks=list(values["marks"]),
            vocabulary=dict(values["vocabulary"]),
            fill=arrays["fill"],
            center=arrays["center"],
            scale=arrays["scale"],
            knots=[arrays[f"knots.{i}"] for i in range(count)],
            scores=[arrays[f"scores.{i}"] for i in range(count)],
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _fit_number(self, index: int, values: pl.Series, binary: bool) -> tuple[np.ndarray, np.ndarray]:
        """Statistics of one number over train; a missing number takes the median (0/1: the mean). Returns its knots."""
        present = values.drop_nulls()
        knots = scores = np.empty(0)
        self.scale[index] = 1.0
        if len(present):
            sample = np.sort(present.to_numpy())
            mean, deviation = float(present.mean()), float(present.std(ddof=0) or 0.0)  # type: ignore[arg-type]
            self.fill[index] = mean if binary else float(np.median(sample))
            if self.scaling != "none" and deviation > 1e-12 * max(1.0, abs(mean)):
                self.center[index], self.scale[index] = mean, deviation
                if self.scaling in ("quantile", "both") and not binary:
                    knots, scores = normal_scores(sample)
        return knots, scores

    def _number_expressions(self) -> list[pl.Expr]:
        """The numbers with their holes filled; scaled, unless a normal score is to be looked up."""
        found = []
        for index, number in enumerate(self.numbers):
            value = number.expression.fill_null(float(self.fill[index]))
            if not len(self.knots[index]):
                value = ((value - float(self.center[index])) / float(self.scale[index])).clip(-LARGEST, LARGEST)
            found.append(value.alias(number.name))
        return found

    def _mark_expressions(self) -> list[pl.Expr]:
        names = self.numeric[len(self.numeric) - len(self.marks) :]
        return [
            self.numbers[i].expression.is_null().cast(pl.Float32).alias(n)
            for i, n in zip(self.marks, names, strict=True)
        ]

    def _category_expressions(self) -> list[pl.Expr]:
        found = []
        for name, values in self.vocabulary.items():
            code = pl.col(name).cast(pl.Enum(values), strict=False).to_physical().cast(pl.Float32) + 1.0
            found.append(code.fill_null(0.0).alias(f"{name} (code)"))
        return found


def normal_scores(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots and their standard normal scores for a sorted sample: equal values share the middle of their ranks.

    Empty when the sample has fewer than three different values: they need no more than a scale."""
    import torch

    places = np.linspace(0, len(ordered) - 1, min(QUANTILES, len(ordered)))
    knots = np.unique(ordered[places.round().astype(int)])
    if len(knots) < 3:
        return np.empty(0), np.empty(0)
    left = np.searchsorted(ordered, knots, side="left")
    right = np.searchsorted(ordered, knots, side="right")
    ranks = (left + right) / 2 / len(ordered)
    scores = torch.special.ndtri(torch.from_numpy(ranks)).numpy()
    return knots, np.clip(scores, -EXTREME, EXTREME)


def interpolate(values: np.ndarray, knots: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """np.interp, four times as fast on unordered values: sorting them first keeps its search in the cache."""
    order = np.argsort(values)
    result = np.empty(len(values))
    result[order] = np.interp(values[order], knots, scores)
    return result


def _frequent(values: pl.Series, limit: int) -> list[str]:
    """The most frequent texts, at most `limit`, in alphabetical order."""
    counts = pl.DataFrame([values.drop_nulls().alias("value")]).group_by("value").len()
    kept = counts.sort(["len", "value"], descending=[True, False]).head(limit)
    return sorted(value for value in kept.get_column("value").to_list() if value != "")


def _date_numbers(frame: pl.DataFrame, name: str) -> list[Number]:
    """The date parts that differ between rows; at least the year."""
    varying = [part for part in DATE_PARTS if frame.select(date_part(name, part).drop_nulls().n_unique()).item() > 1]
    return [Number(f"{name} ({part})", name, part) for part in varying or ["year"]]
