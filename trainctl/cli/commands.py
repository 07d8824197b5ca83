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
    from trainctl import launch

    options = launch.Options(str(runs_dir), _text(config_dir), trust or [], quiet, allow_data_change)
    words = list(overrides or [])
    if sum([multirun, resume is not None, source is not None]) > 1:
        raise UsageError("choose one of `-m`, `--resume RUN` and `--from RUN`")
    if multirun:
        return _sweep(words, options, as_json)
    if resume is not None:
        run = launch.resume(launch.opened(runs_dir, resume, "train"), words, options)
    elif source is not None:
        run = launch.fine_tune(with_weights(launch.opened(runs_dir, source, "train")), words, options)
    else:
        run = launch.start("train", words, options)
    return _finished(run, as_json)


def _sweep(words: list[str], options: Options, as_json: bool) -> int:
    from trainctl import sweep

    result = sweep.sweep("train", words, options)
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
    source = with_weights(launch.opened(runs_dir, run, "train"))
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
    source = with_weights(launch.opened(runs_dir, run, "train"))
    return _finished(launch.start("predict", list(overrides or []), options, source), as_json)


def _finished(run: Run, as_json: bool) -> int:
    if as_json:
        console.emit_json(render.run_json(run))
    else:
        console.emit(*render.run_summary(run, next_commands(run)))
    return 0


def with_weights(run: Run) -> Run:
    """The run itself; RunError when it is made of folds or seeds, which have the weights."""
    children = directory.child_paths(run.path)
    if children:
        first = files.shown(children[0])
        raise RunError(f"`{files.shown(run.path)}` is made of {len(children)} runs; name one of them, e.g. `{first}`")
    return run


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
