"""evaluate: the figures of a run on one of its splits or on a new file, with intervals, groups and predictions.

A new file (`data.path=new.csv`) is evaluated whole, with the run's own preprocessing. Every look at the run's test
split is counted on the run that was trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from trainctl import build, metrics
from trainctl.data.base import Data
from trainctl.errors import DataError, ResourceError, UsageError, did_you_mean
from trainctl.metrics import slices, threshold
from trainctl.run import files
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs import findings, inference, restore, versus_parent
from trainctl.verbs.forward import forward
from trainctl.verbs.job import Job, Outcome

log = logging.getLogger("trainctl")


@dataclass(frozen=True)
class Options:
    """What to measure: a split of the run's data, or all rows of `new_file`."""

    split: str
    new_file: str | None
    slices: tuple[str, ...]
    bootstrap: int
    threshold: Any
    seed: int

    @classmethod
    def of(cls, run: Run) -> Options:
        """Read the run's config, whose values are checked; UsageError for a split of a new file."""
        config, overrides = run.config, run.record.get("overrides", [])
        node, split = config.get("evaluate") or {}, config.get("split", "test")
        keys = {str(override).partition("=")[0].lstrip("+") for override in overrides}
        moved = "data.path" in keys
        if moved and "split" in keys:
            raise UsageError("`data.path` names a new file, which is evaluated whole; leave `split` out")
        named = node.get("slices") or []
        return cls(
            split,
            str(config["data"]["path"]) if moved else None,
            (named,) if isinstance(named, str) else tuple(str(name) for name in named),
            node.get("bootstrap", 1000),
            node.get("threshold"),
            node.get("seed", config.get("seed", 0)),
        )


@dataclass(frozen=True)
class Measured:
    """Outputs of a set of rows, what was true, the loss, where the rows are in their source, their groups by column."""

    outputs: Tensor
    y: Tensor
    loss: float
    rows: np.ndarray | None
    groups: dict[str, list[str | None]]


def evaluate(job: Job) -> Outcome:
    """Measure the source run. Raises RunError (no weights), DataError, UsageError, DivergedError."""
    started = time.perf_counter()
    assert job.source is not None
    source, options = job.source, Options.of(job.run)
    torch.set_num_threads(num_threads(job.run, source))
    data, task = restore.restore(source, job.run.config)
    trainer = build.trainer(job.run.config, job.run.path)
    job.clock("setup", started)
    started = time.perf_counter()
    if not isinstance(task, Task):
        return _foreign(job, source, options, trainer, task, data)
    cut = threshold.check(options.threshold, len(task.spec.classes))
    if isinstance(cut, str):
        objective, cut = cut, threshold.best(*_validation(trainer, task, source, job, data, options), cut)
        log.info("threshold: %.4g, the best of val by %s", cut, threshold.NAMES.get(objective, objective))
    measured = _measured(trainer, task, data, options, options.slices)
    parent = versus_parent.parent_task(source, job.run.config, task.spec, data)
    beside = None if parent is None else _measured(trainer, parent, data, options).outputs
    job.clock("evaluate", started)
    return _keep(job, source, options, task, measured, cut, beside) if job.rank == 0 else Outcome({})


def _measured(
    trainer: pl.Trainer, task: Task, data: Any, options: Options, columns: tuple[str, ...] = ()
) -> Measured:
    if options.new_file is not None:
        return of_file(trainer, task, data, options.new_file, columns)
    return of_split(trainer, task, data, options.split, columns)


def num_threads(run: Run, source: Run) -> int:
    """As configured, else as in training: another count gives other bits."""
    wanted, recorded = run.config["trainer"].get("threads", "auto"), source.record.get("threads")
    if wanted == "auto":
        return recorded if isinstance(recorded, int) and recorded > 0 else 1
    return int(wanted)


def of_split(trainer: pl.Trainer, task: Task, data: Any, split: str, columns: tuple[str, ...] = ()) -> Measured:
    """Outputs of a split of the run's own data."""
    if columns and not isinstance(data, Data):
        raise DataError(f"no column `{columns[0]}`: {type(data).__name__} has no named columns to slice by")
    groups = {name: data.column(name, split) for name in columns}
    outputs, y = inference.outputs(trainer, task, data, split)
    rows = data.split(split).rows if isinstance(data, Data) else None
    if rows is not None and len(rows) != len(y):  # trainer.limit_batches
        rows, groups = rows[: len(y)], {name: values[: len(y)] for name, values in groups.items()}
    return Measured(outputs, y, float(trainer.callback_metrics["test/loss"]), rows, groups)


def of_file(trainer: pl.Trainer, task: Task, data: Any, path: str, columns: tuple[str, ...] = ()) -> Measured:
    """Outputs of every row of a new file, read piece by piece."""
    if not isinstance(data, Data):
        raise UsageError(f"{type(data).__name__} cannot read new files; evaluate one of its splits with `split=`")
    groups: dict[str, list[str | None]] = {name: [] for name in columns}
    rows: list[np.ndarray] = []
    targets: list[Tensor] = []

    def outputs() -> Iterator[Tensor]:
        for chunk in data.stream(Path(path), with_target=True):
            if chunk.y is None:
                raise DataError(f"`{path}` has no target; `trainctl predict` needs none")
            targets.append(chunk.y)
            rows.append(chunk.rows)
            for name in columns:
                groups[name] += _column(chunk.frame, name, path)
            yield forward(trainer, task, data, chunk.x)

    output, y = torch.cat(list(outputs())), torch.cat(targets)
    for sentence in data.warnings:
        log.warning("%s", sentence)
    loss = task.cpu().loss(output, y).item()
    return Measured(task.predict_outputs(output), y, loss, np.concatenate(rows), groups)


