"""An interrupted run goes on in its own directory: what must hold first, and which values may change."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from trainctl import launch
from trainctl.budgets import Budget
from trainctl.errors import RunError, UsageError
from trainctl.run import checkpoints, failures, files
from trainctl.run.record import changed
from trainctl.run.run import Run

log = logging.getLogger("trainctl")

RESUMABLE_KEYS = ("trainer.max_epochs", "trainer.max_time", "callbacks.early_stopping.patience", "trainer.threads")


def resume(run: Run, overrides: Sequence[str], options: launch.Options) -> Run:
    """Go on with an interrupted run of MODEL_VERBS in its own directory; a completed one is left as it is."""
    started = time.perf_counter()
    launch.trusted_config(run, options)
    source = compressed_by(run) if run.verb != "train" else None
    kept = {key: run.record[key] for key in launch.KEPT_ARGUMENTS if key in run.record}
    options = replace(options, arguments={**kept, **options.arguments})
    with run.lock():
        changes = changes_of(overrides)
        config = changed(run.config, changes)
        launch.checked(run.verb, config, options)
        reason = nothing_left(run, config)
        if reason:
            log.warning("%s", reason)
            return run
        if source is None:
            check_place(run, config)
        if run.status == "crashed":
            log.warning("the run ended without a word (killed, or the machine went down); going on with it")
        with contextlib.nullcontext() if launch.has_children(config) else failures.kept_when_refused(run):
            run.resume(list(overrides))
            if changes:
                run.rewrite_config(config)
            return launch.carry_out(run, options, source, resume=True, started=started)


def compressed_by(run: Run) -> Run:
    """The run that an interrupted `prune`, `quantize` or `compress` is about. RunError for a damaged record."""
    budget = run.record.get("budget", None if run.verb == "compress" else {})  # a point of a search has none
    if run.parent is None or not isinstance(budget, dict) or not set(budget) <= set(Budget().to_dict()):
        shown = files.shown(run.path / "run.json")
        raise RunError(f"`{shown}` is damaged: it lacks `parent` or `budget`; `trainctl {run.verb}` again")
    return Run.open(run.parent)


def check_place(run: Run, config: dict[str, Any]) -> None:
    """RunError without a whole checkpoint to go on from, UsageError when the run is past its last epoch already."""
    if launch.has_children(config):
        return
    done, limit = checkpoints.find(run.path, set_aside=False).epoch, config["trainer"].get("max_epochs")
    if done is not None and limit is not None and done > limit:
        raise UsageError(f"the run has done {done} epochs; `trainer.max_epochs` must be {done} or more, got {limit}")


def changes_of(overrides: Sequence[str]) -> dict[str, Any]:
    """The few values that a resumed run may change; UsageError for any other."""
    changes = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in RESUMABLE_KEYS:
            raise UsageError(
                f"a resumed run keeps its config; only {', '.join(RESUMABLE_KEYS)} may change, got `{override}`; "
                "start a new run with `trainctl train --from RUN` instead"
            )
        changes[key] = yaml.safe_load(value)
    return changes


def nothing_left(run: Run, config: dict[str, Any]) -> str | None:
    """Why a completed run has nothing to go on with, or None."""
    if run.status != "completed":
        return None
    if run.verb != "train":
        return "run is already complete"
    done, limit = run.record.get("epochs", 0), config["trainer"].get("max_epochs")
    if config == run.config:
        return f"run is already complete (epoch {done} of {limit}); use trainer.max_epochs= to extend"
    return None
