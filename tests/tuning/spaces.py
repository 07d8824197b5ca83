"""Spaces of `train` on made-up data, in a word."""

from __future__ import annotations

from typing import Any

import pytest

from trainctl.errors import UsageError
from trainctl.tuning.composing import Composer
from trainctl.tuning.space import Space, parse

COMPOSER = Composer("train", None)
DATA = "data=synthetic"


def space(*words: str, node: dict[str, Any] | None = None, searched: bool = True) -> Space:
    return parse("train", [DATA, *words], None, node, searched, COMPOSER)


def sentence(*words: str, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        space(*words, **options)
    return str(caught.value)


def grid(*words: str, **options: Any) -> list[list[str]]:
    """What each point adds to the fixed words."""
    found = space(*words, **options)
    assert found.size() == len(found.points())
    return [found.words(point)[len(found.fixed):] for point in found.points()]
