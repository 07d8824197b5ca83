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
    RunName,
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
ResumedSearch = Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted search")]


@app.command()
def prune(
    run: RunName,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
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
    return _compressed("prune", run, overrides, budget, trust, runs_dir, config_dir, as_json, quiet)


@app.command()
def quantize(
    run: RunName,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
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
    return _compressed("quantize", run, overrides, budget, trust, runs_dir, config_dir, as_json, quiet)


@app.command()
def compress(
    run: RunToCompress = None,
    overrides: Overrides = None,
    max_drop: MaxDrop = None,
    target: Target = None,
    max_latency: MaxLatency = None,
    resume: ResumedSearch = None,
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
        if run is not None or budget:
            raise UsageError("a resumed search keeps its run, config and budget: give `compress --resume RUN` alone")
        earlier = launch.opened(runs_dir, resume, "compress")
        made = search.resume(earlier, options)
    elif run is None:
        raise UsageError("missing argument 'RUN'; see `trainctl compress --help`")
    else:
        source = commands.with_weights(launch.opened(runs_dir, run, launch.MODEL_VERBS))
        refuse(source, "compress")
        made = search.compress(source, list(overrides or []), options, budget)
    content = files.read_json(made.path / search.RECORD)
    if as_json:
        console.emit_json({**render.run_json(made), "compress": content})
    else:
        console.emit(*render_front.front(content), *render.run_summary(made, next_commands(made)))
    return _judged(made, content)


def _compressed(
    verb: str, name: str, overrides: list[str] | None, budget: Budget, trust: list[str] | None, runs_dir: Path,
    config_dir: Path | None, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    from trainctl import launch

    folder = None if config_dir is None else str(config_dir)
    arguments = {"budget": budget.to_dict()}
    options = launch.Options(str(runs_dir), folder, trust or [], quiet, arguments=arguments)
    source = commands.with_weights(launch.opened(runs_dir, name, launch.MODEL_VERBS))
    refuse(source, verb)
    refuse_quantizer(verb, overrides or [], config_dir)
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


def refuse(source: Run, verb: str) -> None:
    """RunError for a run that did not end well, or that is quantized already."""
    shown = files.shown(source.path)
    if source.status != "completed":
        state = {"running": "is still running", "failed": "failed", "stopped": "was stopped"}.get(source.status, "died")
        way = f"resume it with `trainctl train --resume {shown}`" if source.verb == "train" else "make it again"
        raise RunError(f"`{shown}` {state}; `{verb}` needs a completed run" + ("" if state[:2] == "is" else f"; {way}"))
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
