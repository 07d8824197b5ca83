"""train: fit with validation, keep the best checkpoint, test it, write the record."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from trainctl import build, lr_range, metrics, threads
from trainctl.callbacks import Checkpoint, Record, Report, Seeds, Show, Signals
from trainctl.callbacks.record import into
from trainctl.callbacks.time_limit import TimeLimit, TimeUp
from trainctl.data.base import Data
from trainctl.durations import seconds
from trainctl.errors import DivergedError, RunError, Stopped, TrainctlError, UsageError, did_you_mean
from trainctl.run import checkpoints, failures
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.tasks.estimator import is_estimator
from trainctl.tasks.gather import chosen_by_first, ranks
from trainctl.tasks.sharding import Sharded
from trainctl.verbs import findings, first_rows, inference, restore
from trainctl.verbs.job import CheckpointStore, Job, Outcome
from trainctl.verbs.source_data import check_unchanged, prepare

log = logging.getLogger("trainctl")

SMALL_STEP_VALUES = 2**22  # numbers in a chunk of mini-batches, at most
LARGEST_CHUNK = 64


def train(job: Job) -> Outcome:
    """Train the run's config. Raises Stopped, DivergedError, ResourceError, ...; what is needed to resume is kept."""
    started = time.perf_counter()
    config = job.config
    torch.set_num_threads(1)
    data = prepare(job, config)
    check_unchanged(job, data)
    if isinstance(data, Data):
        data.seed = config["seed"]  # of the batch order; the split was made with data.seed
    spec = restore.spec_of(data)
    task = build.task(config, spec, data, fit=True)
    if isinstance(task, Task) and isinstance(data, Data):
        first_rows.show(task, data.split("train").x[:2], config)
    if job.source is not None and not job.resume:
        restore.start_from(task, job.source)
    fitting = Fitting.make(job, task, data)
    job.clock("setup", started)

    fitting.fit(job, task, data)
    result = finish_fit(job, fitting, task, data)
    return keep(job, fitting, task, data, result) if job.rank == 0 else Outcome({})


@dataclass
class Fitting:
    """The trainer of one fit and the callbacks that the verb talks to."""

    trainer: pl.Trainer
    signals: Signals
    checkpoint: Checkpoint
    record: Record
    report: Report
    monitor: str

    @classmethod
    def make(cls, job: Job, task: pl.LightningModule, data: Any) -> Fitting:
        """Trainer, callbacks and loggers of the run's config."""
        run, config = job.run, job.config
        monitor, mode = monitored(config, task)
        epochs = 1 if is_estimator(task) else config["trainer"].get("max_epochs")
        show = Show(epochs, monitor, job.quiet)
        loggers = build.loggers(config, run.path)
        # a foreign module logs for itself
        writers = [into(logger) for logger in loggers] if isinstance(task, Task) else []
        report = Report(partial(job.hooks.on_epoch, run) if job.hooks.on_epoch else None)
        signals, record = Signals(), Record(run.log_metrics, show.epoch_line, report.take, *writers)
        checkpoint = Checkpoint(CheckpointStore(run.path), monitor, mode)
        limit = seconds(config["trainer"].get("max_time"))
        callbacks = [signals, record, show, *([TimeLimit(limit)] if limit else [])]
        callbacks += [] if isinstance(task, Task) and isinstance(data, Data) else [Seeds(config["seed"])]
        callbacks += [*build.callbacks(config, monitor, mode), checkpoint, report]
        trainer = build.trainer(config, run.path, callbacks, loggers)
        return cls(trainer, signals, checkpoint, record, report, monitor)

    def fit(self, job: Job, task: pl.LightningModule, data: Any) -> None:
        """Fit, from the last checkpoint when the job resumes."""
        run, config = job.run, job.config
        data.trainer = self.trainer
        if isinstance(task, Task):
            choose_chunk(task, data)
        found = checkpoints.find(run.path) if job.resume and checkpoints.names(run.path) else None
        if found is not None and found.warning:
            log.warning("%s", found.warning)
        if found is not None and job.rank == 0:
            run.cut_metrics(found.epoch or 0)
            log.info("resuming from `%s`: %s epochs done, step %s", found.name, found.epoch, found.step)
        strategy = self.trainer.strategy
        if self.trainer.world_size > 1:
            strategy.setup_environment()  # now, since ranks must agree on what is measured
        set_threads(job, config, task, data, strategy)
        if isinstance(task, Task):
            set_learning_rate(job, config, task, data, strategy)
        try:
            with job.clocked("fit"):
                self.trainer.fit(task, datamodule=data, ckpt_path=found.path if found else None, weights_only=True)
        except TimeUp:
            log.info("time is up (trainer.max_time): using the best weights so far")
        except DivergedError as error:
            raise DivergedError(f"{error}; {last_finite(run)}") from error
        except (MemoryError, RuntimeError) as error:
            told = fit_failure(error, run, self.trainer.current_epoch + 1)
            if told is None:
                raise
            raise told from error
        finally:
            self.signals.restore()
        if self.signals.requested():
            assert self.signals.received is not None
            raise Stopped(self.signals.received, "stopped after the last epoch")


