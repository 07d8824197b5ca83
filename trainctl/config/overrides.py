"""Reading override words with Hydra's own grammar, and expanding sweeps.

Errors name the override, its column and the quoted form that would have been read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from trainctl.errors import UsageError


class OverrideError(UsageError):
    """A mistake in one override; `word` is that override as it was typed."""

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


def parse(overrides: Sequence[str], start: int = 1) -> list[Override]:
    """The overrides as Hydra objects; OverrideError names the first that cannot be read, counted from `start`."""
    parser = OverridesParser.create()
    return [_parse_one(parser, text, number) for number, text in enumerate(overrides, start)]


def is_sweep(overrides: Sequence[str]) -> bool:
    """Whether any override stands for several values (`a,b`, `range()`, `choice()`, `interval()`)."""
    return any(override.is_sweep_override() for override in parse(overrides))


def refuse_sweep(parsed: Sequence[Override]) -> None:
    """UsageError when an override holds several values but one run was asked for."""
    for override in parsed:
        if override.is_sweep_override():
            key, value = _split(_text(override))
            plain = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP
            instead = f", or write `{key}=[{value}]` for a list or {_quoted(key, value)} for a text" if plain else ""
            message = f"`{key}={value}` gives several values; add `-m` to run each{instead}"
            raise OverrideError(message, _text(override))


def points(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of a grid as plain override lists, in Hydra's order (the last key varies fastest).

    A key given twice keeps its last value, as in Hydra's own sweeper.
    """
    axes: dict[str, list[str]] = {}
    for override in parse(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = [_text(override)]
        elif override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UsageError(
                f"`{_text(override)}` is a continuous range, which a grid cannot run through; "
                f"list the values, as in `{key}=1,2,3` or `{key}=range(1,10)`"
            )
    return [list(point) for point in itertools.product(*axes.values())]


def _parse_one(parser: OverridesParser, text: str, number: int) -> Override:
    key, value = _split(text)
    if not text.strip() or not key.strip("+~ "):
        raise OverrideError(f"override {number} (`{text}`) has no key; write it as `key=value`", text)
    try:
        return parser.parse_override(text)
    except HydraException as error:
        column = _column(error.__cause__, text)
    if "=" not in text:
        raise OverrideError(f"`{text}` is not an override; write it as `{text}=VALUE`", text)
    if "=" in value and re.fullmatch(r"[\w./=+-]+", value):
        message = f"cannot read override {number}: the value contains `=`; quote it: {_quoted(key, value)}"
        raise OverrideError(message, text)
    place = f"`{text[column - 1 :][:10]}`" if column <= len(text) else "its end"
    message = f"cannot read override {number} (`{text}`) at column {column} ({place}); quote it: {_quoted(key, value)}"
    raise OverrideError(message, text)


def _column(cause: BaseException | None, text: str) -> int:
    """Where the grammar gave up, from 1; just after `=` when it does not say."""
    token = getattr(cause, "offendingToken", None)
    index = getattr(cause, "startIndex", None) if token is None else token.column
    fallback = text.find("=") + 1
    return min((fallback if index is None else int(index)), len(text)) + 1


def _split(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _quoted(key: str, value: str) -> str:
    """The form that a POSIX shell and Hydra's grammar both read as a plain text."""
    inner = value.strip("\"'").replace('"', '\\"')
    return f"'{key}=\"{inner}\"'"


def _text(override: Override) -> str:
    return override.input_line or f"{override.get_key_element()}={override.get_value_element_as_str()}"
