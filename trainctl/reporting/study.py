"""`write(run, found, curves)`: a study's report.html from the content of its study.json.

The page is made as that of any run (report.py): self-contained, no script, each part left out when there is nothing
to show. Trials link to their own reports.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainctl.durations import duration
from trainctl.reporting import plots, study_plots
from trainctl.reporting import templates as html
from trainctl.reporting.plots import Point, safe, short
from trainctl.run import files
from trainctl.run.record import dump_yaml
from trainctl.run.run import Run

Trial = Mapping[str, Any]

_OPEN_ROWS, _SLICES = 40, 24


def write(run: Run, found: Mapping[str, Any], curves: Mapping[int, Sequence[Point]], command: str = "") -> Path:
    """Write `<run>/report.html` and return its path.

    `found` is the content of study.json, `curves` the objective over the epochs by trial, `command` what trains the
    best one again.
    """
    path = run.path / "report.html"
    files.write_atomic(path, html.page(f"study {run.name}", _body(run, found, curves, command)))
    return path


def _body(run: Run, found: Mapping[str, Any], curves: Mapping[int, Sequence[Point]], command: str) -> list[str]:
    several = len(found["objectives"]) > 1
    return [
        _head(run, found),
        html.warnings(list(found["warnings"])),
        html.section("Result", html.tiles(_tiles(found)), _best(found), html.details("Train it again", command)),
        html.section("Pareto front", html.plots(*_fronts(found)), _front_table(run, found)) if several else "",
        html.section("Search", html.plots(*_search(found, curves))),
        html.section("Hyperparameters", *_hyperparameters(found)),
        html.section("Trials", _trials(run, found)),
        html.section("Failed or stopped", _failures(run, found)),
        html.section("How it was made", _facts(run, found), html.details("Configuration", dump_yaml(run.config))),
    ]


def _head(run: Run, found: Mapping[str, Any]) -> str:
    when = str(run.record.get("started", ""))[:19].replace("T", " ")
    status = str(found["status"])
    known = status if status in ("completed", "failed", "crashed", "running", "stopped") else "damaged"
    line = f"study {_trials_in_all(found)}, {_goal(found)}"
    sub = safe(f"{line}, started {when}" if when else line)
    return f'<h1>{safe(run.name)}<span class="status {known}">{safe(status)}</span></h1><p class="sub">{sub}</p>'


def _goal(found: Mapping[str, Any]) -> str:
    pairs = zip(found["objectives"], found["directions"], strict=True)
    return ", ".join(f"{direction} {name}" for name, direction in pairs) or "nothing measured"


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    best, counts = found["best"], found["counts"]
    tiles = []
    if best is not None:
        for name, value in zip(found["objectives"], best["values"], strict=False):
            tiles.append((f"best {name}" if name == found["objectives"][0] else name, short(value), _of(best)))
    tiles.append(("completed", str(counts.get("completed", 0)), _trials_in_all(found)))
    tiles += [(state, str(counts[state]), "") for state in ("stopped", "failed") if counts.get(state)]
    epochs = sum(trial["epochs"] or 0 for trial in found["trials"])
    tiles += [("epochs", short(epochs), "over all trials")] if epochs else []
    return tiles + ([("took", duration(found["seconds"]), "")] if found["seconds"] is not None else [])


def _trials_in_all(found: Mapping[str, Any]) -> str:
    number = found["budget"] or len(found["trials"])
    return f"of {number} trial{'' if number == 1 else 's'}"


def _of(trial: Trial) -> str:
    return f"trial {trial['number']}"


def _best(found: Mapping[str, Any]) -> str:
    best = found["best"]
    if best is None:
        return '<p class="note">No trial has completed.</p>'
    rows = [[name, _setting(value)] for name, value in best["params"].items()]
    return html.table([], rows, numbers_from=9)


def _search(found: Mapping[str, Any], curves: Mapping[int, Sequence[Point]]) -> list[str]:
    if not found["objectives"]:
        return []
    name, direction, best = found["objectives"][0], found["directions"][0], _number(found)
    shares = study_plots.importances(found["importances"])
    share_note = "Share of the differences in value that a hyperparameter explains."
    return [
        html.figure("History", study_plots.history(found["trials"], name, direction), _beyond(found)),
        html.figure("Learning curves", study_plots.curves(curves, found["trials"], best, name, direction)),
        html.figure("Importance", shares, share_note),
    ]


def _beyond(found: Mapping[str, Any]) -> str:
    values = [trial["value"] for trial in found["trials"] if trial["value"] is not None]
    low, high = study_plots.limits(values, found["directions"][0])
    number = sum(not low <= value <= high for value in values)
    return f"{number} {'trial lies' if number == 1 else 'trials lie'} beyond the axis." if number else ""


def _hyperparameters(found: Mapping[str, Any]) -> list[str]:
    """Parallel coordinates, and a chart for each dimension; nothing for a single trial, which has no pattern."""
    if not found["objectives"] or sum(trial["place"] is not None for trial in found["trials"]) < 2:
        return []
    name, direction, best = found["objectives"][0], found["directions"][0], _number(found)
    shares, trials = found["importances"], found["trials"]
    dimensions = sorted(_used(found), key=lambda dimension: -shares.get(dimension["name"], 0.0))
    cut = len(dimensions) - study_plots.MOST_AXES
    note = "Each line is a trial; the better, the stronger. The best one is in the second colour."
    note += f" {cut} less important dimensions are left out." if cut > 0 else ""
    together = study_plots.coordinates(trials, dimensions, best, name, direction)
    single = (
        html.figure(dimension["name"], study_plots.slices(trials, dimension, best, name, direction))
        for dimension in dimensions[:_SLICES]
    )
    return [html.figure("Parallel coordinates", together, note), html.plots(*single)]


def _used(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Dimensions that are not one of very many texts, whose axis would say nothing."""
    return [dimension for dimension in found["dimensions"] if len(dimension.get("choices", ())) <= 100]


