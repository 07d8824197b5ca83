"""`write(run)`: one self-contained report.html from what a run's directory holds, whatever its verb.

Each section reads its own file (metrics.jsonl, confusion.json, calibration.json, errors.json, slices.json,
lr_range.json) and is left out when the file is not there. Free of torch; loads nothing when opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainctl.reporting import compression, plots
from trainctl.reporting import templates as html
from trainctl.reporting.plots import short
from trainctl.run import files
from trainctl.run.record import dump_yaml
from trainctl.run.run import Run

_TILES = ("accuracy", "balanced_accuracy", "auroc", "f1", "log_loss", "ece", "rmse", "mae", "r2", "mape")
_STAGE_ORDER = {"test": 0, "val": 1, "train": 2}
_MAX_CLASSES_DRAWN = 30


def write(
    run: Run,
    metrics: Mapping[str, float | None] | None = None,
    intervals: Mapping[str, Sequence[float] | None] | None = None,
    status: str | None = None,
    sync: bool = True,
) -> Path:
    """Write `<run>/report.html` and return its path.

    `metrics`, `intervals` and `status` stand in for the run's own before it has finished. `sync` as in `write_atomic`.
    """
    shown = run.metrics if metrics is None else metrics
    ranges = run.record.get("intervals", {}) if intervals is None else intervals
    path = run.path / "report.html"
    page = html.page(f"{run.verb} {run.name}", _body(run, shown, ranges, status or run.status))
    files.write_atomic(path, page, sync=sync)
    return path


def _body(run: Run, metrics: Mapping[str, Any], intervals: Mapping[str, Any], status: str) -> list[str]:
    log = run.metrics_log()
    return [
        _head(run, status),
        html.warnings(_sentences(run)),
        html.section(
            _results_title(run, metrics),
            html.tiles(_main_figures(metrics, intervals)),
            _metrics_table(metrics, intervals),
            _looks(run),
        ),
        *compression.sections(run),
        html.section("Learning curves", html.plots(*_curves(log))),
        html.section("Predictions", html.plots(_confusion(run), _calibration(run), *_errors(run)), _confused(run)),
        *_slices(run),
        html.section("Learning rate range test", html.plots(_lr_range(run))),
        html.section("How it was made", _facts(run), _config(run)),
    ]


def _head(run: Run, status: str) -> str:
    from_run = f" of {'/'.join(run.parent.parts[-2:])}" if run.parent else ""
    when = str(run.record.get("started", ""))[:19].replace("T", " ")
    known = status if status in ("completed", "failed", "crashed", "damaged", "running", "stopped") else "damaged"
    label = f'<span class="status {known}">{plots.safe(status)}</span>'
    line = plots.safe(f"{run.verb}{from_run}, started {when}" if when else f"{run.verb}{from_run}")
    return f'<h1>{plots.safe(run.name)}{label}</h1><p class="sub">{line}</p>'


def _sentences(run: Run) -> list[str]:
    """The run's error and its warnings."""
    error = run.record.get("error")
    found = [str(error["message"])] if isinstance(error, dict) and error.get("message") else []
    return found + [str(sentence) for sentence in run.record.get("warnings", [])]


def _results_title(run: Run, metrics: Mapping[str, Any]) -> str:
    stages, rows = _stages(metrics), run.record.get("rows")
    where = f" on {run.record.get('split', stages[0])}" if stages else ""
    return f"Results{where}, {rows} rows" if isinstance(rows, int) else f"Results{where}"


def _looks(run: Run) -> str:
    looks = run.record.get("test_looks") or run.test_looks()
    if not looks:
        return ""
    times = "once" if looks == 1 else f"{looks} times"
    return f'<p class="note">The test split was looked at {times}; choices made from it wear it out.</p>'


def _stages(metrics: Mapping[str, Any]) -> list[str]:
    return sorted({_stage(name) for name in metrics}, key=lambda stage: _STAGE_ORDER.get(stage, 3))


