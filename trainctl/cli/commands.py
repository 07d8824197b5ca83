"""Every command, in a few lines each; what they do lives in `launch`, `sweep`, `run` and `config`."""

from __future__ import annotations

import json
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
from trainctl.errors import ResourceError, RunError, SweepError, UsageError
from trainctl.run import directory, files
from trainctl.run.run import Run

if TYPE_CHECKING:
    from trainctl.launch import Options

config_app = typer.Typer(help="Look into a config without running it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")

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


@app.command()
def runs(
    verb: Annotated[str | None, typer.Argument(help="Only runs of this verb")] = None,
    status: Annotated[str | None, typer.Option(help="completed, running, failed, stopped, crashed or damaged")] = None,
    since: Annotated[str | None, typer.Option(help="A date (2026-11-20) or an age (2h, 3d)")] = None,
    metric: Annotated[str | None, typer.Option(help="Rank by this metric, best first")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Folds, seeds and sweep jobs too")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest")] = 50,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """List runs."""
    from trainctl.run import compare

    listed = directory.list_runs(runs_dir, children=everything)
    found = compare.select(listed, verb, status, since)
    found = [ranked.run for ranked in compare.rank(found, metric)][:limit] if metric else found[-limit:]
    if as_json:
        console.emit_json({"runs": [render.run_json(run) for run in found]})
    elif found:
        console.emit(render.runs_table(found, metric))
    else:
        console.emit(f"no such runs in `{runs_dir}`; `trainctl train model=mlp data=tabular` makes one")
    return 0


@app.command()
def show(run: RunName, runs_dir: RunsDir = RUNS, as_json: Json = False, traceback: Traceback = False) -> int:
    """Show a run: status, figures, data, files, children."""
    from trainctl import launch

    opened = launch.opened(runs_dir, run)
    if as_json:
        console.emit_json(render.run_json(opened) | {"record": opened.record})
    else:
        console.emit(*render.show(opened, directory.children(opened), next_commands(opened)))
    return 0


@app.command("list")
def list_options(
    group: Annotated[str | None, typer.Argument(help="A config group: model, data, optimizer, ...")] = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """List config groups and their options."""
    from trainctl.config import listing

    found = listing.options(group, config_dir)
    if as_json:
        console.emit_json({name: [option for option, _ in rows] for name, rows in found.items()})
        return 0
    for number, (name, rows) in enumerate(found.items()):
        console.emit(*[""] * (number > 0), console.Table([name, ""], [[f"  {option}", line] for option, line in rows]))
    return 0


@app.command()
def doctor(runs_dir: RunsDir = RUNS, as_json: Json = False, traceback: Traceback = False) -> int:
    """Say what this machine offers and what is missing."""
    from trainctl.doctor import doctor as examine

    checks = examine(runs_dir)
    if as_json:
        console.emit_json({"checks": [check._asdict() for check in checks]})
    else:
        console.emit(console.Table(["check", "", ""], [list(map(str, check)) for check in checks]))
    return ResourceError.exit_code if any(check.grade == "fail" for check in checks) else 0


VerbName = Annotated[str, typer.Argument(metavar="VERB", help="train, evaluate or predict")]


@config_app.command("show")
def config_show(
    verb: VerbName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Print the composed config as a run would keep it."""
    from trainctl.config import saved
    from trainctl.config.compose import compose, plain

    config = compose(verb, list(overrides or []), config_dir)
    if as_json:
        console.emit_json(plain(config))
    else:
        console.emit(saved.dump(config).rstrip())
    return 0


@config_app.command("check")
def config_check(
    verb: VerbName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Report every problem of a config at once."""
    from trainctl import check

    problems = check.check_words(verb, list(overrides or []), config_dir)
    if as_json:
        console.emit_json({"problems": problems})
    for problem in problems:
        console.emit_error(problem)
    if not problems and not as_json:
        console.emit("no problems found")
    return 2 if problems else 0


@config_app.command("why")
def config_why(
    verb_or_key: Annotated[str, typer.Argument(metavar="[VERB] KEY", help="e.g. optimizer.lr, or train optimizer.lr")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Say which file or override set a value, and what it replaced."""
    from trainctl.config import provenance

    verb, key, words = provenance.read_arguments(verb_or_key, list(overrides or []))
    steps = provenance.why(verb, words, key, config_dir)
    if as_json:
        console.emit_json({"key": key, "steps": [json.loads(json.dumps(step, default=str)) for step in steps]})
        return 0
    rows = [[where, str(value), "" if replaced is None else f"replaced {replaced}"] for where, value, replaced in steps]
    console.emit(console.Table([key, "value", ""], rows))
    return 0


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
