"""Rules for one value: each returns what is wrong with it, as the rest of a sentence, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from trainctl.errors import did_you_mean

Rule = Callable[[Any], str | None]


def shown(value: Any) -> str:
    """A value as a sentence names it: texts quoted and said to be texts, the rest as YAML writes it."""
    if isinstance(value, str):
        return f"the text '{value}'"
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if _is_word(value) else str(value)


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    words: Sequence[str | None] = (),
) -> Rule:
    """A finite number within bounds, or one of `words`."""
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'>' if open_low else '≥'} {low:g}")
    if high < math.inf:
        bounds.append(f"{'<' if open_high else '≤'} {high:g}")

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            got = f"'{value}'" if isinstance(value, str) else shown(value)
            return f"must be a finite number{_or(words)}, got {got}"
        low_ok = value > low if open_low else value >= low
        high_ok = value < high if open_high else value <= high
        return None if low_ok and high_ok else f"must be {' and '.join(bounds)}{_or(words)}, got {value}"

    return rule


def whole(low: int, high: int | None = None, *, words: Sequence[str | None] = ()) -> Rule:
    """A whole number of at least `low`, or one of `words`."""

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if fits and (high is None or value <= high):
            return None
        limit = f"≥ {low}" if high is None else f"from {low} to {high}"
        return f"must be a whole number {limit}{_or(words)}, got {shown(value)}"

    return rule


def truth(value: Any) -> str | None:
    """true or false, unquoted."""
    return None if isinstance(value, bool) else f"must be true or false (unquoted), got {shown(value)}"


def one_of(*words: str | int | None) -> Rule:
    """One of a few words; a typo is answered with the nearest."""

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        names = [str(word) for word in words if word is not None]
        got = f"'{value}'" if isinstance(value, str) else shown(value)
        null = " (or null)" if None in words else ""
        return f"must be one of {', '.join(names)}{null}, got {got}{did_you_mean(str(value), names)}"

    return rule


def duration(value: Any) -> str | None:
    """null, seconds, `90s`, `10m`, `1h30m`, `2d`, or `DD:HH:MM:SS`."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return None
    spelled = isinstance(value, str) and re.fullmatch(
        r"(?=.)(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s?)?|\d+(:\d+){1,3}", value.replace(" ", "")
    )
    return None if spelled else f"must be a duration such as 10m, 1h30m or 00:01:30:00, got {shown(value)}"


def text(value: Any) -> str | None:
    """A text that is not empty."""
    return None if isinstance(value, str) and value else f"must be a text, got {shown(value)}"


def text_or_null(value: Any) -> str | None:
    """A text, or null."""
    return None if value is None else text(value)


def each(rule: Rule) -> Rule:
    """The rule for a single value, or for every item of a list."""
    return lambda value: next(filter(None, map(rule, value if isinstance(value, list) else [value])), None)


def texts(value: Any) -> str | None:
    """A list of texts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return None
    if isinstance(value, list) and all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
        quoted = ",".join(repr(str(item)) for item in value)
        return f"must be a list of texts, got {shown(value)}; put numbers in quotes: \"[{quoted}]\""
    return f"must be a list such as [a,b], got {shown(value)}"


def positive_list(value: Any) -> str | None:
    """A list of whole numbers >= 1."""
    if isinstance(value, list) and value and all(whole(1)(item) is None for item in value):
        return None
    return f"must be a list of whole numbers ≥ 1 such as [128,128], got {shown(value)}"


def share_list(value: Any) -> str | None:
    """A list of numbers above 0 and below 1, empty for none."""
    share = number(0, 1, open_low=True, open_high=True)
    if isinstance(value, list) and all(share(item) is None for item in value):
        return None
    return f"must be a list of numbers > 0 and < 1 such as [0.5,0.75], got {shown(value)}"


def devices(value: Any) -> str | None:
    """A number of processes, `auto`, or a list of GPU numbers."""
    if isinstance(value, list) and value and all(whole(0)(item) is None for item in value):
        return None
    return whole(1, words=("auto",))(value)


def calibration_split(value: Any) -> str | None:
    """train: the other splits judge what was made."""
    if value == "train":
        return None
    why = "the test split would no longer be unseen" if value == "test" else "val and test judge the result"
    return f"must be train, since {why}, got {shown(value)}"


def _or(words: Sequence[str | int | None]) -> str:
    named = [str(word) for word in words if word is not None]
    return f" or {' or '.join(named)}" if named else ""


def _in_words(value: Any, words: Sequence[str | int | None]) -> bool:
    return any(value == word and type(value) is type(word) for word in words)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)
