"""Each epoch's row told to whoever watches the run from outside, who may end it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint as RunsAfterTheModule

from trainctl.callbacks.record import Row


class Report(RunsAfterTheModule):
    """Calls `tell(row)` at epoch ends, once the checkpoint is written; a reason that it returns ends the fit.

    `Record` hands the row to `take`. `halted` is {epoch, why} of a fit that was ended so.
    """

    def __init__(self, tell: Callable[[Row], str | None] | None) -> None:
        self.tell = tell
        self.row: Row = {}
        self.halted: dict[str, Any] | None = None

    def take(self, row: Row) -> None:
        """Keep the row until the epoch's checkpoint is written."""
        self.row = row

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the row."""
        why = self.tell(self.row) if self.tell is not None and trainer.is_global_zero else None
        if why is not None:
            self.halted = {"epoch": trainer.current_epoch + 1, "why": why}
            trainer.should_stop = True
