"""Outputs of rows that are not in a split: a piece of a new file."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from trainctl.data.base import EVAL_BATCH_VALUES, Data
from trainctl.tasks.base import Task


@torch.inference_mode()
def forward(trainer: pl.Trainer, task: Task, data: Data, x: Tensor) -> Tensor:
    """The net's output [N, num_outputs] for x [N, ...], on the CPU; batches, device and precision as in evaluation.

    `task.predict_outputs` makes probabilities or values of it.
    """
    device = trainer.strategy.root_device
    task.to(device).eval()
    if not len(x):
        return torch.zeros((0, task.spec.num_outputs))
    auto = max(data.batch_size, min(4096, EVAL_BATCH_VALUES // max(1, x[:1].numel())))
    with trainer.precision_plugin.forward_context():
        parts = [task(part.to(device)).float().cpu() for part in torch.split(x, data.eval_batch_size or auto)]
    return torch.cat(parts)