def last_finite(run: Run) -> str:
    """Where a diverged run can be taken up again."""
    try:
        return f"last finite checkpoint: epoch {checkpoints.find(run.path, set_aside=False).epoch}"
    except RunError:
        return "there is no finite checkpoint yet"


def fit_failure(error: Exception, run: Run, epoch: int) -> TrainctlError | None:
    """The sentence for what torch raised in a fit: no memory, or a checkpoint of another net."""
    if failures.is_out_of_memory(error):
        return failures.out_of_memory(run, epoch)
    if "loading state_dict" not in str(error):
        return None
    shapes = re.search(r"mismatch for ([\w.]+): .*?Size\((.*?)\).*?Size\((.*?)\)", str(error))
    what = f"`{shapes[1]}` is {shapes[2]} there and {shapes[3]} here" if shapes else "it has other parameters"
    return RunError(f"the checkpoint is not of the net in the run's config: {what}")


def finish_fit(job: Job, fitting: Fitting, task: pl.LightningModule, data: Any) -> metrics.Report | None:
    """The best weights in the task, and the report of the test split when it is wanted."""
    started = time.perf_counter()
    fitting.trainer.strategy.barrier("checkpoints are written")
    if fitting.checkpoint.best_epoch is not None and fitting.checkpoint.best_score is None:
        raise DivergedError(
            f"{fitting.monitor} is undefined in every epoch, so none is the best; choose another `train.monitor=`"
        )
    name = restore.load_best(task, job.run, getattr(task, "average", None))
    log.info("best: %s", describe_best(fitting, name))
    result: metrics.Report | None = None
    if job.config["train"].get("test", True):
        if isinstance(task, Task):
            predicted, y = inference.outputs(fitting.trainer, task, data)
            if job.rank == 0:
                bootstrap = job.config["train"].get("bootstrap", 0)
                result = metrics.evaluate_outputs(predicted, y, task.spec, bootstrap, job.config["seed"])
                rows = data.split("test").rows[: len(y)] if isinstance(data, Data) else None
                job.arguments["kept"] = findings.keep(job.run.path, result, predicted, y, task.spec, rows)
        else:
            fitting.trainer.test(task, datamodule=data, verbose=False)
        if job.rank == 0:
            job.run.count_test_look(by=job.run.name)
    job.clock("test", started)
    return result


def describe_best(fitting: Fitting, name: str) -> str:
    """`epoch 7, val/loss 0.31`."""
    checkpoint = fitting.checkpoint
    if name != "best" or checkpoint.best_epoch is None:
        return f"no epoch was finished; using the `{name}` checkpoint"
    score = "undefined" if checkpoint.best_score is None else f"{checkpoint.best_score:.4g}"
    return f"epoch {checkpoint.best_epoch + 1}, {fitting.monitor} {score}"


def keep(
    job: Job, fitting: Fitting, task: pl.LightningModule, data: Any, result: metrics.Report | None
) -> Outcome:
    """Write the weights and what the report draws; the figures go to whoever finishes the run."""
    run = job.run
    in_shards = isinstance(fitting.trainer.strategy, Sharded)
    restore.save_weights(task, run.path / restore.WEIGHTS, run if in_shards else None)
    warnings = list(run.record.get("warnings", []))
    intervals = {}
    if result is not None:
        warnings += result.warnings
        intervals = {f"test/{k}": v for k, v in result.intervals.items()}
    for sentence in result.warnings if result else []:
        log.warning("%s", sentence)
    job.timing["steps_per_s"] = round(fitting.record.steps / max(fitting.record.seconds, 1e-9), 1)
    rows = run.metrics_log()
    figures = collect(fitting, rows, result) | (job.hooks.measure(task, data) if job.hooks.measure else {})
    return Outcome(
        figures,
        intervals,
        {"weights": restore.WEIGHTS, "checkpoint": "checkpoints/best.ckpt", **job.arguments.pop("kept", {})},
        {
            "warnings": warnings,
            "monitor": fitting.monitor,
            "mode": fitting.checkpoint.mode,
            "best_epoch": _best_epoch(fitting),
            "epochs": len(rows),
            **({"halted": fitting.report.halted} if fitting.report.halted else {}),
        },
    )


