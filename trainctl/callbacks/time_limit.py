"""trainer.max_time: end training after so many seconds of fitting, between two optimizer steps."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from trainctl.tasks.base import Task


class TimeUp(Exception):
    """Training time is over; the place reached is checkpointed and the best weights so far are used."""


class TimeLimit(pl.Callback):
    """Counts only this process's time in `fit`, plus what an earlier part of the run used."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.used = 0.0
        self.over = False  # for all ranks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic() - self.used

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here when time is up; all ranks decide together."""
        self.used = time.monotonic() - self._started
        self.over = trainer.strategy.reduce_boolean_decision(self.used >= self.seconds, all=False)
        if not self.over:
            return
        # at the end of an epoch its validation is still worth having
        if batch_idx + 1 < trainer.num_training_batches:
            if isinstance(pl_module, Task):
                pl_module.progress.stopped = True
            raise TimeUp

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not begin an epoch that there is no time for."""
        if self.over:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Seconds used so far."""
        return {"used": self.used}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.used = state_dict["used"]
