"""Stoppers by name: who ends weak trials early, and the sentence that says why one was ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner

from trainctl.errors import UsageError, did_you_mean
from trainctl.tuning.samplers import refuse_unknown

_KINDS: dict[str, Callable[..., BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}
_SHARES = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


def make(settings: Mapping[str, Any], objectives: int) -> BasePruner:
    """Optuna's pruner for a config's `stopper` node; UsageError for one that cannot be."""
    options = dict(settings)
    name = str(options.pop("name"))
    if name not in _KINDS:
        hint = did_you_mean(name, _KINDS)
        raise UsageError(f"no stopper `{name}`; have: {', '.join(_KINDS)}{hint}")
    if objectives > 1 and name != "none":
        raise UsageError(f"`stopper={name}` takes one objective, the study has {objectives}; use `stopper=none`")
    refuse_unknown("stopper", name, options, _KINDS[name])
    if options.get("min_resource", 1) is None:
        options["min_resource"] = 1  # a share of a trial whose length nobody knows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _KINDS[name](**options)
        except (TypeError, ValueError) as error:
            raise UsageError(f"`stopper={name}`: {error}") from error


def verdict(settings: Mapping[str, Any], objective: str, epoch: int, value: float) -> str:
    """Why a trial is ended, in a user's words."""
    name = str(settings["name"])
    said = f"{name}: {objective} {value:.4g}"
    if name == "median":
        return f"{said} at epoch {epoch} shows a trial worse than the median"
    factor = int(settings.get("reduction_factor", 3))
    share = _SHARES.get(factor, f"1/{factor}")
    bracket = " of its bracket" if name == "hyperband" else ""
    return f"{said} is not in the best {share}{bracket} at epoch {epoch}"
