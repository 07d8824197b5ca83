"""The commands that make a run smaller and faster: `prune`, `quantize`, `compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainctl.budgets import Budget
from trainctl.cli import commands, console, render, render_compression, render_front
from trainctl.cli.app import app
from trainctl.cli.following import next_commands
from trainctl.cli.options import (
    RUNS,
    ConfigDir,
    Json,
    Overrides,
    Quiet,
    RunsDir,
    Traceback,
    Trust,
    Verbose,
)
from trainctl.config import listing
from trainctl.errors import GateError, RunError, UsageError
from trainctl.run import files
from trainctl.run.run import Run

MaxDrop = Annotated[float | None, typer.Option(help="How far the objective may fall on val, e.g. 0.005")]
Target = Annotated[
    list[str] | None, typer.Option(metavar="NAME=Nx", help="bytes, latency, macs or parameters at least N times less")
]
MaxLatency = Annotated[str | None, typer.Option(metavar="TIME", help="A call takes no longer, e.g. 1ms")]
RunToCompress = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A path, a run id, a unique prefix, latest or latest:VERB")
]
Resumed = Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run, in place")]


@app.command()
def prune(
    run: RunToCompress = None,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
    resume: Resumed = None,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Remove weights, channels or blocks of a run's net: compressor=channels compressor.amount=0.5."""
    budget = Budget.parse(max_drop, target or [], max_latency)
    return _compressed("prune", run, overrides, budget, resume, trust, runs_dir, config_dir, as_json, quiet)


@app.command()
def quantize(
    run: RunToCompress = None,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
    resume: Resumed = None,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Store and compute a run's net in fewer bits: compressor=int8_static."""
    budget = Budget.parse(max_drop, target or [], max_latency)
    return _compressed("quantize", run, overrides, budget, resume, trust, runs_dir, config_dir, as_json, quiet)


@app.command()
def compress(
    run: RunToCompress = None,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
    resume: Resumed = None,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Search over pruning and quantizing within a budget; its points are runs, the best are a Pareto front."""
    from trainctl import compress as search
    from trainctl import launch

    budget = Budget.parse(max_drop, target or [], max_latency)
    options = launch.Options(str(runs_dir), None if config_dir is None else str(config_dir), trust or [], quiet)
    if resume is not None:
        made = search.resume(interrupted("compress", runs_dir, resume, run, overrides, budget), options)
    else:
        made = search.compress(to_compress("compress", runs_dir, run), list(overrides or []), options, budget)
    content = files.read_json(made.path / search.RECORD)
    if as_json:
        console.emit_json({**render.run_json(made), "compress": content})
    else:
        console.emit(*render_front.front(content), *render.run_summary(made, next_commands(made)))
    return _judged(made, content)


def _compressed(
    verb: str, name: str | None, overrides: list[str] | None, budget: Budget, resume: str | None,
    trust: list[str] | None, runs_dir: Path, config_dir: Path | None, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    from trainctl import launch, resuming

    options = launch.Options(str(runs_dir), None if config_dir is None else str(config_dir), trust or [], quiet)
    if resume is not None:
        run = resuming.resume(interrupted(verb, runs_dir, resume, name, overrides, budget), [], options)
    else:
        source = to_compress(verb, runs_dir, name)
        refuse_quantizer(verb, overrides or [], config_dir)
        options.arguments["budget"] = budget.to_dict()
        run = launch.start(verb, list(overrides or []), options, source)
    content = files.read_json(run.path / "compression.json")
    if as_json:
        console.emit_json({**render.run_json(run), "compression": content})
    else:
        console.emit(*render_compression.table(content), *render.run_summary(run, next_commands(run)))
    return _judged(run, content)


def _judged(run: Run, content: dict[str, Any]) -> int:
    """0, or GateError with what of the budget was missed."""
    missed = (content.get("gate") or {}).get("missed") or []
    if missed:
        shown = files.shown(run.path)
        raise GateError(f"the budget is not met: {'; '.join(missed)}; the closest point is kept in `{shown}`")
    return 0


def to_compress(verb: str, runs_dir: Path, name: str | None) -> Run:
    """The run that is to be compressed. UsageError when none is named, RunError for one that cannot be."""
    from trainctl import launch

    if name is None:
        raise UsageError(f"missing argument 'RUN'; see `trainctl {verb} --help`")
    source = launch.opened(runs_dir, name, launch.MODEL_VERBS)
    refuse(source, verb)
    return commands.with_weights(source)


def interrupted(
    verb: str, runs_dir: Path, resumed: str, name: str | None, overrides: list[str] | None, budget: Budget
) -> Run:
    """The run to go on with; UsageError when more is given than its name."""
    from trainctl import launch

    if name is not None or overrides or budget:
        raise UsageError(f"a resumed run keeps its parent, config and budget: give `{verb} --resume RUN` alone")
    return launch.opened(runs_dir, resumed, verb)


def refuse(source: Run, verb: str) -> None:
    """RunError for a run that did not end well, or that is quantized already."""
    shown = files.shown(source.path)
    if source.status != "completed":
        raise RunError(commands.incomplete(source, f"`{verb}` needs a completed run"))
    if source.verb == "quantize":
        parent = f"`{files.shown(source.parent)}`" if source.parent else "its parent"
        first = f"prune {parent}, then quantize the result" if verb == "prune" else f"quantize {parent} in another way"
        raise RunError(f"`{shown}` is quantized already, and integer weights cannot be changed further; {first}")


def refuse_quantizer(verb: str, words: list[str], config_dir: Path | None) -> None:
    """UsageError for `prune compressor=int8`."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("compressor=")]
    for file in listing.files("compressor", listing.folders(config_dir)) if verb == "prune" and chosen else ():
        if file.stem == chosen[-1] and listing.quantizes(file):
            raise UsageError(f"`{file.stem}` is a compressor of `trainctl quantize`; use that verb")