def _best_epoch(fitting: Fitting) -> int | None:
    return None if fitting.checkpoint.best_epoch is None else fitting.checkpoint.best_epoch + 1


def collect(fitting: Fitting, rows: list[dict[str, Any]], result: metrics.Report | None) -> dict[str, float | None]:
    """The best epoch's train and val figures, and those of test."""
    best = _best_epoch(fitting)
    row = next((r for r in rows if r.get("epoch") == best), rows[-1] if rows else {})
    figures = {k: v for k, v in row.items() if k not in ("epoch", "step", "seconds", "lr") and not k.startswith("test")}
    logged: dict[str, float | None] = {
        k: float(v) for k, v in fitting.trainer.callback_metrics.items() if k.startswith("test")
    }
    if result is not None:
        logged |= {f"test/{k}": v for k, v in result.metrics.items()}
    return figures | logged


def monitored(config: dict[str, Any], task: pl.LightningModule) -> tuple[str, Literal["min", "max"]]:
    """The metric that picks the best checkpoint, and its direction; UsageError for a name the task does not make."""
    monitor, mode = config["train"].get("monitor") or "auto", config["train"].get("mode") or "auto"
    if monitor == "auto":
        monitor = "val/loss" if isinstance(task, Task) else getattr(task, "monitor", "val_loss")
    if isinstance(task, Task):
        have = ["train/loss", *(f"val/{n}" for n in metrics.names.produced(task.spec.target))]
        if monitor not in have:
            hint = did_you_mean(monitor, have)
            raise UsageError(f"monitor `{monitor}` is not produced; have: {', '.join(have)}{hint}")
    if mode == "auto":
        mode = "min" if "loss" in monitor else metrics.names.mode(monitor)
    if isinstance(task, Task):
        task.monitor, task.mode = monitor, mode
    return monitor, cast(Literal["min", "max"], mode)


def choose_chunk(task: Task, data: Any) -> None:
    """Several mini-batches per trip through Lightning: as many as stay small beside the cost of a trip."""
    if not isinstance(data, Data):
        return
    values = data.batch_size * max(1, data.split("train").x[:1].numel())
    data.chunked, data.chunk = True, max(1, min(LARGEST_CHUNK, SMALL_STEP_VALUES // (values * 16)))


def set_threads(job: Job, config: dict[str, Any], task: pl.LightningModule, data: Any, strategy: Any) -> None:
    """The thread count of the config, of the run that is resumed, or the fastest now; the same on every rank."""
    cores = max(1, threads.allowed_cores() // ranks())
    wanted = config["trainer"].get("threads", "auto")
    recorded = job.run.record.get("threads")
    if job.resume and isinstance(recorded, int) and wanted == "auto":
        count = recorded
    elif wanted == "auto" and isinstance(task, Task) and isinstance(data, Data) and strategy.root_device.type == "cpu":
        split = data.split("train")
        size = data.batch_size
        assert split.y is not None
        count = threads.choose(task, (split.x[:size], split.y[:size]), cores) if job.rank == 0 else 1
        count = int(chosen_by_first(count, strategy.root_device))
    else:
        count = cores if wanted == "auto" else int(wanted)
    torch.set_num_threads(count)
    if job.rank == 0 and not job.resume:
        job.run.update(threads=count)


def set_learning_rate(job: Job, config: dict[str, Any], task: Task, data: Any, strategy: Any) -> None:
    """optimizer.lr=auto: run the range test once; a resumed run keeps the rate that was found."""
    if config["optimizer"].get("lr") != "auto":
        return
    found = job.run.record.get("lr") if job.resume else None
    if found is None:
        found = chosen_by_first(range_test(job, config, task, data) if job.rank == 0 else 0.0, strategy.root_device)
    fixed = build.training({**config, "optimizer": {**config["optimizer"], "lr": found}})
    task.training_options = fixed


def range_test(job: Job, config: dict[str, Any], task: Task, data: Any) -> float:
    """The learning rate that a range test finds; its curve is kept in the run."""
    with isolate_rng():
        make = partial(build.optimizer, {**config["optimizer"], "lr": 1e-3})
        result = lr_range.find(task, data.train_dataloader(), make, config["seed"])
    (job.run.path / "lr_range.json").write_text(json.dumps(result.to_dict()), encoding="utf-8")
    job.run.update(lr=result.lr)
    log.info("lr=auto: %.3g (curve in lr_range.json)", result.lr)
    return result.lr