def _fronts(found: Mapping[str, Any]) -> list[str]:
    names = found["objectives"]
    return [
        html.figure(f"{names[a]} and {names[b]}", study_plots.front(found["trials"], found["pareto"], names, (a, b)))
        for a, b in itertools.islice(itertools.combinations(range(len(names)), 2), 6)
    ]


def _front_table(run: Run, found: Mapping[str, Any]) -> str:
    by_number = {trial["number"]: trial for trial in found["trials"]}
    return _table(run, found, [by_number[number] for number in found["pareto"]])


def _trials(run: Run, found: Mapping[str, Any]) -> str:
    order = sorted(found["trials"], key=lambda t: (t["place"] is None, t["place"] or 0, t["status"], t["number"]))
    first = _table(run, found, order[:_OPEN_ROWS])
    rest = _table(run, found, order[_OPEN_ROWS:])
    if not rest:
        return first
    return f"{first}<details><summary>The other {len(order) - _OPEN_ROWS} trials</summary>{rest}</details>"


def _table(run: Run, found: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    names = [dimension["name"] for dimension in found["dimensions"]]
    head = ["place", "trial", "status", *found["objectives"], "epochs", "took", *names]
    rows = []
    for trial in trials:
        values = [*trial["values"], *[None] * len(found["objectives"])][: len(found["objectives"])]
        cells: list[str | html.Link] = [
            short(trial["place"]),
            html.Link(_of(trial), _address(run, trial)),
            str(trial["status"]),
        ]
        cells += [*map(short, values), short(trial["epochs"]), duration(trial["seconds"])]
        rows.append([*cells, *(_setting(trial["params"].get(name)) for name in names)])
    return html.table(head, rows, numbers_from=3)


def _failures(run: Run, found: Mapping[str, Any]) -> str:
    failed = [trial for trial in found["trials"] if trial["status"] == "failed"]
    stopped = [trial for trial in found["trials"] if trial["status"] == "stopped"]
    tables = []
    for trials in (failed, stopped):
        rows: list[list[str | html.Link]] = [
            [html.Link(_of(t), _address(run, t)), str(t["why"] or ""), str(t["run"] or "")] for t in trials
        ]
        tables.append(html.table(["trial", "why", "run"], rows, numbers_from=9))
    if len(failed) > _OPEN_ROWS:
        tables[0] = f"<details><summary>Failed: {len(failed)}</summary>{tables[0]}</details>"
    folded = f"<details><summary>Stopped early: {len(stopped)}</summary>{tables[1]}</details>" if stopped else ""
    return tables[0] + folded


def _address(run: Run, trial: Trial) -> str | None:
    """Where a trial's own report lies, seen from the study's; None when there is none."""
    if not trial["run"] or not os.path.isfile(os.path.join(trial["run"], "report.html")):
        return None
    return quote(os.path.relpath(os.path.join(trial["run"], "report.html"), run.path))


def _facts(run: Run, found: Mapping[str, Any]) -> str:
    record = run.record
    versions = record.get("versions") or {}
    rows = {
        "overrides": " ".join(map(str, record.get("overrides") or [])),
        "dimensions": "; ".join(_described(dimension) for dimension in found["dimensions"]),
        "sampler": _options(found["sampler"]),
        "stopper": _options(found["stopper"]),
        "seed": found["seed"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "hosts": ", ".join(sorted({str(trial["host"]) for trial in found["trials"] if trial.get("host")})),
    }
    return html.table([], [[name, str(text)] for name, text in rows.items() if text not in (None, "")], numbers_from=9)


def _described(dimension: Mapping[str, Any]) -> str:
    if dimension["kind"] == "choice":
        return f"{dimension['name']} {', '.join(map(str, dimension['choices'][:20]))}"
    log = " (log)" if dimension["log"] else ""
    return f"{dimension['name']} {short(dimension['low'])} to {short(dimension['high'])}{log}"


def _options(node: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{key} {value}" for key, value in node.items() if key != "name" and value is not None)
    return f"{node.get('name')} ({rest})" if rest else str(node.get("name"))


def _setting(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return plots.short(value)
    return "" if value is None else str(value)


def _number(found: Mapping[str, Any]) -> int | None:
    return None if found["best"] is None else int(found["best"]["number"])
