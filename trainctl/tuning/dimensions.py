"""One dimension of a space, read from a word in Hydra's sweep grammar: `a,b`, `range()`, `tag(log, interval())`."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Transformer,
)

from trainctl.config import overrides
from trainctl.config.overrides import OverrideError
from trainctl.errors import UsageError

JOINT = ("zip(", "@")  # beginnings of the names of dimensions that set several keys


@dataclass(frozen=True)
class Dimension:
    """What varies: a choice of texts in Hydra's grammar, or a number from `low` to `high`, both included.

    `name` is the key with its `+`, or `zip(a,b)`, or `@file.csv`; a choice of the latter two is `a=1 b=2`.
    """

    name: str
    kind: Literal["choice", "float", "int"]
    choices: tuple[str, ...] = ()
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    step: float | int | None = None

    @property
    def joint(self) -> bool:
        """Whether a value sets several keys."""
        return self.name.startswith(JOINT)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys that it sets, as they are typed."""
        if not self.joint:
            return (self.name,)
        return tuple(dict.fromkeys(word.partition("=")[0] for choice in self.choices for word in split(choice)))

    def words(self, value: str | float | int) -> list[str]:
        """The override words that a value stands for."""
        if self.joint:
            return split(str(value))
        return [f"{self.name}={self._snapped(value)}"]

    def values(self) -> list[str | float | int] | None:
        """All values in order; None when they cannot be listed."""
        if self.kind == "choice":
            return list(self.choices)
        count = self.count()
        return None if count is None else [self._snapped(self.low + i * (self.step or 0)) for i in range(count)]

    def count(self) -> int | None:
        """How many values there are."""
        if self.kind == "choice":
            return len(self.choices)
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def ends(self) -> list[str | float | int]:
        """The values that tell whether all are allowed: each choice, or both bounds."""
        return list(self.choices) if self.kind == "choice" else [self.low, self.high]

    def rounded(self) -> Dimension | None:
        """The same bounds for whole numbers only; None when a bound is none."""
        if not (float(self.low).is_integer() and float(self.high).is_integer()):
            return None
        return replace(self, kind="int", low=int(self.low), high=int(self.high))

    def text(self) -> str:
        """The dimension in Hydra's grammar."""
        if self.kind == "choice":
            return ",".join(self.choices)
        if self.step is not None:
            return f"range({self.low},{self.high},{self.step})"
        return interval(self.low, self.high, self.log)

    def _snapped(self, value: str | float | int) -> str | float | int:
        """0.3 for 0.1 + 0.1 + 0.1."""
        return float(f"{value:.12g}") if self.kind == "float" and self.step is not None else value


def interval(low: float | int, high: float | int, log: bool) -> str:
    """`int(tag(log, interval(16,256)))`."""
    text = f"interval({low:g},{high:g})"
    text = f"tag(log, {text})" if log else text
    return f"int({text})" if isinstance(low, int) else text


def read(word: str, number: int = 1) -> Override:
    """The override, the command's `number`-th; beside what Hydra reads also `choice(...)` with a null in it."""
    try:
        return overrides.parse([word], number)[0]
    except OverrideError:
        key, _, value = word.partition("=")
        if not (value.startswith("choice(") and value.endswith(")") and value != "choice()"):
            raise
        try:
            return overrides.parse([f"{key}={value[7:-1]}"])[0]
        except OverrideError:
            pass
        raise


def dimension(override: Override, word: str, options: list[str], searched: bool) -> Dimension:
    """The dimension that a sweep is; UsageError for one that cannot be searched.

    `options` are those of the group that it chooses from. Where all points are run, a range is a choice of its
    numbers and may be a single one.
    """
    name, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, IntervalSweep):
        return _interval(name, sweep, word)
    if isinstance(sweep, RangeSweep) and searched:
        return _range(name, sweep, word)
    choices = tuple(dict.fromkeys(text_of(name, value) for value in listed(override, word, options)))
    if isinstance(sweep, ChoiceSweep) and searched:
        _check_tags(sweep.tags, word, none=True)
    if not choices:
        raise UsageError(f"`{word}` is empty: it gives no value at all")
    if searched and len(choices) < 2:
        raise UsageError(
            f"`{word}` gives a single value, which is nothing to search; give two or more, "
            f"or write `{name}={choices[0]}`"
        )
    return Dimension(name, "choice", choices)


