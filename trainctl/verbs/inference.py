"""Outputs of a task over a split."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from trainctl.data.base import Data
from trainctl.tasks.base import Task


def outputs(trainer: pl.Trainer, task: Task, data: Any, split: str = "test") -> tuple[Tensor, Tensor]:
    """Probabilities [N, C] or values [N], and y [N], of every row once, in file order, on the CPU.

    With several ranks each rank gets the whole.
    """
    trainer.test(task, dataloaders=loader(trainer, data, split), verbose=False)
    return task.outputs.pop("test")


def loader(trainer: pl.Trainer, data: Any, split: str) -> Any:
    """Batches of a split in file order, this rank's share of them."""
    data.trainer = trainer
    return data.loader(split) if isinstance(data, Data) else getattr(data, f"{split}_dataloader")()
