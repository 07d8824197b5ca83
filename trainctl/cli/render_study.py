"""What the command line says about a study, as blocks for `console.emit`; all of it from the content of study.json."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainctl.cli import render
from trainctl.cli.console import Block, Table
from trainctl.durations import duration
from trainctl.run.files import shown
from trainctl.run.run import Run
from trainctl.tuning import results
from trainctl.tuning.experiment import command
from trainctl.tuning.plan import Plan
from trainctl.tuning.ranking import ranked
from trainctl.tuning.wording import clipped, number_text, value_text

MANY = 40  # trials that a table shows in full
_BEST, _ENDED_BADLY = 20, 10
_REASON = 120

Trial = Mapping[str, Any]


def plan(found: Plan) -> list[Block]:
    """What `--dry-run` prints."""
    return list(found.lines())


def summary(found: Mapping[str, Any], path: Path) -> list[Block]:
    """The end of a study: ranking, Pareto front, importances, warnings, and what to type next."""
    blocks: list[Block] = [*ranking(found), *_front(found), *_importances(found)]
    blocks += [f"warning: {sentence}" for sentence in found["warnings"]]
    best = found["best"]
    if best is not None:
        if best["run"]:
            blocks.append(f"best: {shown(best['run'])}")
        blocks.append(f"train it again: {command(best['overrides'])}")
    swept = found.get("verb") == "train"
    blocks.append(f"{'sweep' if swept else 'study'}: {shown(path)}")
    if (path / "report.html").exists():
        blocks.append(f"report: {shown(path / 'report.html')}")
    if swept and best is not None and best["run"]:
        blocks.append(f"next: trainctl evaluate {render.quoted(best['run'])}")
    return blocks


def ranking(found: Mapping[str, Any]) -> list[Block]:
    """The ranked table; of a large study the best, and some of those that failed or were stopped."""
    trials = ranked([trial for trial in found["trials"] if trial["status"] in ("completed", "stopped", "failed")])
    if len(trials) <= MANY:
        return [table(found, trials)] if trials else ["no trial has ended"]
    placed = [trial for trial in trials if trial["place"] is not None]
    failed = [trial for trial in trials if trial["status"] == "failed"]
    shown_trials = [*placed[:_BEST], *failed[:_ENDED_BADLY]]
    parts = [f"the best {min(_BEST, len(placed))} of {len(trials)} trials"] if placed else []
    if failed:
        first = "" if len(failed) <= _ENDED_BADLY else f"the first {_ENDED_BADLY} of "
        parts.append(f"{first}{len(failed)} that failed")
    return [table(found, shown_trials), f"{' and '.join(parts)}; {results.FILE} has all"]


def table(found: Mapping[str, Any], trials: Sequence[Trial], places: bool = True) -> Table:
    """Trials with their values and settings; the last column says why one failed or was stopped."""
    names = [dimension["name"] for dimension in found["dimensions"]]
    objectives = list(found["objectives"])
    reasons = any(trial["why"] for trial in trials)
    columns = [*(["place"] if places else []), "trial", "status", *objectives, "epochs", "took", *names]
    first = int(places) + 2
    figures = (*range(first - 1), *range(first, first + len(objectives) + 2))
    drawn = Table([*columns, *(["why"] if reasons else [])], figures=figures)
    for trial in trials:
        place = "-" if trial["place"] is None else str(trial["place"])
        row = [*([place] if places else []), str(trial["number"]), trial["status"]]
        row += [value_text(_value(trial, index)) for index in range(len(objectives))]
        row += ["-" if trial["epochs"] is None else str(trial["epochs"]), duration(trial["seconds"])]
        row += [_setting(trial["params"].get(name)) for name in names]
        drawn.rows.append([*row, *([clipped(trial["why"] or "", _REASON)] if reasons else [])])
    return drawn


def show(run: Run, found: Mapping[str, Any] | None) -> list[Block]:
    """What `trainctl show STUDY` prints, also while the study runs; `found` is None when its trials cannot be read."""
    if found is None:
        return [render.facts(run, {"trials": "cannot be read"}), render.files_table(run), *_next(run, None)]
    ended = ranked([trial for trial in found["trials"] if trial["place"] is not None])[:10]
    running = [trial for trial in found["trials"] if trial["status"] == "running"]
    more = {"trials": _counts(found), "objective": _objectives(found), "best": _best(found)}
    blocks: list[Block] = [render.facts(run, more)]
    blocks += [_titled("best so far" if run.status == "running" else "the best", table(found, ended))] if ended else []
    blocks += [_titled("running", table(found, running, places=False))] if running else []
    blocks += [*_front(found), *_importances(found), *(f"warning: {sentence}" for sentence in found["warnings"])]
    return [*blocks, render.files_table(run), *_next(run, found)]


def _front(found: Mapping[str, Any]) -> list[Block]:
    if not found["pareto"]:
        return []
    by_number = {trial["number"]: trial for trial in found["trials"]}
    front = [by_number[number] for number in found["pareto"]]
    return [_titled("Pareto front: no trial is better in every objective", table(found, front, places=False))]


def _titled(title: str, drawn: Table) -> Table:
    drawn.title = title
    return drawn


def _importances(found: Mapping[str, Any]) -> list[Block]:
    drawn = Table(["hyperparameter", "importance"], figures=(1,))
    by_weight = sorted(found["importances"].items(), key=lambda pair: -pair[1])
    drawn.rows = [[name, f"{100 * share:.0f} %"] for name, share in by_weight]
    return [drawn] if drawn.rows else []


def _counts(found: Mapping[str, Any]) -> str:
    """`50: 40 completed, 5 stopped, 3 failed, 2 running`, with what is still to come."""
    counts, budget = found["counts"], found["budget"]
    known = sum(number for state, number in counts.items() if state != "waiting")
    parts = [f"{number} {state}" for state, number in counts.items() if state != "waiting"]
    parts += [f"{budget - known} to come"] if budget and budget > known else []
    return f"{max(budget or 0, known)}: {', '.join(parts)}" if parts else "none yet"


def _objectives(found: Mapping[str, Any]) -> str:
    pairs = zip(found["objectives"], found["directions"], strict=True)
    return ", ".join(f"{direction} {name}" for name, direction in pairs)


def _best(found: Mapping[str, Any]) -> str:
    best = found["best"]
    if best is None or len(found["objectives"]) > 1:
        return ""
    return f"{value_text(best['value'])} (trial {best['number']}{', ' + shown(best['run']) if best['run'] else ''})"


def _next(run: Run, found: Mapping[str, Any] | None) -> list[Block]:
    if run.status in ("stopped", "crashed", "failed"):
        return [f"next: trainctl {run.verb} --resume {render.quoted(run.path)}"]
    best = found["best"] if found else None
    if run.status != "completed" or best is None or not best["run"] or not os.path.isdir(best["run"]):
        return []
    return [f"next: trainctl evaluate {shlex.quote(shown(best['run']))}"]


def _value(trial: Trial, index: int) -> float | None:
    return trial["values"][index] if index < len(trial["values"]) else None


def _setting(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return "" if value is None else str(value)
