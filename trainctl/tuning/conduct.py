"""A study from its first word to its record: begin, resume, join, end."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl import launch
from trainctl.config import saved
from trainctl.errors import RunError, Stopped, UsageError, did_you_mean
from trainctl.run import directory, failures, files
from trainctl.run.run import Run
from trainctl.tuning import results
from trainctl.tuning.display import Display
from trainctl.tuning.facts import Facts
from trainctl.tuning.plan import Plan
from trainctl.tuning.pool import Pool
from trainctl.tuning.recipe import Recipe, of_run, read
from trainctl.tuning.search import Search
from trainctl.tuning.settings import MEASURED
from trainctl.tuning.space import Point
from trainctl.tuning.study import Study

log = logging.getLogger("trainctl")


@dataclass(frozen=True)
class Ended:
    """A study that came to its end in this process: its run, the content of study.json, and the winner's new run."""

    run: Run
    content: dict[str, Any]
    max_failure_rate: float
    refit: Run | None = None

    @property
    def failed(self) -> int:
        """Trials that failed."""
        return int(self.content["counts"].get("failed", 0))

    @property
    def trials(self) -> int:
        """Trials that ended, well or not."""
        return sum(int(self.content["counts"].get(state, 0)) for state in ("completed", "stopped", "failed"))

    @property
    def too_many_failed(self) -> bool:
        """Whether nothing succeeded, or more trials failed than `tune.max_failure_rate` allows."""
        return self.failed > 0 and (self.failed == self.trials or self.failed > self.max_failure_rate * self.trials)


def start(words: Sequence[str], options: launch.Options, searched: bool) -> Ended:
    """A new study: `tune` when `searched`, else every point as `train -m` runs them."""
    recipe = read(words, options, searched)
    verb = "tune" if searched else "train"
    with directory.claimed(Path(options.runs_dir), verb) as path:
        fields: dict[str, Any] = {} if searched else {"sweep": len(recipe.points or [])}
        run = Run.create(path, verb, recipe.config, list(words), **fields)
        with run.lock():
            return carry_out(run, recipe, options, resumed=False)


def resume(run: Run, words: Sequence[str], options: launch.Options) -> Ended:
    """Go on with a study; beside a process that is at it already, help with its trials."""
    launch.trusted_config(run, options)
    recipe = of_run(run, words, options)
    try:
        lock = contextlib.ExitStack()
        lock.enter_context(run.lock())
    except RunError:
        log.info("another process is at this study; helping it")
        return carry_out(run, recipe, options, resumed=True, leads=False)
    with lock:
        summary = nothing_left(run, recipe, options)
        if summary is not None:
            log.warning("the study is already complete (%s); use tune.trials= to extend it", summary)
            return Ended(run, results.read(run.path), recipe.settings.max_failure_rate)
        if run.status == "crashed":
            log.warning("the study ended without a word (killed, or the machine went down); going on with it")
        run.resume([*map(str, run.record.get("overrides") or []), *words])
        run.rewrite_config(saved.resolve(recipe.config))
        return carry_out(run, recipe, options, resumed=True)


def nothing_left(run: Run, recipe: Recipe, options: launch.Options) -> str | None:
    """How a completed study ended when nothing is left to do in it, or None."""
    if run.status != "completed" or (recipe.settings.refit and not run.config["tune"].get("refit")):
        return None
    study = Study.open(run.path, recipe.settings, recipe.space, trusted="cmaes" in options.trust)
    with contextlib.closing(study):
        return study.summary() if study.finished() else None


def dry_run(words: Sequence[str], options: launch.Options, searched: bool) -> Plan:
    """What a study would do, measured on its first trial; nothing is written."""
    recipe = read(words, options, searched)
    with Pool(recipe.settings.jobs, options, None) as pool:
        return Plan.make(recipe, prepared(pool, recipe))


