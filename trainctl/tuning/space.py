"""The space of a search or grid: which override words vary, and what `trainctl train` would be given for a point.

A dimension whose key only some options have is left out of the points with other options.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainctl.config import listing
from trainctl.errors import UsageError
from trainctl.tuning.composing import Composer
from trainctl.tuning.dimensions import JOINT, Dimension, dimension, read
from trainctl.tuning.points import from_csv, zipped

Value = str | float | int
Point = dict[str, Value]


@dataclass(frozen=True)
class Space:
    """`dimensions`: config groups first, then keys, each in the order typed; `fixed`: all other override words."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    order: tuple[str, ...] = ()  # names of the dimensions as typed: the last varies fastest in a grid
    composer: Composer | None = field(default=None, compare=False, repr=False)

    def point(self, choose: Callable[[Dimension], Value]) -> Point:
        """A value for each dimension, asked of `choose`; keys that the chosen options do not have are left out."""
        point: Point = {}
        chosen = list(self.fixed)
        for one in self.dimensions:
            if self.is_group(one):
                point[one.name] = choose(one)
                chosen += self._options(one.words(point[one.name]))
            elif self.composer is None or all(self._has(chosen, key) for key in one.keys):
                point[one.name] = choose(one)
        return point

    def words(self, point: Mapping[str, Value]) -> list[str]:
        """The words that `trainctl train` would be given for a point."""
        return [
            *self.fixed,
            *(word for one in self.dimensions if one.name in point for word in one.words(point[one.name])),
        ]

    def first(self) -> Point:
        """The first choice, or lower bound, of everything."""
        return self.point(lambda one: one.ends()[0])

    def points(self) -> list[Point]:
        """All points in Hydra's order, each once; UsageError when a dimension is a continuous range."""
        values = {one.name: self._listed(one) for one in self._typed()}
        places = {name: {value: place for place, value in enumerate(values[name])} for name in values}
        found: list[Point] = []
        for names in self._active():
            axes = (values[name] if choice is None else [choice] for name, choice in names.items())
            found += [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*axes)]
        return sorted(found, key=lambda point: [places[name][point[name]] if name in point else 0 for name in places])

    def size(self) -> int | None:
        """How many points there are, None when a dimension is a continuous range."""
        counts = {one.name: one.count() for one in self.dimensions}
        if None in counts.values():
            return None
        active = ([name for name, choice in names.items() if choice is None] for names in self._active())
        return sum(math.prod(counts[name] or 0 for name in names) for names in active)

    def to_json(self) -> dict[str, Any]:
        """Plain built-ins: what must be equal when a study is resumed or joined."""
        dimensions = [{**asdict(one), "choices": list(one.choices)} for one in self.dimensions]
        return {"dimensions": dimensions, "fixed": list(self.fixed)}

    def is_group(self, one: Dimension) -> bool:
        """Whether a dimension chooses the option of a group, alone or beside other keys."""
        return self.composer is not None and any(self.composer.is_group(key.lstrip("+")) for key in one.keys)

    def options(self) -> Iterator[list[str]]:
        """The fixed words with each combination of options that the group dimensions choose."""
        groups = [
            [self._options(one.words(choice)) for choice in one.choices]
            for one in self.dimensions
            if self.is_group(one)
        ]
        for combination in itertools.product(*groups):
            yield [*self.fixed, *itertools.chain.from_iterable(combination)]

    def _active(self) -> Iterator[dict[str, Value | None]]:
        """For each combination of options the names of the dimensions that it has; the value of keys is None."""
        groups = [one for one in self.dimensions if self.is_group(one)]
        for combination in itertools.product(*(one.choices for one in groups)):
            chosen = {one.name: choice for one, choice in zip(groups, combination, strict=True)}
            names = self.point(lambda one, chosen=chosen: chosen.get(one.name, ""))  # type: ignore[misc]
            yield {name: chosen.get(name) for name in names}

    def _typed(self) -> list[Dimension]:
        return sorted(self.dimensions, key=lambda one: self.order.index(one.name) if one.name in self.order else -1)

    def _options(self, words: Sequence[str]) -> list[str]:
        assert self.composer is not None
        return [word for word in words if self.composer.is_group(word.partition("=")[0].lstrip("+"))]

    def _has(self, words: Sequence[str], key: str) -> bool:
        return key.startswith("+") or self.composer is None or self.composer.has(words, key)

    def _listed(self, one: Dimension) -> list[Value]:
        values = one.values()
        if values is None:
            raise UsageError(
                f"`{one.name}={one.text()}` is a continuous range, which a grid cannot run through; "
                f"list the values, as in `{one.name}=1,2,3` or `{one.name}=range(1,10)`"
            )
        return values


def is_dimension(word: str) -> bool:
    """Whether a word varies something; OverrideError when it cannot be read."""
    return word.startswith(JOINT) or read(word).is_sweep_override()


