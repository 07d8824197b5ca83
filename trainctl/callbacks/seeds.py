"""Someone's data and modules draw from the global generators; here these become a function of seed, epoch and batch.

So a resumed run shuffles, drops out and augments as an undisturbed one: saving the generators' state would not do,
since Lightning makes its iterators at another moment when it resumes. Built-in tasks and data seed themselves.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from trainctl.tasks.base import Task


class Seeds(pl.Callback):
    """Seeds python, numpy and torch at the start of every epoch (the same on all ranks) and of a foreign step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first loader is asked for its iterator."""
        self._set(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the order of the epoch is drawn."""
        self._set(trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the step of a foreign module."""
        if not isinstance(pl_module, Task):
            self._set(trainer.current_epoch, 1 + batch_idx, trainer.global_rank)

    def _set(self, epoch: int, batch: int = 0, rank: int = 0) -> None:
        # CPU generators keep 32 bits; a mix gives near keys far seeds
        key = (((self.seed * 1_000_003 + epoch) * 1_000_003 + batch) * 1_009 + rank) % (2**32)
        random.seed(key)
        np.random.seed(key)
        torch.manual_seed(key)
