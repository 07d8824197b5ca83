"""What the command line says about runs, as blocks (a line of text or a `Table`) for `console.emit` to print."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainctl.cli.console import Block, Table
from trainctl.durations import duration
from trainctl.run.compare import metrics_of, seconds, started, value_of
from trainctl.run.directory import child_paths, count_ended
from trainctl.run.files import megabytes, shown
from trainctl.run.run import Run

TIMING = ("import_s", "setup_s", "fit_s", "test_s", "total_s", "steps_per_s")
_STAGES = ("train", "val", "test")  # in the order of a table's columns


def metrics_table(metrics: Mapping[str, float | None], intervals: Mapping[str, Sequence[float]] | None = None) -> Table:
    """One row a metric, one column a stage; behind the value its interval `[low, high]`, or `± sd` over child runs."""
    split = [_stage(key) for key in metrics if not (key.endswith("_sd") and key[:-3] in metrics)]
    stages = sorted({stage for stage, _ in split}, key=_column)
    table = Table(["metric", *stages], figures=tuple(range(1, len(stages) + 1)))
    for name in dict.fromkeys(name for _, name in split):
        row = [name]
        for stage in stages:
            key = f"{stage}/{name}" if stage else name
            spread = metrics.get(f"{key}_sd")
            text = _value(metrics[key], (intervals or {}).get(key)) if key in metrics else ""
            row.append(text if spread is None else f"{text} ± {_number(spread)}")
        table.rows.append(row)
    return table


def run_summary(run: Run, next_commands: Iterable[str] = ()) -> list[Block]:
    """The end of a run: metrics, path, and what to type next."""
    blocks: list[Block] = []
    if run.metrics:
        blocks.append(metrics_table(run.metrics, run.record.get("intervals")))
    report = run.record.get("artifacts", {}).get("report")
    blocks.append(f"run: {shown(run.path)}")
    if report:
        blocks.append(f"report: {shown(run.path / report)}")
    blocks += [f"next: {command}" for command in next_commands]
    return blocks


def runs_table(runs: Sequence[Run], metric: str | None = None) -> Table:
    """One line a run for `trainctl runs`; `metric` is the column shown (default: the run's own monitor)."""
    table = Table(["run", "status", "took", metric or "metric", "overrides"], figures=(2, 3), gives_way=4)
    for run in runs:
        error = (run.record.get("error") or {}).get("message", "")
        overrides = ": ".join(text for text in (_trials(run), " ".join(_typed(run)) or str(error)) if text)
        table.rows.append(
            [
                f"{run.verb}/{run.name}",
                run.status,
                duration(seconds(run)),
                _headline(run, metric),
                overrides if len(overrides) <= 60 else overrides[:57] + "...",
            ]
        )
    return table


def show(run: Run, children: Sequence[Run] = (), next_commands: Iterable[str] = ()) -> list[Block]:
    """All that a run's directory says about it, for `trainctl show RUN`."""
    made = [f"{child.path.relative_to(run.path)} {child.status}" for child in children]
    blocks: list[Block] = [facts(run, {"children": ", ".join(made)}), *data_blocks(run.record.get("data"))]
    if run.metrics:
        blocks.append(metrics_table(run.metrics, run.record.get("intervals")))
    return [*blocks, files_table(run), *(f"next: {command}" for command in next_commands)]


def facts(run: Run, more: Mapping[str, str]) -> Table:
    """What run.json says, a line each, with `more` in between; what it does not say is left out."""
    record = run.record
    table = Table(["", ""], [["run", shown(run.path)], ["verb", run.verb], ["status", _status(run)]])
    begin = started(run)
    git = record.get("git") or {}
    rows: list[tuple[str, str]] = [
        (
            "started",
            f"{begin:%Y-%m-%d %H:%M:%S} by {record.get('user', '?')} on {record.get('host', '?')}" if begin else "",
        ),
        ("took", duration(seconds(run)) if seconds(run) is not None else ""),
        ("timing", _timing(record.get("timing") or {})),
        ("command", _command(run)),
        ("config", _essentials(run)),
        ("seed", str(record["seed"]) if record.get("seed") is not None else ""),
        ("parent", shown(run.parent) if run.parent else ""),
        *more.items(),
        ("git", f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())),
        ("test looks", looks(run.test_looks()) if run.test_looks() else ""),
    ]
    table.rows += [[name, text] for name, text in rows if text]
    return table


def looks(count: int) -> str:
    """`test split looked at 3 times`."""
    return f"test split looked at {count} {'time' if count == 1 else 'times'}"


