"""From the words of `tune` or `train -m` to the config of each trial, before anything is created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from trainctl import launch
from trainctl.config import saved
from trainctl.errors import UsageError
from trainctl.run.run import Run
from trainctl.tuning import joining
from trainctl.tuning.composing import Composer
from trainctl.tuning.settings import NODES, PER_SWEEP, Settings, head
from trainctl.tuning.space import Point, Space, is_dimension, parse

_ALSO_TUNE = ("experiment", "debug")  # recipes that may set `tune.trials` and the like


@dataclass(frozen=True)
class Recipe:
    """What a study runs: its settings, its space, and how a point becomes a trial's config.

    `points` is the frozen grid, None when points are searched. `config` is the first point's config with the nodes
    `tune`, `sampler`, `stopper` and `space`: what the study's own config.yaml holds.
    """

    words: tuple[str, ...]
    searched: bool
    settings: Settings
    space: Space
    points: list[Point] | None
    composer: Composer
    config: dict[str, Any]
    added: tuple[str, ...]  # words that every trial gets

    @property
    def budget(self) -> int | None:
        """Trials in all; None: until time is up."""
        return self.settings.trials

    def trial_words(self, point: Point) -> list[str]:
        """What `trainctl train` would be given for a point."""
        return [*self.space.words(point), *self.added]

    def content(self, words: Sequence[str]) -> dict[str, Any]:
        """The content of a trial's config.yaml; UsageError when it is not a config that can be run."""
        return self.composer.checked(words)


def read(words: Sequence[str], options: launch.Options, searched: bool) -> Recipe:
    """The recipe of a command line; UsageError for everything that can be wrong with it."""
    tuned = [word for word in words if head(word) in NODES]
    rest = [word for word in words if head(word) not in NODES]
    if not searched:
        refuse_search_words(tuned)
    recipes = [word for word in rest if head(word) in _ALSO_TUNE and not is_dimension(word)]
    composed = yaml.safe_load(saved.dump(launch.composed("tune", [*recipes, *tuned], options)))
    nodes = {name: composed.get(name) for name in NODES}
    composer = Composer("train", options.config_path)
    space = parse("train", rest, options.config_path, nodes["space"], searched, composer)
    first = space.words(space.first())
    config = {**composer.content(first), **nodes}
    resolved = saved.resolve(config)
    launch.checked("tune", resolved, options)
    settings = Settings.from_config(resolved, searched)
    joining.refuse(settings, space)
    points = space.points() if not searched or settings.sampler["name"] == "grid" else None
    if points is not None:
        chosen = settings.trials if any(word.startswith("tune.trials=") for word in tuned) else None
        points = points[:chosen]
        settings = replace(settings, trials=len(points))
    settings = replace(settings, jobs=max(1, min(settings.jobs, settings.trials or settings.jobs)))
    added = settings.trial_words(config, first)
    recipe = Recipe(tuple(words), searched, settings, space, points, composer, config, tuple(added))
    for point in [space.first()] if points is None else points:
        recipe.content(recipe.trial_words(point))
    return recipe


def refuse_search_words(tuned: Sequence[str]) -> None:
    """UsageError for words of a search where all points are run."""
    for word in tuned:
        if head(word) != "space" and word.lstrip("+").partition("=")[0] not in PER_SWEEP:
            raise UsageError(
                f"`{word}` is for `trainctl tune`; `train -m` runs every point and takes {', '.join(PER_SWEEP)}"
            )


def of_run(run: Run, more: Sequence[str], options: launch.Options) -> Recipe:
    """The recipe that a study's run was made with, its budget changed by `more`; UsageError for other changes."""
    searched = run.verb == "tune"
    kept = [str(word) for word in run.record.get("overrides") or []]
    for word in more:
        key = word.lstrip("+~").partition("=")[0]
        if key not in CHANGEABLE:
            raise UsageError(
                f"a resumed study keeps its config; only {', '.join(CHANGEABLE)} may change, got `{word}`"
            )
    changed = {word.partition("=")[0] for word in more}
    words = [word for word in kept if word.partition("=")[0] not in changed]
    recipe = read([*words, *more], options, searched)
    refuse_difference(run.stored_config(), recipe.config)
    return recipe


CHANGEABLE = (
    "tune.trials",
    "tune.timeout",
    "tune.jobs",
    "tune.trial_timeout",
    "tune.max_failure_rate",
    "tune.executor",
    "tune.stack",
    "tune.refit",
)


def refuse_difference(before: dict[str, Any], now: dict[str, Any]) -> None:
    """UsageError naming the first keys in which a config differs from the study's; budgets may differ."""
    found = [
        f"`{key}` was {_shown(one)} and is {_shown(other)}"
        for key, one, other in _differences(before, now)
        if key not in CHANGEABLE
    ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(f"the config differs from the study's: {', '.join(found[:3])}{more}; start a new study")


def _shown(value: Any) -> str:
    return "missing" if value is _MISSING else str(value)


_MISSING = object()


def _differences(one: Any, other: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in [*one, *(name for name in other if name not in one)]:
            inner = f"{key}.{name}" if key else str(name)
            found += _differences(one.get(name, _MISSING), other.get(name, _MISSING), inner)
        return found
    return [] if one == other else [(key, one, other)]