def parse(
    verb: str,
    words: Sequence[str],
    config_dir: Path | None,
    node: Mapping[str, Any] | None = None,
    searched: bool = True,
    composer: Composer | None = None,
) -> Space:
    """The space of a command line and of the config's `space` node; UsageError for whatever is wrong with it.

    A word replaces what the node says of its key. With `searched` there must be a dimension, of two values or more.
    `composer` is used where one for the same verb and folder exists.
    """
    composer = composer or Composer(verb, config_dir)
    typed = _entries(
        [word for word in words if not word.lstrip("+~").startswith(("hydra/", "hydra."))], composer, searched
    )
    given = {key.lstrip("+~") for name, entry in typed.items() for key in _keys(name, entry)}
    own = [f"{key}={text}" for key, text in _sweeps(node or {}) if key.lstrip("+") not in given]
    entries = {**_entries(own, composer, searched), **typed}
    dimensions = [entry for entry in entries.values() if isinstance(entry, Dimension)]
    fixed = tuple(entry for entry in entries.values() if isinstance(entry, str))
    _refuse_twice(entries)
    if searched and not dimensions:
        raise UsageError(
            "nothing to search: no word gives several values; write one as in "
            "'optimizer.lr=tag(log, interval(1e-4,1e-1))' or `model=mlp,resmlp`"
        )
    space = Space((), (), composer=composer)
    dimensions.sort(key=lambda one: not space.is_group(one))
    names = tuple(name for name, entry in entries.items() if isinstance(entry, Dimension))
    space = Space(tuple(dimensions), fixed, names, composer)
    replaced = any(composer.is_group(key) for key, _ in _sweeps(node or {}) if key in given)
    unneeded = [word.partition("=")[0] for word in own] if replaced else []
    space = replace(space, dimensions=tuple(_known(space, composer, unneeded)))
    _check_values(space, composer)
    return space


def _entries(words: Sequence[str], composer: Composer, searched: bool) -> dict[str, Dimension | str]:
    """Each key's dimension or fixed word; of two words for one key the last counts, as with Hydra."""
    entries: dict[str, Dimension | str] = {}
    for number, word in enumerate(words, start=1):
        if word.startswith(JOINT):
            entry = zipped(word) if word.startswith("zip(") else from_csv(word)
            if searched and len(entry.choices) < 2:
                raise UsageError(f"`{word}` is a single point, which is nothing to search; give two or more")
            entries[entry.name] = entry
            continue
        override = read(word, number)
        group = override.key_or_group
        options = [file.stem for file in listing.files(group, composer.folders)]
        sweep = override.is_sweep_override()
        entries[override.get_key_element()] = dimension(override, word, options, searched) if sweep else word
    return entries


def _keys(name: str, entry: Dimension | str) -> tuple[str, ...]:
    return entry.keys if isinstance(entry, Dimension) else (name,)


def _sweeps(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, sweep) of the `space` node, whose keys may be nested."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _sweeps(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value
        else:
            raise UsageError(f"`space` must hold a text such as `interval(0,0.5)` for `{prefix}{key}`, got {value}")


def _refuse_twice(entries: Mapping[str, Dimension | str]) -> None:
    """UsageError for a key that a joint dimension sets beside another word."""
    owners: dict[str, str] = {}
    for name, entry in entries.items():
        for key in (key.lstrip("+~") for key in _keys(name, entry)):
            joint = name.startswith(JOINT) or owners.get(key, "").startswith(JOINT)
            if key in owners and joint:
                raise UsageError(f"`{key}` is given by `{owners[key]}` and again by `{name}`; keep one")
            owners[key] = name


def _known(space: Space, composer: Composer, unneeded: Sequence[str]) -> Iterator[Dimension]:
    """The dimensions; UsageError for a key that no choice of options has, unless it is in `unneeded`.

    Those are keys of the `space` node that speak of a net which a word has replaced by another.
    """
    for one in space.dimensions:
        missing = [key for key in (() if space.is_group(one) else one.keys) if not _exists(space, key)]
        if missing and one.name not in unneeded:
            sentences = [composer.unknown(words, missing[0]) for words in space.options()]
            raise next((said for said in sentences if "did you mean" in str(said)), sentences[0])
        if not missing:
            yield one


def _exists(space: Space, key: str) -> bool:
    return any(space._has(words, key) for words in space.options())


def _check_values(space: Space, composer: Composer) -> None:
    """UsageError unless each choice and each bound makes a config that can be run, others at their first value."""
    telling = [(one, value) for one in space.dimensions for value in one.ends()]
    points = [_with(space, one, value) for one, value in telling] or [space.first()]
    for point in points:
        try:
            composer.checked(space.words(point))
        except UsageError:
            _refuse_fractions(space, composer)
            raise


def _refuse_fractions(space: Space, composer: Composer) -> None:
    """UsageError when a continuous range would do if it had whole numbers only."""
    whole = {one.name: one.rounded() for one in space.dimensions if one.kind == "float" and one.step is None}
    rounded = replace(space, dimensions=tuple(whole.get(one.name) or one for one in space.dimensions))
    for one in filter(None, whole.values()):
        if _runs(rounded, composer, one, one.low) and not _runs(rounded, composer, one, float(one.low)):
            raise UsageError(f"`{one.name}` takes whole numbers; write `{one.name}={one.text()}`")


def _runs(space: Space, composer: Composer, one: Dimension, value: Value) -> bool:
    try:
        composer.checked(space.words(_with(space, one, value)))
    except UsageError:
        return False
    return True


def _with(space: Space, one: Dimension, value: Value) -> Point:
    """The first point that has the value: options are tried until the dimension's key exists."""
    groups = [group for group in space.dimensions if space.is_group(group) and group is not one]
    for choices in itertools.product(*(group.choices for group in groups)):
        chosen = {**{group.name: choice for group, choice in zip(groups, choices, strict=True)}, one.name: value}
        point = space.point(lambda other, chosen=chosen: chosen.get(other.name, other.ends()[0]))  # type: ignore[misc]
        if one.name in point:
            return point
    return space.first()
