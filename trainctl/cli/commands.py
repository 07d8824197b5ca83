"""The commands that run something, in a few lines each; what they do lives in `launch`, `sweep` and `tuning`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainctl.cli import console, render
from trainctl.cli.app import app
from trainctl.cli.following import next_commands
from trainctl.cli.options import (
    RUNS,
    ConfigDir,
    Json,
    Overrides,
    Quiet,
    RunName,
    RunsDir,
    Traceback,
    Trust,
    Verbose,
)
from trainctl.errors import RunError, SweepError, UsageError
from trainctl.run import directory, files
from trainctl.run.run import Run

if TYPE_CHECKING:
    from trainctl.launch import Options
    from trainctl.sweep import Sweep

@app.command()
def train(
    overrides: Overrides = None,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", help="Run every point of a grid: seed=1,2,3")] = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run, in place")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="RUN", help="Begin from a run's weights")] = None,
    allow_data_change: Annotated[bool, typer.Option(help="Resume although the data changed")] = False,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Train a model, test its best checkpoint, keep everything in a run directory."""
    from trainctl import launch, resuming

    options = launch.Options(str(runs_dir), _text(config_dir), trust or [], quiet, allow_data_change)
    words = list(overrides or [])
    if multirun and source is not None or resume is not None and source is not None:
        raise UsageError("choose one of `-m`, `--resume RUN` and `--from RUN`")
    if resume is not None:
        opened = launch.opened(runs_dir, resume, "train")
        if opened.record.get("sweep") is not None:
            return _studied(words, options, as_json, resumed=opened)
        if multirun:
            raise UsageError(f"`{files.shown(opened.path)}` is a single run; resume it without `-m`")
        return _finished(resuming.resume(opened, words, options), as_json)
    if multirun:
        from trainctl.sweep import sweep, wants_hydra

        if wants_hydra(words):
            return _swept(sweep("train", words, options), as_json)
        return _studied(words, options, as_json)
    if source is not None:
        parent = with_weights(launch.opened(runs_dir, source, launch.MODEL_VERBS))
        return _finished(launch.fine_tune(parent, words, options), as_json)
    return _finished(launch.start("train", words, options), as_json)


@app.command()
def tune(
    overrides: Overrides = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a study, or help with it")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop")] = False,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Search for the best values: optimizer.lr='tag(log, interval(1e-4,1e-1))' model=mlp,resmlp."""
    from trainctl import launch

    options = launch.Options(str(runs_dir), _text(config_dir), trust or [], quiet)
    words = list(overrides or [])
    if dry_run:
        from trainctl.tuning import conduct

        if resume is not None:
            raise UsageError("`--dry-run` plans a new study; leave out `--resume RUN`")
        plan = conduct.dry_run(words, options, searched=True)
        console.emit_json(plan.to_json()) if as_json else console.emit(*plan.lines())
        return 0
    return _studied(words, options, as_json, launch.opened(runs_dir, resume, "tune") if resume else None, searched=True)


def _studied(
    words: list[str], options: Options, as_json: bool, resumed: Run | None = None, searched: bool = False
) -> int:
    from trainctl.cli import render_study
    from trainctl.tuning import conduct, results

    if resumed is not None:
        ended = conduct.resume(resumed, words, options)
    else:
        ended = conduct.start(words, options, searched)
    if as_json:
        console.emit_json(ended.content if searched else results.sweep_json(ended.content))
    else:
        console.emit(*render_study.summary(ended.content, ended.run.path))
    if ended.refit is not None and not as_json:
        console.emit(*render.run_summary(ended.refit, next_commands(ended.refit)))
    if ended.too_many_failed:
        noun = "trials" if searched else "jobs"
        raise SweepError(f"{ended.failed} of {ended.trials} {noun} failed; their records say why")
    return 0


def _swept(result: Sweep, as_json: bool) -> int:
    if as_json:
        console.emit_json(result.to_dict())
    else:
        best = [row["run"] for row in result.rows if row.get("place") == 1][:1]
        following = [f"next: trainctl evaluate {render.quoted(run)}" for run in best]
        console.emit(render.sweep_table(result.rows), f"sweep: {result.path}", *following)
    if result.failed:
        raise SweepError(f"{result.failed} of {len(result.rows)} jobs failed; their records say why")
    return 0


@app.command()
def evaluate(
    run: RunName,
    overrides: Overrides = None,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Measure a run on its test split, another split or a new file, with 95 % intervals."""
    from trainctl import launch

    options = launch.Options(str(runs_dir), _text(config_dir), trust or [], quiet)
    source = with_weights(launch.opened(runs_dir, run, launch.MODEL_VERBS))
    return _finished(launch.start("evaluate", list(overrides or []), options, source), as_json)


@app.command()
def predict(
    run: RunName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Raw rows (CSV, TSV, Parquet) or a folder of images")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write (.csv, .parquet or .jsonl)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists")] = False,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Label new rows or images with a run's model."""
    from trainctl import launch
    from trainctl.verbs import output

    output.check(file, out, force)
    arguments = {"file": str(file), "out": str(out) if out else None, "force": force}
    options = launch.Options(str(runs_dir), _text(config_dir), trust or [], quiet, arguments=arguments)
    source = with_weights(launch.opened(runs_dir, run, launch.MODEL_VERBS))
    return _finished(launch.start("predict", list(overrides or []), options, source), as_json)


def _finished(run: Run, as_json: bool) -> int:
    if as_json:
        console.emit_json(render.run_json(run))
    else:
        console.emit(*render.run_summary(run, next_commands(run)))
    return 0


def with_weights(run: Run) -> Run:
    """The run itself; RunError for a compression that did not end well, or a run of folds or seeds, which have them."""
    if run.verb != "train" and run.status != "completed":
        raise RunError(incomplete(run, "its weights may not be what would ship"))
    children = directory.child_paths(run.path)
    if children:
        first = files.shown(children[0])
        raise RunError(f"`{files.shown(run.path)}` is made of {len(children)} runs; name one of them, e.g. `{first}`")
    return run


def incomplete(run: Run, so: str) -> str:
    """That a run did not end well, what follows from that, and how to go on with it."""
    shown = files.shown(run.path)
    state = {"running": "is still running", "failed": "failed", "stopped": "was stopped"}.get(run.status, "died")
    way = "" if run.status == "running" else f"; resume it with `trainctl {run.verb} --resume {shown}`"
    return f"`{shown}` {state}; {so}{way}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
