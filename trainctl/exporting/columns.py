"""The raw columns of a table as inputs of a graph, one each: numbers, texts, and the codes that are made of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from trainctl.data.columns import BOOLEANS, Column, as_text, to_numbers
from trainctl.exporting.ports import BATCH, Feed, Port

NUMBERS, CODES = "numbers", "codes"
IR_VERSION = 10  # as torch's exporter writes; ONNX Runtime 1.18 and later read it
_ONNX_ML = 3
_DECLARED = "set by data.columns"
_MEANINGS = {
    "numeric": "the number; NaN where missing",
    "boolean": "1 for true, 0 for false, NaN where missing",
    "datetime": "seconds since 1970-01-01 00:00, without a time zone; NaN where missing",
    "words": "yes, no, true, false, ... as in the table; empty where missing",
    "categorical": "the text without blanks around it; empty where missing, and any other text is unseen",
}


@dataclass(frozen=True)
class RawColumns:
    """Columns that training used, in the order of the file.

    words: booleans that the file has as texts. vocabulary: per categorical column the texts of the codes 1, 2, ...
    """

    columns: tuple[Column, ...]
    words: frozenset[str]
    vocabulary: dict[str, list[str]]

    @classmethod
    def of(cls, columns: Sequence[Column], vocabulary: dict[str, list[str]], frame: pl.DataFrame) -> RawColumns:
        """`frame`: raw rows, which show how booleans are written."""
        used = tuple(column for column in columns if column.kind != "drop")
        words = frozenset(c.name for c in used if c.kind == "boolean" and _is_words(c, frame.get_column(c.name)))
        return cls(used, words, vocabulary)

    @property
    def numbers(self) -> list[str]:
        """Columns that become numbers, in the order of the tensor `numbers`."""
        return [column.name for column in self.columns if column.kind != "categorical"]

    def ports(self) -> tuple[Port, ...]:
        """One input a column."""
        return tuple(Port(c.name, self._dtype(c), (BATCH,), self._meaning(c)) for c in self.columns)

    def tensors(self) -> tuple[Port, ...]:
        """The two inputs of a format without texts: numbers and codes, those that there are."""
        listed = f"columns {', '.join(self.numbers)}; NaN where missing, booleans 1 or 0, dates as seconds since 1970"
        coded = f"columns {', '.join(self.vocabulary)}; code i is the i-th of `vocabulary`, 0 is missing or unseen"
        ports = [Port(NUMBERS, "float64", (BATCH, len(self.numbers)), listed)] if self.numbers else []
        codes = [Port(CODES, "int64", (BATCH, len(self.vocabulary)), coded)] if self.vocabulary else []
        return (*ports, *codes)

    def feed(self, typed: pl.DataFrame, frame: pl.DataFrame) -> Feed:
        """Values for `ports`: `typed` as `columns.typed` made it of the raw `frame`."""
        return {column.name: self._values(column, typed, frame) for column in self.columns}

    def stacked(self, typed: pl.DataFrame) -> Feed:
        """Values for `tensors`."""
        found = {}
        if self.numbers:
            found[NUMBERS] = np.stack([_floats(typed.get_column(name)) for name in self.numbers], 1)
        if self.vocabulary:
            codes = [typed.get_column(name).cast(pl.Enum(known), strict=False).to_physical().cast(pl.Int64)
                     for name, known in self.vocabulary.items()]  # fmt: skip
            found[CODES] = np.stack([code.fill_null(-1).to_numpy() + 1 for code in codes], 1)
        return found

    def graph(self, opset: int) -> Any:
        """The ONNX model from `ports` to `tensors`: LabelEncoder for texts, the columns put side by side.

        No name inside it is that of a column; its outputs are in the order of `tensors`.
        """
        from onnx import TensorProto, helper

        own = apart(column.name for column in self.columns)
        nodes, sides = [helper.make_node("Constant", [], [f"{own}axis"], value_ints=[1])], {NUMBERS: [], CODES: []}  # type: ignore[var-annotated]
        for index, column in enumerate(self.columns):
            side, value = NUMBERS if column.name in self.numbers else CODES, column.name
            if self._dtype(column) == "string":
                value = f"{own}known{index}"
                nodes += self._encoded(column, value)
            nodes.append(helper.make_node("Unsqueeze", [value, f"{own}axis"], [f"{own}column{index}"]))
            sides[side].append(f"{own}column{index}")
        nodes += [helper.make_node("Concat", parts, [own + side], axis=1) for side, parts in sides.items() if parts]
        types = {"float64": TensorProto.DOUBLE, "int64": TensorProto.INT64, "string": TensorProto.STRING}
        given, made = (
            [helper.make_tensor_value_info(begin + port.name, types[port.dtype], port.shape) for port in ports]
            for begin, ports in (("", self.ports()), (own, self.tensors()))
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", _ONNX_ML)]
        return helper.make_model(
            helper.make_graph(nodes, "columns", given, made), opset_imports=opsets, ir_version=IR_VERSION
        )

    def _encoded(self, column: Column, name: str) -> list[Any]:
        from onnx import TensorProto, helper

        def encoder(output: str, **options: Any) -> Any:
            return helper.make_node("LabelEncoder", [column.name], [output], domain="ai.onnx.ml", **options)

        if column.name in self.vocabulary:
            known = self.vocabulary[column.name]
            codes = list(range(1, len(known) + 1))
            # an encoder without a key is refused; no text has a NUL
            return [encoder(name, keys_strings=known or ["\0"], values_int64s=codes or [0], default_int64=0)]
        words = {form: value for word, value in BOOLEANS.items() for form in (word, word.capitalize(), word.upper())}
        float_name = f"{name}_float"
        return [
            encoder(float_name, keys_strings=list(words), values_floats=list(words.values()), default_float=np.nan),
            helper.make_node("Cast", [float_name], [name], to=TensorProto.DOUBLE),
        ]

    def _dtype(self, column: Column) -> str:
        return "string" if column.kind == "categorical" or column.name in self.words else "float64"

    def _meaning(self, column: Column) -> str:
        return _MEANINGS["words" if column.name in self.words else column.kind]

    def _values(self, column: Column, typed: pl.DataFrame, frame: pl.DataFrame) -> np.ndarray:
        if column.name in self.words:
            return _texts(as_text(frame.get_column(column.name)))
        series = typed.get_column(column.name)
        return _texts(series) if column.kind == "categorical" else _floats(series)


def apart(names: Iterable[str]) -> str:
    """What none of the names begins with: a beginning for names of one's own beside them."""
    taken, begin = set(names), "/"
    while any(name.startswith(begin) for name in taken):
        begin += "/"
    return begin


def _is_words(column: Column, raw: pl.Series) -> bool:
    """Whether a boolean column is written in words; where the user declared it, the rows at hand tell."""
    if column.why != _DECLARED:
        return column.why not in ("0 and 1", "true and false")
    return raw.dtype == pl.String and to_numbers(raw).null_count() > raw.null_count()


def _texts(series: pl.Series) -> np.ndarray:
    return np.array(series.fill_null("").to_list(), dtype=object)


def _floats(series: pl.Series) -> np.ndarray:
    if series.dtype == pl.Datetime:
        series = series.dt.epoch("us").cast(pl.Float64) / 1e6
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
