"""Training in this process, with the trained task to look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from trainctl import build, launch
from trainctl.config.compose import compose, plain
from trainctl.tasks.base import Task
from trainctl.verbs.train import monitored

QUICK = ("data=synthetic", "data.rows=1000", "data.batch_size=32", "trainer.accelerator=cpu", "trainer.max_epochs=1")


@dataclass
class Fitted:
    """A trained task, its weights before and after, and the trainer."""

    task: Task
    data: Any
    trainer: pl.Trainer
    before: dict[str, Tensor]

    @property
    def after(self) -> dict[str, Tensor]:
        return named(self.task)


def named(task: Task) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in task.net.named_parameters()}


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Fitted]:
    """`fit("task.l1=0.1", callbacks=[...])` trains on synthetic data as `trainctl train` would."""

    def run(*words: str, callbacks: tuple[pl.Callback, ...] = (), chunk: int = 4) -> Fitted:
        config = plain(compose("train", [*QUICK, *words]))
        data = build.data(config)
        data.setup()
        data.chunked, data.chunk = True, chunk
        task = build.task(config, data.spec, data, fit=True)
        assert isinstance(task, Task)
        monitored(config, task)
        before = named(task)
        with warnings.catch_warnings():
            launch.quieten()
            trainer = build.trainer(config, tmp_path, callbacks)
            trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)]
            try:
                trainer.fit(task, datamodule=data)
            finally:
                torch.use_deterministic_algorithms(False)
        return Fitted(task, data, trainer, before)

    return run