def _main_figures(metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    stages = _stages(metrics)
    if not stages:
        return []
    wanted = [f"{stages[0]}/{name}" for name in _TILES if f"{stages[0]}/{name}" in metrics]
    return [(name.rpartition("/")[2], short(metrics[name]), _interval(intervals.get(name))) for name in wanted]


def _metrics_table(metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    names = sorted(metrics, key=lambda name: _STAGE_ORDER.get(_stage(name), 3))
    if any(intervals.get(name) for name in names):
        rows = [[name, short(metrics[name]), _interval(intervals.get(name))] for name in names]
        body = html.table(["metric", "value", "95 % interval"], rows)
    else:
        body = html.table(["metric", "value"], [[name, short(metrics[name])] for name in names])
    return f"<details><summary>All metrics</summary>{body}</details>" if body else ""


def _interval(interval: Sequence[float] | None) -> str:
    return f"{short(interval[0])} to {short(interval[1])}" if interval else ""


def _stage(name: str) -> str:
    return name.rpartition("/")[0]


def _curves(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """A chart per metric, with one line per stage."""
    series: dict[str, dict[str, list[plots.Point]]] = {}
    for position, row in enumerate(log):
        epoch = row.get("epoch", position)
        for key, value in row.items():
            stage, _, name = key.rpartition("/")
            if stage in ("train", "val") and isinstance(value, int | float) and isinstance(epoch, int | float):
                series.setdefault(name, {}).setdefault(stage, []).append((float(epoch), float(value)))
    order = sorted(series, key=lambda name: (name != "loss", name))
    return [html.figure(name, plots.line_chart(series[name], y_label=name)) for name in order[:12]]


def _confusion(run: Run) -> str:
    found = _read(run, "confusion.json")
    if not found or len(found["classes"]) > _MAX_CLASSES_DRAWN:
        return ""
    note = "Rows are the true classes, columns the predicted ones; shade is the share of the row."
    if found.get("threshold") is not None:
        note += f" '{found['classes'][-1]}' is predicted from a probability of {short(found['threshold'])} on."
    return html.figure("Confusion matrix", plots.confusion(found["counts"], found["classes"]), note)


def _confused(run: Run) -> str:
    """The most frequent mix-ups, when the matrix is too large to read."""
    found = _read(run, "confusion.json")
    if not found or len(found["classes"]) <= 4:
        return ""
    classes = found["classes"]
    pairs = [(n, i, j) for i, row in enumerate(found["counts"]) for j, n in enumerate(row) if i != j and n]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:10]
    rows = [[classes[i], classes[j], str(count)] for count, i, j in worst]
    body = html.table(["true class", "predicted class", "rows"], rows, numbers_from=2)
    return f"<details><summary>Most frequent mix-ups</summary>{body}</details>" if body else ""


def _calibration(run: Run) -> str:
    bins = _read(run, "calibration.json")
    note = "On the dashed line, 80 of 100 predictions made with probability 0.8 come true."
    return html.figure("Calibration", plots.calibration(bins), note) if bins else ""


def _errors(run: Run) -> list[str]:
    found = _read(run, "errors.json")
    if not found:
        return []
    target = str(found.get("target", "target"))
    shape = plots.histogram(found["edges"], found["counts"], f"prediction minus {target}")
    beyond = found.get("beyond", 0)
    note = f"{beyond} of {beyond + sum(found['counts'])} rows lie beyond the axis." if beyond else ""
    points = [(float(a), float(b)) for a, b in found["sample"]]
    sample = plots.scatter(points, target, "prediction", diagonal=True)
    return [html.figure("Error", shape, note), html.figure("Prediction against target", sample)]


def _slices(run: Run) -> list[str]:
    sections = []
    for column, found in (_read(run, "slices.json") or {}).items():
        names = [name for name in found["gaps"] if name in _TILES]
        rows = [
            [value, str(group["rows"]), *(short(group["metrics"][name]) for name in names)]
            for value, group in found["groups"].items()
        ]
        rows.append(["largest gap", "", *(short(found["gaps"][name]) for name in names)])
        other = found.get("other_rows", 0)
        note = f'<p class="note">{other} rows of rarer values are left out.</p>' if other else ""
        body = html.table([column, "rows", *names], rows, last_is_sum=True)
        sections.append(html.section(f"By {column}", body, note))
    return sections


def _lr_range(run: Run) -> str:
    found = _read(run, "lr_range.json")
    if not found:
        return ""
    curve = list(zip(found["rates"], found["losses"], strict=True))
    note = f"A learning rate of {short(found['lr'])} was taken."
    return html.figure("Loss while the rate grows", plots.line_chart({"loss": curve}, "lr", "loss", log_x=True), note)


def _facts(run: Run) -> str:
    record = run.record
    git = record.get("git") or {}
    commit = git.get("commit") if isinstance(git, dict) else None
    dirty = " with uncommitted changes" if commit and git.get("dirty") else ""
    data = record.get("data") if isinstance(record.get("data"), dict) else {}
    splits = (data or {}).get("splits") or {}
    rows = {
        "overrides": " ".join(map(str, record.get("overrides") or [])),
        "rows": ", ".join(f"{name} {part.get('rows')}" for name, part in splits.items()),
        "seed": run.config.get("seed"),
        "git commit": f"{commit[:12]}{dirty}" if isinstance(commit, str) else None,
        "versions": ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items()),
        "hardware": _hardware(record.get("hardware") or {}),
        "timing": ", ".join(f"{name} {short(value)}" for name, value in (record.get("timing") or {}).items()),
    }
    return html.table(
        [], [[name, str(value)] for name, value in rows.items() if value not in (None, "")], numbers_from=9
    )


def _hardware(found: Mapping[str, Any]) -> str:
    shown = {**found, "memory": files.megabytes(found["memory"])} if isinstance(found.get("memory"), int) else found
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value not in ([], None, ""))


def _config(run: Run) -> str:
    return html.details("Configuration", dump_yaml(run.config))


def _read(run: Run, name: str) -> Any:
    return files.read_json(run.path / name) if (run.path / name).is_file() else None
