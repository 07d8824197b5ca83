"""One trial of a stack as an ordinary run: its record, its rows and log, its best epoch, and at the end its files."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from trainctl import build, metrics
from trainctl.callbacks.checkpoint import improves
from trainctl.callbacks.early_stopping import EarlyStopping
from trainctl.callbacks.record import Row
from trainctl.callbacks.show import epoch_text
from trainctl.data.base import Data
from trainctl.errors import DivergedError
from trainctl.run.failures import LOG_LINE
from trainctl.run.together import RunTogether
from trainctl.tasks.base import Task
from trainctl.verbs import findings
from trainctl.verbs.kept_data import Fitted
from trainctl.verbs.restore import PREPROCESSING, WEIGHTS
from trainctl.verbs.source_data import lines_of
from trainctl.verbs.train import monitored

NO_CHECKPOINT = "a trial of a stack keeps no checkpoint"
_FORMAT = logging.Formatter(LOG_LINE)


@dataclass(frozen=True)
class Clock:
    """Seconds and CPU seconds, shared out among the trials that are trained together."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    @classmethod
    def now(cls) -> Clock:
        """The time."""
        return cls(time.perf_counter(), time.process_time())

    def share(self, others: int) -> Clock:
        """What has passed since, for each of so many."""
        now = Clock.now()
        return Clock((now.seconds - self.seconds) / others, (now.cpu_s - self.cpu_s) / others)

    def __add__(self, other: Clock) -> Clock:
        return Clock(self.seconds + other.seconds, self.cpu_s + other.cpu_s)