def carry_out(run: Run, recipe: Recipe, options: launch.Options, resumed: bool, leads: bool = True) -> Ended:
    """The study's part in this process; when it leads, the record says how it ended."""
    recorded = failures.recorded(run) if leads else contextlib.nullcontext()
    with recorded, launch.signals_raise(), Pool(recipe.settings.jobs, options, run.path) as pool:
        began = time.monotonic()
        facts = prepared(pool, recipe)
        if leads and recipe.points is not None:
            freeze(run.path / "plan.jsonl", recipe, recipe.points)
        with contextlib.closing(opened(run, recipe, options, resumed)) as study:
            plan = Plan.make(recipe, facts, run.path)
            with Display(recipe, plan, options.quiet) as display:
                search = Search(run, recipe, study, pool, facts, display, trials_folder(run))
                search.run()
            if leads:
                run.update(elapsed_s=round(search.elapsed(), 3))
            content = results.content(run, recipe, study, importances=leads and not search.signals)
            if leads:
                files.write_json(run.path / results.FILE, content)
            if search.signals:
                hint = f"trainctl {'tune' if recipe.searched else 'train'} --resume {files.shown(run.path)}"
                raise Stopped(search.signals[0], f"{search.closing}: {study.summary()}; go on with `{hint}`")
            if leads:
                results.finish(run, recipe, study, content, time.monotonic() - began)
    again = refitted(run, recipe, content, options) if leads else None
    return Ended(run, content, recipe.settings.max_failure_rate, again)


def prepared(pool: Pool, recipe: Recipe) -> Facts:
    """The data loaded where the workers come from, and the first trial measured; UsageError for an objective that
    the task does not produce."""
    first = recipe.trial_words(recipe.space.first())
    facts = pool.prepare(recipe.content(first), "latency_ms" in recipe.settings.objectives)
    have = [*facts.produced, *MEASURED]
    for name in recipe.settings.objectives if facts.produced else ():
        if name not in have:
            hint = did_you_mean(name, have)
            raise UsageError(f"objective `{name}` is not produced by this task; have: {', '.join(have)}{hint}")
    return facts


def opened(run: Run, recipe: Recipe, options: launch.Options, resumed: bool) -> Study:
    """The run's study: made, or as its journal has it, with the trials of dead processes back in the queue."""
    if resumed:
        study = Study.open(run.path, recipe.settings, recipe.space, trusted="cmaes" in options.trust)
        study.extend(recipe.points)
        back = study.recover()
        if back:
            log.info("in flight when it ended, begun again: trial %s", ", ".join(map(str, back)))
        return study
    return Study.create(run.path, recipe.settings, recipe.space, recipe.points)


def freeze(path: Path, recipe: Recipe, points: Sequence[Point]) -> None:
    """plan.jsonl: the words and the whole config of every trial, before the first begins.

    Lines that are there already stay; a study that is resumed may lack them all, or have more points now.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if len(lines) >= len(points):
        return
    for number, point in enumerate(points[len(lines) :], len(lines)):
        words = recipe.trial_words(point)
        lines.append(json.dumps({"trial": number, "overrides": words, "config": recipe.content(words)}))
    files.write_atomic(path, "\n".join(lines) + "\n")


def trials_folder(run: Run) -> Path:
    """Where the trials' runs are: `trials/` of a tune run; beside the record of `train -m`, as Hydra's jobs are."""
    return run.path / "trials" if run.verb == "tune" else run.path


def refitted(run: Run, recipe: Recipe, content: dict[str, Any], options: launch.Options) -> Run | None:
    """tune.refit: the winner trained once more as a run of its own, and tested; not again while it stays the best."""
    best = content.get("best")
    if not recipe.settings.refit or best is None or run.record.get("refit", {}).get("trial") == best["number"]:
        return None
    words = [word for word in best["overrides"] if not word.startswith("train.test=")]
    log.info("training the best trial once more, and testing it")
    again = launch.start("train", words, options)
    run.update(refit={"trial": best["number"], "run": files.shown(again.path)})
    return again
