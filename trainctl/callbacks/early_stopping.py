"""Early stopping at epoch ends, on the run's monitored metric unless another is named."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Stop when `monitor` has not improved by `min_delta` for `patience` epochs.

    `monitor` and `mode` are filled in from train.monitor and train.mode by `build` when left out.
    A metric that is undefined in an epoch (NaN) counts as no improvement; a NaN loss ends the run elsewhere.
    """

    def __init__(
        self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min", patience: int = 10, min_delta: float = 0.0
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            check_finite=False,
            strict=False,  # `Checkpoint` says which monitor is missing
            check_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was seen so far; the patience is the config's, which a resumed run may have changed."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def stops(self, figure: float | None) -> bool:
        """Whether an epoch with this figure (None: undefined) is the last, where no trainer of Lightning asks."""
        return bool(self._evaluate_stopping_criteria(torch.tensor(math.nan if figure is None else figure))[0])

    @property
    def triggered(self) -> bool:
        """Whether patience has run out."""
        return bool(self.wait_count >= self.patience)
