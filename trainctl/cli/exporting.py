"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainctl.cli import console, render
from trainctl.cli.app import app
from trainctl.cli.commands import with_weights
from trainctl.cli.following import next_commands
from trainctl.cli.options import RUNS, ConfigDir, Json, Overrides, Quiet, RunName, RunsDir, Traceback, Trust, Verbose


@app.command()
def export(
    run: RunName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write (.onnx, .pt2, .safetensors)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists")] = False,
    trust: Trust = None,
    runs_dir: RunsDir = RUNS,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    traceback: Traceback = False,
) -> int:
    """Write a run's model as format=onnx, torch_export or safetensors, compared with the run before it is kept."""
    from trainctl import launch
    from trainctl.verbs import export_file

    export_file.check(out, force)
    folder = None if config_dir is None else str(config_dir)
    arguments = {"out": str(out) if out else None}
    options = launch.Options(str(runs_dir), folder, trust or [], quiet, arguments=arguments)
    source = with_weights(launch.opened(runs_dir, run, launch.MODEL_VERBS))
    ended = launch.start("export", list(overrides or []), options, source)
    if as_json:
        console.emit_json(render.run_json(ended))
    else:
        console.emit(*render.run_summary(ended, next_commands(ended)))
    return 0
