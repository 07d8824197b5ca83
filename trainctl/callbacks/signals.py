"""Stopping on SIGTERM, SIGINT and SIGHUP: between two optimizer steps, with a checkpoint, on all ranks at once."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from trainctl.errors import SIGNALS, Stopped
from trainctl.tasks.base import Task


class Signals(pl.Callback):
    """Turns a first signal into a request that the task answers at the next batch; a second one ends at once.

    Several ranks leave the second one to their supervisor: a sender that reaches all processes of a job reaches each
    rank twice. Installed when training starts and taken away when it ends.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._distributed = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers."""
        for signum in SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        self._distributed = trainer.world_size > 1
        self._device = pl_module.device
        if isinstance(pl_module, Task):
            pl_module.stop_requested = self.requested

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._distributed and signum == self.received == signal.SIGINT:
            os._exit(128 + signum)
        self.received = signum

    def requested(self) -> bool:
        """Whether to stop now; with several ranks they agree on it, so call it on each of them."""
        if self._distributed:
            flag = torch.tensor([self.received or 0], device=self._device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self.received = int(flag) or None
        return self.received is not None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A foreign module cannot be stopped inside its step: it stops before the next one, at its last checkpoint."""
        if not isinstance(pl_module, Task) and self.requested():
            self.stop(pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Long validations stop too; a resumed run repeats the validation. Only our loaders give all ranks the same
        number of batches; with others several ranks wait for the next training batch."""
        if not self._previous or self._distributed and not hasattr(_loader(trainer), "num_batches"):
            return
        if self.requested():
            if isinstance(pl_module, Task):
                pl_module.progress.stopped = True
            self.stop(pl_module, trainer)

    def stop(self, pl_module: pl.LightningModule, trainer: pl.Trainer | None = None) -> None:
        """End the fit; `Checkpoint.on_exception` saves the place reached."""
        assert self.received is not None
        name = signal.Signals(self.received).name
        where = ""
        if isinstance(pl_module, Task):
            where = f" at epoch {pl_module.progress.epoch + 1} step {pl_module.progress.batch}"
        raise Stopped(self.received, f"stopped by {name}{where}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The task stopped between two mini-batches of its chunk."""
        if isinstance(pl_module, Task) and pl_module.progress.stopped:
            self.stop(pl_module, trainer)

    def restore(self) -> None:
        """Put the previous handlers back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def _loader(trainer: pl.Trainer) -> Any:
    loaders = trainer.val_dataloaders
    return loaders[0] if isinstance(loaders, list | tuple) else loaders