def _column(frame: Any, name: str, path: str) -> list[str | None]:
    if frame is None or name not in frame.columns:
        hint = did_you_mean(name, frame.columns if frame is not None else ())
        raise DataError(f"no column `{name}` in `{path}`{hint}")
    import polars

    values: list[str | None] = frame.get_column(name).cast(polars.String).to_list()
    return values


def _validation(
    trainer: pl.Trainer, task: Task, source: Run, job: Job, data: Any, options: Options
) -> tuple[Tensor, Tensor]:
    """Outputs of the run's own validation split, also when a new file is evaluated."""
    if options.new_file is not None:
        config = {**job.run.config, "data": source.config["data"]}
        data = build.data(config, source.path / restore.PREPROCESSING)
    found = of_split(trainer, task, data, "val")
    return found.outputs, found.y


def _keep(
    job: Job, source: Run, options: Options, task: Task, measured: Measured, cut: float | None, beside: Tensor | None
) -> Outcome:
    """Figures, files and sentences of what was measured; `beside`: what the parent of a compressed run predicts."""
    started = time.perf_counter()

    def report(outputs: Tensor, y: Tensor) -> metrics.Report:
        return metrics.evaluate_outputs(outputs, y, task.spec, options.bootstrap, options.seed, cut)

    whole = report(measured.outputs, measured.y)
    by = {
        name: slices.by_group(measured.outputs, measured.y, groups, report) for name, groups in measured.groups.items()
    }
    folder = job.run.path
    kept = findings.keep(folder, whole, measured.outputs, measured.y, task.spec, measured.rows, cut)
    if by:
        files.write_json(folder / "slices.json", by)
        kept["slices"] = "slices.json"
    fields: dict[str, Any] = {"rows": whole.rows, "split": options.new_file or options.split}
    fields |= {
        "threshold": cut,
        "resamples": whole.resamples,
        "gaps": {name: part["gaps"] for name, part in by.items()},
    }
    if beside is not None:
        pair = (beside, measured.outputs)
        fields["versus_parent"] = versus_parent.compared(
            pair, measured.y, task.spec, options.bootstrap, options.seed, cut
        )
        log.info("%s", versus_parent.told(fields["versus_parent"], task.spec))
    fields |= _look(job, source, options, whole.warnings)
    log.info("%s: %d rows", options.new_file or options.split, whole.rows)
    for name, part in by.items():
        log.info("by %s: %s", name, told(part, "accuracy" if task.spec.target == "class" else "mae"))
    for sentence in fields["warnings"]:
        log.warning("%s", sentence)
    job.run.update(**fields)  # the report reads them
    job.clock("measure", started)
    stage = options.split
    figures: dict[str, float | None] = {"loss": measured.loss, **whole.metrics}
    if beside is not None:
        figures["agreement"] = fields["versus_parent"]["agreement"]
    return Outcome(
        {f"{stage}/{name}": value for name, value in figures.items()},
        {f"{stage}/{name}": interval for name, interval in whole.intervals.items()},
        kept,
        fields,
    )


def told(groups: dict[str, Any], metric: str) -> str:
    """One line of what a column divides: `m 0.785 (50 rows), f 0.911 (40 rows); gap 0.126 in accuracy`."""
    shown = [
        f"{value} {_short(group['metrics'][metric])} ({group['rows']} rows)"
        for value, group in groups["groups"].items()
    ]
    more = f", {len(shown) - 6} more" if len(shown) > 6 else ""
    return f"{', '.join(shown[:6])}{more}; gap {_short(groups['gaps'].get(metric))} in {metric} (all in slices.json)"


def _short(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _look(job: Job, source: Run, options: Options, warnings: list[str]) -> dict[str, Any]:
    """Count a look at the source's test split; a source that cannot be written is said, not refused."""
    if options.split != "test" or options.new_file is not None:
        return {"warnings": warnings}
    try:
        looks = source.count_test_look(by=job.run.name)
    except ResourceError as error:
        return {"warnings": [*warnings, f"this look at the test split is not counted: {error}"]}
    log.info("the test split of `%s` was looked at %d time%s", source.name, looks, "s" * (looks != 1))
    return {"warnings": warnings, "test_looks": looks}


def _foreign(job: Job, source: Run, options: Options, trainer: pl.Trainer, task: Any, data: Any) -> Outcome:
    """A LightningModule from elsewhere measures itself in its `test_step`."""
    if options.new_file or options.slices or options.threshold is not None:
        raise UsageError(
            f"{type(task).__name__} is not a trainctl task: `data.path`, `evaluate.slices` and "
            "`evaluate.threshold` need one; leave them out"
        )
    trainer.test(task, dataloaders=inference.loader(trainer, data, options.split), verbose=False)
    logged: dict[str, float | None] = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Outcome(logged, fields=_look(job, source, options, [])) if job.rank == 0 else Outcome({})