def listed(override: Override, word: str, options: list[str]) -> list[Any]:
    """The values of a sweep that is a list or a range, in Hydra's order; a shuffled one in the same order each time."""
    sweep = override.value()
    if isinstance(sweep, Glob):
        return sweep.filter(options)
    if isinstance(sweep, IntervalSweep):
        raise UsageError(f"`{word}` is a continuous range, whose values cannot be listed")
    if isinstance(sweep, RangeSweep):
        if not sweep.step:
            raise UsageError(f"`{word}` has a step of 0, and would never end")
        values: list[Any] = list(sweep.range())
    else:
        assert isinstance(sweep, ChoiceSweep)
        values = list(sweep.list)
    if sweep.shuffle:
        random.Random(word).shuffle(values)
    return values


def text_of(key: str, value: Any) -> str:
    """A value in Hydra's grammar, such that `key=text` is read as that value again."""
    plain = Override._convert_value(value)
    text = Transformer.str(value)
    try:
        again = overrides.parse([f"{key}={text}"])[0].value()
    except UsageError:
        again = None
    return text if again == plain and type(again) is type(plain) else str(Transformer.str(_quoted(plain)))


def split(text: str) -> list[str]:
    """Words separated by spaces outside quotes and brackets."""
    words, depth, quote, start, index = [], 0, "", 0, 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace() and not depth:
            words.append(text[start:index])
            start = index + 1
        else:
            depth += (char in "([{") - (char in ")]}")
        index += 1
    return [word for word in [*words, text[start:]] if word]


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    if isinstance(value, dict):
        return {key: _quoted(child) for key, child in value.items()}
    return [_quoted(child) for child in value] if isinstance(value, list) else value


def _interval(name: str, sweep: IntervalSweep, word: str) -> Dimension:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    _check_tags(sweep.tags, word)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"`{word}` needs two finite numbers as bounds")
    if log and min(low, high) <= 0:
        raise UsageError(f"`{word}` is logarithmic, so that its bounds must be > 0, got {min(low, high):g}")
    if low > high:
        turned = f"{name}={interval(high, low, log)}"
        raise UsageError(f"`{word}` has its bounds the wrong way round; write `{turned}`")
    if low == high:
        raise UsageError(f"`{word}` is a single point, which is nothing to search; widen it, or write `{name}={low:g}`")
    return Dimension(name, "int" if isinstance(low, int) else "float", low=low, high=high, log=log)


def _range(name: str, sweep: RangeSweep, word: str) -> Dimension:
    _check_tags(sweep.tags, word, none=True)
    start, stop, step = (Decimal(str(value)) for value in (sweep.start, sweep.stop, sweep.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise UsageError(f"`{word}` is empty: it gives no value at all")
    if count < 2:
        raise UsageError(
            f"`{word}` gives a single value, which is nothing to search; give two or more, or write `{name}={start}`"
        )
    low, high = sorted((start, start + (count - 1) * step))
    if isinstance(sweep.start, int) and isinstance(sweep.step, int):
        return Dimension(name, "int", low=int(low), high=int(high), step=abs(sweep.step))
    return Dimension(name, "float", low=float(low), high=float(high), step=float(abs(step)))


def _check_tags(tags: set[str], word: str, none: bool = False) -> None:
    unknown = sorted(tags - {"log"})
    if unknown:
        raise UsageError(
            f"`{word}` has the tag `{unknown[0]}`, which means nothing; the one tag is `log`, "
            "as in `tag(log, interval(1e-4,1e-1))`"
        )
    if none and tags:
        raise UsageError(f"`{word}` has the tag `log`, which is for an interval, as in `tag(log, interval(1e-4,1e-1))`")