@dataclass
class StackedRun:
    """A trial and what it has come to; `run` is made by `begin`. `number`, `path` and `overrides` are the order's."""

    number: int
    path: Path
    content: Mapping[str, Any]
    overrides: list[str]
    config: dict[str, Any]
    task: Task
    data: Data
    fitted: Fitted
    run: RunTogether = field(init=False)
    setup: Clock = Clock()

    def __post_init__(self) -> None:
        self.monitor, self.mode = monitored(self.config, self.task)
        self.max_epochs = int(self.config["trainer"]["max_epochs"])
        self.seed = int(self.config["seed"])
        self.restart()

    def restart(self) -> None:
        """Forget all that training brought."""
        self.stops: list[EarlyStopping] = build.callbacks(self.config, self.monitor, self.mode)  # type: ignore[assignment]
        self.rows: list[Row] = []
        self.log: list[str] = []
        self.warnings = list(self.fitted.description.get("warnings", []))
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.halted: dict[str, Any] | None = None
        self.metrics: dict[str, float | None] = {}
        self.intervals: dict[str, Any] = {}
        self.artifacts: dict[str, str] = {}
        self.fit, self.test = Clock(), Clock()

    # Training

    def begin(self, parent: Path, facts: Mapping[str, Any], **fields: Any) -> None:
        """Make the run, with status `running`; ResourceError when that cannot be."""
        description = self.fitted.description
        self.run = RunTogether.create(
            self.path, "train", self.content, self.overrides, parent, {**facts, "data": self.fitted.record},
            warnings=self.warnings, **fields,
        )  # fmt: skip
        self.run.know(self.config)
        self.say(logging.INFO, lines_of(description))
        self.say(logging.WARNING, self.warnings)

    def say(self, level: int, sentences: Iterable[str]) -> None:
        """Add lines to the log, which is written at the end."""
        self.log += [line(level, sentence) for sentence in sentences]

    def epoch(self, row: Row, figures: Mapping[str, float | None] | DivergedError, diverged: str | None) -> bool:
        """An epoch ended with this row, to which the figures of val are added; True when it is the best so far.

        DivergedError as the trial alone would raise it.
        """
        if diverged is not None:
            raise DivergedError(f"{diverged}; {NO_CHECKPOINT}")
        if isinstance(figures, DivergedError):
            raise DivergedError(f"{figures}; {NO_CHECKPOINT}")
        row |= {f"val/{name}": rounded(value) for name, value in figures.items()}
        self.rows.append(row)
        self.run.log_metrics(row)
        self.say(logging.INFO, [epoch_text(row, self.max_epochs)])
        found = row[self.monitor]
        if "loss" in self.monitor and found is None:
            loss = figures.get(self.monitor.removeprefix("val/"))
            raise DivergedError(f"{self.monitor} is {loss} at epoch {row['epoch']}; {NO_CHECKPOINT}")
        value = math.nan if found is None else found
        better = improves(value, self.best_score, self.best_epoch, self.mode)
        if better:
            self.best_score, self.best_epoch = found, row["epoch"]
        return better

    def over(self) -> bool:
        """Whether there is no further epoch: all are done, patience has run out, or a stopper ended it."""
        row = self.rows[-1]
        stopped = [stop.stops(row[stop.monitor]) for stop in self.stops if stop.monitor in row]
        return any(stopped) or row["epoch"] >= self.max_epochs or self.halted is not None

    def watched(self, train_loss: float) -> float | None:
        """The figure of the epoch that a scheduler may watch."""
        if self.monitor == "train/loss":
            return train_loss
        return self.rows[-1].get(self.monitor) if self.rows else None

    def halt(self, why: str) -> None:
        """A stopper ended it after its last row."""
        self.halted = {"epoch": self.rows[-1]["epoch"], "why": why}

    # Ends

    def keep(self, weights: Mapping[str, Tensor], measured: Mapping[str, float | None]) -> None:
        """Write the best epoch's weights and figures, and all other files; `complete` is left to do.

        `measured`: further figures of the net. DivergedError when no epoch was the best.
        """
        if self.best_epoch is not None and self.best_score is None:
            raise DivergedError(
                f"{self.monitor} is undefined in every epoch, so none is the best; choose another `train.monitor=`"
            )
        score = "undefined" if self.best_score is None else f"{self.best_score:.4g}"
        self.say(logging.INFO, [f"best: epoch {self.best_epoch}, {self.monitor} {score}"])
        self.run.add(WEIGHTS, save(dict(weights)))
        for name, content in self.fitted.content.items():
            self.run.add(f"{PREPROCESSING}/{name}", content)
        best = next(row for row in self.rows if row["epoch"] == self.best_epoch)
        figures = {name: value for name, value in best.items() if "/" in name}
        self.artifacts["weights"] = WEIGHTS
        if self.config["train"].get("test", True):
            figures |= self._tested(weights)
        self.metrics = {**figures, **measured}

    def seal(self) -> None:
        """Write the log, metrics.json and the manifest."""
        self.write_log()
        self.run.write_metrics(self.metrics)
        self.run.seal()

    def complete(self) -> None:
        """Set status `completed`."""
        fields = {"halted": self.halted} if self.halted else {}
        self.run.complete(
            self.artifacts,
            intervals=self.intervals,
            timing=self.timing(),
            warnings=self.warnings,
            monitor=self.monitor,
            mode=self.mode,
            best_epoch=self.best_epoch,
            epochs=len(self.rows),
            **fields,
        )

    def _tested(self, weights: Mapping[str, Tensor]) -> dict[str, float | None]:
        """The figures of the test split with these weights, and the files that show them."""
        clock = Clock.now()
        self.task.net.load_state_dict(weights)
        output, y = outputs(self.task, self.data, "test")
        predicted = self.task.predict_outputs(output)
        bootstrap = self.config["train"].get("bootstrap", 0)
        result = metrics.evaluate_outputs(predicted, y, self.task.spec, bootstrap, self.seed)
        rows = self.data.split("test").rows[: len(y)]
        self.artifacts |= findings.keep(self.run.path, result, predicted, y, self.task.spec, rows)
        self.intervals = {f"test/{name}": interval for name, interval in result.intervals.items()}
        self.warnings += result.warnings
        self.say(logging.WARNING, result.warnings)
        self.run.count_test_look(by=self.run.name)
        self.test = clock.share(1)
        figures = {"loss": rounded(self.task.loss(output, y).item()), **result.metrics}
        first = metrics.names.quick(self.task.spec.target)  # as in a trial alone
        return {f"test/{name}": figures[name] for name in dict.fromkeys([*first, *figures])}

    @property
    def seconds(self) -> float:
        """The trial's share of the time so far."""
        return self.setup.seconds + self.fit.seconds + self.test.seconds

    @property
    def cpu_s(self) -> float:
        """The trial's share of the CPU time so far."""
        return self.setup.cpu_s + self.fit.cpu_s + self.test.cpu_s

    def timing(self) -> dict[str, float]:
        """The trial's share of the group's time."""
        steps = self.rows[-1]["step"] if self.rows else 0
        return {
            "setup_s": round(self.setup.seconds, 4),
            "fit_s": round(self.fit.seconds, 4),
            "fit_cpu_s": round(self.fit.cpu_s, 4),
            "test_s": round(self.test.seconds, 4),
            "steps_per_s": round(steps / max(self.fit.seconds, 1e-9), 1),
            "total_s": round(self.seconds, 4),
        }

    def write_log(self) -> None:
        """Write train.log."""
        self.run.add("train.log", ("\n".join(self.log) + "\n").encode())


def line(level: int, sentence: str) -> str:
    """A line of a run's log."""
    content = {"levelno": level, "levelname": logging.getLevelName(level), "msg": sentence}
    return _FORMAT.format(logging.makeLogRecord(content))


def rounded(value: float | None) -> float | None:
    """A figure as Lightning hands it on, a float32; None when it is not finite."""
    single = math.nan if value is None else float(np.float32(value))
    return single if math.isfinite(single) else None


@torch.no_grad()
def outputs(task: Task, data: Data, split: str) -> tuple[Tensor, Tensor]:
    """The net's output [N, num_outputs] and y [N] for every row of a split in file order."""
    task.eval()
    dtype = next(p.dtype for p in task.parameters() if p.is_floating_point())
    parts = [(task(x.to(dtype) if x.is_floating_point() else x).float(), y) for x, y in data.loader(split)]
    return torch.cat([output for output, _ in parts]), torch.cat([y for _, y in parts])
