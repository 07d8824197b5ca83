"""Someone else's LightningModule on our data, stopped at a step and resumed by Lightning itself: nothing repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from trainctl.data.synthetic import Synthetic


class Foreign(pl.LightningModule):
    """Remembers the epoch, step and content of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(14, 2), []  # type: ignore[var-annotated]

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        self.seen.append((self.current_epoch, index, float(x.sum())))
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    def validation_step(self, batch: Any, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Stop(Exception):
    pass


class StopAt(pl.Callback):
    """Writes a checkpoint after a step and ends the run."""

    def __init__(self, step: int | None, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Stop


def fit(path: Path, stop: int | None = None, resume: bool = False) -> Foreign:
    torch.manual_seed(0)
    module = Foreign()
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[StopAt(stop, path)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Synthetic(rows=200, batch_size=32, seed=4)
    if stop is None:
        trainer.fit(module, data, ckpt_path=path if resume else None, weights_only=True)
    else:
        with pytest.raises(Stop):
            trainer.fit(module, data)
    return module


@pytest.mark.parametrize("stop", [1, 4, 5, 7, 15])
def test_a_stopped_run_continues_with_the_next_batch(stop: int, tmp_path: Path) -> None:
    whole = fit(tmp_path / "none")
    assert len(whole.seen) == 15
    before = fit(tmp_path / "last.ckpt", stop)
    after = fit(tmp_path / "last.ckpt", resume=True)
    assert before.seen + after.seen == whole.seen
    assert torch.equal(after.layer.weight, whole.layer.weight)
