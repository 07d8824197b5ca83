"""Samplers by name, each of whose proposals depends on the study's seed and the trial's number alone.

Optuna's samplers draw from one stream per process, so that a resumed search would draw its first points again. Here
every trial has a sampler of its own, seeded by its number; what is learned comes from the study's finished trials.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from trainctl.errors import UsageError, did_you_mean
from trainctl.tuning.recent import recent

if TYPE_CHECKING:
    from optuna.study import Study

    from trainctl.tuning.dimensions import Dimension

NUMBER = "number"  # the user attribute that holds a trial's number
ONE_OBJECTIVE = ("cmaes",)
PICKLED = ("cmaes",)  # keep their state as a pickle among the trials

Distributions = dict[str, BaseDistribution]


class Sequenced(optuna.samplers.QMCSampler):
    """The point of a low-discrepancy sequence that a trial's number stands for, in all dimensions of the space."""

    def __init__(self, number: int, space: Distributions, **options: Any) -> None:
        super().__init__(warn_independent_sampling=False, **options)
        self._number, self._space = number, space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """All dimensions: a trial takes the values of those it has."""
        return self._space

    def _find_sample_id(self, study: Study, search_space: Distributions) -> int:
        return self._number


class Seeded(BaseSampler):
    """A fresh sampler for each trial of this process, from `make(number)`, kept until the trial ends.

    `seen(study)`: the study as the sampler is to see it.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seen: Callable[[Study], Study]) -> None:
        self._make, self._seen = make, seen
        self._of: dict[int, BaseSampler] = {}
        self._views: dict[int, Study] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """Optuna's: the dimensions that are drawn together."""
        return self._sampler(trial).infer_relative_search_space(self._view(study, trial), trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        """Optuna's: values that are drawn together."""
        return self._sampler(trial).sample_relative(self._view(study, trial), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Optuna's: one value on its own."""
        return self._sampler(trial).sample_independent(self._view(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Optuna's: a trial begins."""
        self._sampler(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Optuna's: a trial ends."""
        self._sampler(trial).after_trial(study, trial, state, values)
        self._of.pop(trial._trial_id, None)
        self._views.pop(trial._trial_id, None)

    def _view(self, study: Study, trial: FrozenTrial) -> Study:
        if trial._trial_id not in self._views:
            self._views[trial._trial_id] = self._seen(study)
        return self._views[trial._trial_id]

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        found = self._of.get(trial._trial_id)
        if found is None:
            found = self._of[trial._trial_id] = self._make(int(trial.user_attrs[NUMBER]))
        return found


def make(settings: Mapping[str, Any], seed: int, objectives: int, space: Distributions) -> BaseSampler:
    """The sampler of a config's `sampler` node; `space` is every dimension's distribution. UsageError."""
    options = dict(settings)
    name = str(options.pop("name"))
    kinds = {**_KINDS, "grid": optuna.samplers.RandomSampler}
    if name not in kinds:
        hint = did_you_mean(name, kinds)
        raise UsageError(f"no sampler `{name}`; have: {', '.join(kinds)}{hint}")
    if objectives > 1 and name in ONE_OBJECTIVE:
        raise UsageError(f"`sampler={name}` takes one objective, the study has {objectives}; use `sampler=nsga2`")
    kind = kinds[name]
    if kind is not Sequenced:
        refuse_unknown("sampler", name, options, kind)

    def of_trial(number: int) -> BaseSampler:
        if kind is Sequenced:
            return Sequenced(number, space, seed=_mixed(seed, "sequence"), **options)
        quiet = {"warn_independent_sampling": False} if name in ("gp", "cmaes") else {}
        return kind(seed=_mixed(seed, number), **quiet, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            of_trial(0)
        except (TypeError, ValueError) as error:
            raise UsageError(f"`sampler={name}`: {error}") from error
    return Seeded(_silent(of_trial), recent if name == "tpe" else lambda study: study)


_KINDS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "qmc": Sequenced,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}


def suggested(handle: optuna.Trial, dimension: Dimension) -> str | float | int:
    """A trial's value of a dimension: fixed, drawn now, or drawn before."""
    if dimension.kind == "choice":
        return str(handle.suggest_categorical(dimension.name, dimension.choices))
    if dimension.kind == "int":
        step = int(dimension.step or 1)
        return handle.suggest_int(dimension.name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return handle.suggest_float(dimension.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def refuse_unknown(node: str, name: str, options: Mapping[str, Any], kind: Callable[..., Any]) -> None:
    """UsageError for an option that a sampler or stopper does not have."""
    known = [key for key in inspect.signature(kind).parameters if key != "seed"]
    for key in options:
        if key not in known:
            raise UsageError(f"`{node}.{key}`: `{node}={name}` has no such option{did_you_mean(key, known)}")


def _silent(make: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
    """Without Optuna's remarks that parts of it may change; its version is pinned."""

    def quietly(number: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(number)

    return quietly


def _mixed(seed: int, number: int | str) -> int:
    """A seed of 32 bits that is unrelated to those of the neighbours."""
    return int.from_bytes(hashlib.sha256(f"trial {number} of seed {seed}".encode()).digest()[:4], "big")
