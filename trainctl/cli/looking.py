"""The commands that look: at runs, at what conf/ offers, at the machine, at a config. They change nothing."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from trainctl.cli import console, render
from trainctl.cli.app import app
from trainctl.cli.following import next_commands
from trainctl.cli.options import RUNS, ConfigDir, Json, Overrides, RunName, RunsDir, Traceback
from trainctl.errors import ResourceError
from trainctl.run import directory

config_app = typer.Typer(help="Look into a config without running it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")


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
    from trainctl.cli import render_study
    from trainctl.tuning import results

    opened = launch.opened(runs_dir, run)
    found = results.current(opened) if (study := render.is_study(opened)) else None
    if as_json:
        console.emit_json(render.run_json(opened) | {"record": opened.record} | ({"study": found} if study else {}))
    elif study:
        console.emit(*render_study.show(opened, found))
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


VerbName = Annotated[str, typer.Argument(metavar="VERB", help="train, evaluate, prune, ...")]


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
