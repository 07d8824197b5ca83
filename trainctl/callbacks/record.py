"""One row of figures per epoch, handed to whoever keeps them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint as RunsAfterTheModule

from trainctl.tasks.base import Task

Row = dict[str, Any]


class Record(RunsAfterTheModule):
    """Calls each of `write(row)` at epoch ends: epoch (from 1), step, lr, seconds and every logged metric.

    Lightning calls subclasses of its Checkpoint after the module has published the epoch's figures.
    """

    def __init__(self, *write: Callable[[Row], None]) -> None:
        self.write = write
        self.seconds = 0.0
        self.steps = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started, self._first_step = time.perf_counter(), _step(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the row."""
        seconds, step = time.perf_counter() - self._started, _step(trainer, pl_module)
        self.seconds += seconds
        self.steps += step - self._first_step
        found = trainer.callback_metrics
        metrics = {k: _number(float(found[k])) for k in sorted(found, key=lambda name: not name.startswith("train"))}
        row: Row = {"epoch": trainer.current_epoch + 1, "step": step, "seconds": round(seconds, 4)}
        if trainer.optimizers:
            row["lr"] = _lr(trainer, pl_module)
        if trainer.is_global_zero:
            for write in self.write:
                write(row | metrics)

    def state_dict(self) -> Row:
        """Time and steps so far, so that a resumed run reports the whole."""
        return {"seconds": self.seconds, "steps": self.steps}

    def load_state_dict(self, state_dict: Row) -> None:
        """Inverse of `state_dict`."""
        self.seconds, self.steps = state_dict["seconds"], state_dict["steps"]


def into(logger: Any) -> Callable[[Row], None]:
    """A writer of rows for one of Lightning's loggers; its x-axis is the step."""

    def write(row: Row) -> None:
        logger.log_metrics({k: v for k, v in row.items() if k != "step" and v is not None}, step=row["step"])
        logger.save()

    return write


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lr(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """The rate of the epoch's last step: a scheduler has set the next one already."""
    if isinstance(module, Task) and module.progress.lr is not None:
        return module.progress.lr
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _step(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    return module.progress.step if isinstance(module, Task) else trainer.global_step
