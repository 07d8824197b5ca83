from __future__ import annotations

import ast
from typing import Any

import pytest

from trainctl.check.values import misfit

FITS = [
    (1, "int"),
    (1, "float"),
    (1.5, "float"),
    (True, "bool"),
    ("x", "str"),
    (None, "int | None"),
    (3, "Optional[int]"),
    (None, "typing.Optional[int]"),
    ("auto", "int | Literal['auto']"),
    ("a", "Literal['a', 'b']"),
    (["a"], "list[str]"),
    ([1, 2], "Sequence[float]"),
    ([0.9, "x"], "tuple[float, str]"),
    ([], "list"),
    ([object], "list[Module]"),
    ({"a": 1}, "dict[str, int]"),
    (3, "'int | str'"),
    ("anything", "Tensor"),
    ("anything", "int | Tensor"),
    ("anything", "Callable[[int], int]"),
    ("anything", "Literal[Kind.A]"),
    ("anything", "'not python ('"),
]


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_what_fits_or_is_not_understood(value: Any, annotation: str) -> None:
    assert misfit(value, ast.parse(annotation, mode="eval").body) is None


def test_no_annotation() -> None:
    assert misfit(3, None) is None


MISFITS = [
    ("yes", "bool", "must be true or false (unquoted), got the text 'yes'"),
    (1, "bool", "must be true or false (unquoted), got 1"),
    (8.0, "int", "must be a whole number, got 8.0"),
    ("8", "int", "must be a whole number, got the text '8'"),
    (True, "int", "must be a whole number, got true"),
    ("abc", "float", "must be a number, got the text 'abc'"),
    (3, "str", "must be a text, got 3"),
    (None, "int", "must be a whole number, got null"),
    (3, "list[int]", "must be a list of whole numbers, got 3"),
    (["a"], "list[int]", "must be a list of whole numbers, got ['a']"),
    (3, "list[Module]", "must be a list, got 3"),
    (3, "dict[str, int]", "must be a mapping, got 3"),
    ("x", "int | None", "must be a whole number or null, got the text 'x'"),
    ("meen", "Literal['mean', 'sum']", "must be one of mean, sum, got 'meen'; did you mean `mean`?"),
    ("x", "Literal['auto'] | float | None", "must be a number or one of auto or null, got 'x'"),
    (3, "Literal['auto']", "must be one of auto, got 3"),
]


@pytest.mark.parametrize(("value", "annotation", "sentence"), MISFITS)
def test_what_does_not_fit(value: Any, annotation: str, sentence: str) -> None:
    assert misfit(value, ast.parse(annotation, mode="eval").body) == sentence
