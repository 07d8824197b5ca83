"""The command `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainctl.cli import console, render_compression
from trainctl.cli.app import app
from trainctl.cli.commands import with_weights
from trainctl.cli.options import RUNS, ConfigDir, Json, Quiet, RunsDir, Traceback, Trust, Verbose
from trainctl.errors import RunError, UsageError
from trainctl.run import files, machine
from trainctl.run.run import Run


@app.command()
def benchmark(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs as elsewhere; the first is compared with")],
    calls: Annotated[int, typer.Option("--calls", "-n", min=1, help="Calls of each; fewer for slow ones")] = 200,
    batch: Annotated[str, typer.Option(metavar="SIZES", help="Rows in a call, e.g. 1,64")] = "1,64",
    threads: Annotated[str, typer.Option(metavar="COUNTS", help="Threads, e.g. 1 or 1,all")] = "1,all",
    seconds: Annotated[float, typer.Option(min=0.01, help="At most so long for one net, batch and count")] = 2.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all figures as JSON (.json)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists")] = False,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Measure runs side by side: latency, throughput, memory, bytes, load time, and ratios to the first."""
    from trainctl import launch

    sizes, counts = whole_numbers(batch, "--batch"), whole_numbers(threads, "--threads", machine.allowed_cores())
    check_out(out, force)
    options = launch.Options(str(runs_dir), None if config_dir is None else str(config_dir), trust or [], quiet)
    verbs = (*launch.MODEL_VERBS, "export")
    opened = distinct([usable(launch.opened(runs_dir, name, verbs)) for name in runs])
    for run in opened:
        launch.trusted_config(run, options)
    launch.user_code_importable(options)
    from trainctl.verbs.benchmark import Plan
    from trainctl.verbs.benchmark import benchmark as measured

    launch.quieten()
    content = measured(opened, Plan(sizes, counts, calls, seconds))
    if out is not None:
        files.write_json(out, content)
    if as_json:
        console.emit_json(content)
    else:
        console.emit(*render_compression.benchmark(content))
    return 0


def whole_numbers(text: str, option: str, cores: int | None = None) -> tuple[int, ...]:
    """`1,64`, and with `cores` also `all`: each number once, from the smallest; UsageError for anything else."""
    words = [word.strip() for word in text.split(",")]
    numbers = {cores if cores is not None and word == "all" else int(word) if word.isdecimal() else 0 for word in words}
    if not words or not all(numbers):
        example = "`1,64`" if cores is None else "`1` or `1,all`"
        raise UsageError(f"`{option}` must be whole numbers of 1 or more such as {example}, got '{text}'")
    return tuple(sorted(number for number in numbers if number))


def usable(run: Run) -> Run:
    """The run itself; RunError for one that did not end well, or is made of others."""
    if with_weights(run).status != "completed":
        raise RunError(f"`{files.shown(run.path)}` is {run.status}; `benchmark` needs completed runs")
    return run


def distinct(runs: list[Run]) -> list[Run]:
    """The runs; UsageError when one is named twice."""
    seen: set[Path] = set()
    for run in runs:
        if (path := run.path.resolve()) in seen:
            raise UsageError(f"`{files.shown(run.path)}` is named twice; name each run once")
        seen.add(path)
    return runs


def check_out(path: Path | None, force: bool) -> None:
    """UsageError, before minutes of measuring, when `path` cannot take the figures."""
    if path is None:
        return
    files.check_name(path)
    shown = files.shown(path)
    if path.suffix != ".json":
        raise UsageError(f"cannot write `{shown}`: the figures are .json; e.g. `-o {path.stem}.json`")
    if path.is_dir():
        raise UsageError(f"cannot write `{shown}`: it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write `{shown}`: there is no directory `{files.shown(path.parent)}`")
    if path.exists() and not force:
        raise UsageError(f"`{shown}` exists; pass `--force` to replace it")