def data_blocks(data: object) -> list[Block]:
    """What the data module's `describe()` says: split sizes, dropped columns with the reason, warnings."""
    if not isinstance(data, Mapping):
        return []
    blocks: list[Block] = []
    splits = data.get("splits")
    if isinstance(splits, Mapping) and splits:
        sizes = {
            name: part.get("rows", part.get("size")) if isinstance(part, Mapping) else part
            for name, part in splits.items()
        }
        blocks.append("data: " + ", ".join(f"{name} {size} rows" for name, size in sizes.items()))
    for column in data.get("columns") or []:
        if isinstance(column, Mapping) and column.get("kind") == "drop" and column.get("why") != "the target":
            blocks.append(f"dropped column {column.get('name')}: {column.get('why')}")
    blocks += [f"warning: {text}" for text in data.get("warnings") or []]
    return blocks


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A ranked sweep.

    Rows have `run` (path), `status`, `overrides` (list or text), `metric` and `value`, perhaps `place` and `error`.
    """
    metric = next((str(row["metric"]) for row in rows if row.get("metric")), "metric")
    table = Table(["place", "run", "status", metric, "overrides"], figures=(0, 3))
    for row in rows:
        overrides = row.get("overrides") or ""
        text = overrides if isinstance(overrides, str) else " ".join(map(str, overrides))
        place = row.get("place")
        status = f"{row.get('status', '')}: {row['error']}" if row.get("error") else str(row.get("status", ""))
        table.rows.append(
            ["-" if place is None else str(place), shown(row["run"]), status, _value(row.get("value")), text]
        )
    return table


def run_json(run: Run) -> dict[str, Any]:
    """The one object that `--json` prints for a run; paths are relative to the current directory when below it."""
    record = run.record
    artifacts = {name: shown(run.path / path) for name, path in (record.get("artifacts") or {}).items()}
    outputs = {name: shown(path) for name, path in (record.get("outputs") or {}).items()}
    timing = record.get("timing") or {}
    return {
        "run": shown(run.path),
        "verb": run.verb,
        "status": run.status,
        "parent": shown(run.parent) if run.parent else None,
        "metrics": metrics_of(run),
        "intervals": record.get("intervals") or {},
        "timing": {**dict.fromkeys(TIMING), **timing},
        "artifacts": {**artifacts, **outputs},
    }


def quoted(path: str | os.PathLike[str]) -> str:
    """A path ready to paste into a shell, relative when below the current directory."""
    return shlex.quote(shown(path))


def _stage(key: str) -> tuple[str, str]:
    stage, slash, name = key.partition("/")
    return (stage, name) if slash else ("", key)


def _column(stage: str) -> tuple[int, str]:
    return (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), stage)


def _value(value: object, interval: object = None) -> str:
    if not isinstance(value, int | float):
        return "-"
    text = _number(value)
    if isinstance(interval, Sequence) and len(interval) == 2 and all(isinstance(end, int | float) for end in interval):
        text += f" [{_number(interval[0])}, {_number(interval[1])}]"
    return text


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:.4f}" if size == 0 or 1e-3 <= size < 1e4 else f"{value:.4g}"


def _headline(run: Run, metric: str | None) -> str:
    metrics = metrics_of(run)
    if metric is not None:
        return _value(value_of(metrics, metric))
    chosen = run.record.get("monitor") or next(
        (name for name in metrics if not name.endswith(("/loss", "/mse"))), None
    )
    value = value_of(metrics, str(chosen)) if chosen else None
    return f"{chosen} {_number(value)}" if value is not None else "-"


def _status(run: Run) -> str:
    error = run.record.get("error") or {}
    place = f" ({shown(run.path / 'error.txt')})" if (run.path / "error.txt").exists() else ""
    if error:
        return f"{run.status}: {error.get('message', '')}{place}"
    if run.status == "crashed":
        return "crashed: its process ended without a word"
    return run.status


def is_study(run: Run) -> bool:
    """Whether the run's children are the trials of a search or the points of a grid."""
    return run.verb == "tune" or isinstance(run.record.get("sweep"), int)


def _trials(run: Run) -> str:
    """`study of 50 (48 done)`; `sweep of 4` where a launcher of Hydra's ran it."""
    if not is_study(run):
        return ""
    if "started" not in run.record:
        return f"sweep of {run.record['sweep']}"
    counts, number = run.record.get("trials"), run.record.get("budget") or run.record.get("sweep")
    if isinstance(counts, Mapping):
        done = sum(int(counts.get(state, 0)) for state in ("completed", "stopped", "failed"))
    else:
        done = count_ended(child_paths(run.path))
    return f"study of {number} ({done} done)" if number else f"study ({done} done)"


def _typed(run: Run) -> list[str]:
    """The overrides without those that `--from` adds."""
    return [str(word) for word in run.record.get("overrides") or [] if not str(word).endswith("=from_run")]


def _command(run: Run) -> str:
    """The command line that made the run, to paste into a shell."""
    words, overrides = ["trainctl", run.verb], run.record.get("overrides") or []
    if run.parent and run.verb != "train":
        words.append(shown(run.parent))
    elif run.parent and len(_typed(run)) < len(overrides):
        words += ["--from", shown(run.parent)]
    if run.verb == "predict":
        words += [str(run.record.get("input", "FILE"))]
    return " ".join(shlex.quote(word) for word in [*words, *_typed(run)])


def _timing(timing: Mapping[str, Any]) -> str:
    parts = []
    for name, value in timing.items():
        if isinstance(value, int | float):
            parts.append(
                f"{name[:-2]} {duration(value)}"
                if name.endswith("_s") and name != "steps_per_s"
                else f"{name} {value:.0f}"
            )
    return ", ".join(parts)


def _essentials(run: Run) -> str:
    """`model mlp, task classification, data tabular, optimizer adamw`: the last name of each `_target_`."""
    try:
        config = run.config
    except Exception:
        return "damaged"
    parts = []
    for group in ("model", "task", "data", "optimizer", "scheduler"):
        node = config.get(group)
        if isinstance(node, Mapping) and node.get("_target_"):
            parts.append(f"{group} {str(node['_target_']).rpartition('.')[2]}")
    return ", ".join(parts)


def files_table(run: Run) -> Table:
    """The run's own files, without those of its children."""
    table = Table(["file", "size"], figures=(1,))
    for folder, folders, names in os.walk(run.path):
        folders[:] = sorted(name for name in folders if not os.path.exists(os.path.join(folder, name, "run.json")))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith((".tmp-", ".lock")):
                with contextlib.suppress(OSError):
                    table.rows.append([os.path.relpath(path, run.path), megabytes(os.stat(path).st_size)])
    return table
