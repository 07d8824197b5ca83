"""train.folds=5 and train.seeds=5: one run with a child run per fold or seed, and figures over all of them.

A child is a run like any other, carried out in the same way (over several processes too). Interrupted, the
parent goes on with the children that are missing.
"""

from __future__ import annotations

import logging
import math
import statistics
from pathlib import Path
from typing import Any

from trainctl import launch
from trainctl.errors import SweepError, TrainctlError, UsageError
from trainctl.run import checkpoints, files
from trainctl.run.record import changed
from trainctl.run.run import Run

log = logging.getLogger("trainctl")


def wanted(config: dict[str, Any]) -> str | None:
    """`folds` or `seeds` when the config asks for children, else None."""
    train = config.get("train") or {}
    return next((kind for kind in ("folds", "seeds") if train.get(kind)), None)


def children(kind: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What each child changes in the parent's config, by dotted key."""
    count = int(config["train"][kind])
    if kind == "folds":
        if not isinstance(config["data"].get("split"), dict):
            target = config["data"].get("_target_")
            raise UsageError(f"`train.folds` needs data with a `split` to set; `{target}` brings its own splits")
        return [{"train.folds": None, "data.split.folds": count, "data.split.fold": k} for k in range(count)]
    # the same rows in test for every seed: only what is drawn in training differs
    return [{"train.seeds": None, "seed": config["seed"] + k} for k in range(count)]


def run_all(run: Run, options: launch.Options, source: Run | None) -> None:
    """Carry out every child that is not complete, then write mean, sd and the out-of-fold predictions."""
    kind = wanted(run.config)
    assert kind is not None
    runs = []
    for number, changes in enumerate(children(kind, run.config)):
        log.info("%s %d of %d", kind.removesuffix("s"), number + 1, run.config["train"][kind])
        runs.append(_child(run, run.path / kind / str(number), changes, options, source))
        if runs[-1].record.get("halted"):
            break  # who watches has seen enough of the first one
    metrics = summary([child.metrics for child in runs])
    artifacts = {}
    covers = kind == "folds" and run.config["data"]["split"].get("fold_as") != "val"  # each row is tested once
    if covers and all((child.path / "predictions.parquet").exists() for child in runs):
        artifacts["predictions"] = out_of_fold(run.path, runs)
    spread = {f"{kind}": len(runs), "children": {child.path.name: child.metrics for child in runs}}
    from trainctl.reporting import report

    report.write(run, metrics, {}, status="completed")
    halted = next((child.record["halted"] for child in runs if child.record.get("halted")), None)
    spread |= {"halted": halted} if halted else {}
    spread["epochs"] = sum(int(child.record.get("epochs") or 0) for child in runs)
    fields = {**spread, "monitor": runs[0].record.get("monitor"), "mode": runs[0].record.get("mode")}
    timing = {k: round(sum(c.record["timing"].get(k) or 0 for c in runs), 3) for k in ("setup_s", "fit_s", "test_s")}
    run.finish(metrics, {}, timing, {**artifacts, "report": "report.html"}, **fields)


def _child(run: Run, path: Path, changes: dict[str, Any], options: launch.Options, source: Run | None) -> Run:
    """One child, begun, resumed or found complete."""
    if (path / "run.json").exists():
        child = Run.open(path)
        if child.status == "completed":
            return child
        child.resume()
        resume = bool(checkpoints.names(path))
    else:
        path.mkdir(parents=True, exist_ok=True)
        words = [f"{key}={value}" for key, value in changes.items() if value is not None]
        child, resume = Run.create(path, run.verb, changed(run.stored_config(), changes), words, parent=run.path), False
    try:
        with child.lock():
            return launch.carry_out(child, options, source, resume)
    except TrainctlError as error:
        if error.exit_code < 128:
            raise type(error)(f"{path.parent.name.removesuffix('s')} {path.name}: {error}") from error
        raise


def summary(tables: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean of each metric over the children, and its standard deviation under `<name>_sd`.

    A metric that is undefined in one child is undefined here. Raises SweepError without any metric.
    """
    names = [name for name in tables[0] if all(name in table for table in tables)] if tables else []
    if not names:
        raise SweepError("no child run has metrics in common with the others")
    result: dict[str, float | None] = {}
    for name in names:
        values = [table[name] for table in tables]
        known = [v for v in values if v is not None and math.isfinite(v)]
        whole = len(known) == len(values)
        result[name] = statistics.fmean(known) if whole else None
        result[f"{name}_sd"] = statistics.stdev(known) if whole and len(known) > 1 else None
    return result


def out_of_fold(folder: Path, runs: list[Run]) -> str:
    """predictions.parquet: the test predictions of every fold, in the order of the file, with the fold's number."""
    import polars as pl

    parts = [
        pl.read_parquet(child.path / "predictions.parquet").with_columns(pl.lit(int(child.path.name)).alias("fold"))
        for child in runs
    ]
    frame = pl.concat(parts, how="diagonal_relaxed").sort("row")
    temporary = files.temp_path(folder / "predictions.parquet")
    frame.write_parquet(temporary)
    temporary.replace(folder / "predictions.parquet")
    return "predictions.parquet"
