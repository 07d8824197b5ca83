"""Regression: one number, learned on the standardised scale and reported in the user's unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.estimator import FitsEstimators
from trainctl.tasks.training import Training

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


class Regression(FitsEstimators):
    """Mean squared, absolute or Huber loss of the standardised target; output [B, 1], y [B]."""

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        training: Training | None = None,
        loss: Literal["mse", "mae", "huber"] = "mse",
        l1: float = 0.0,
    ) -> None:
        if spec.target != "number":
            raise UsageError(
                "`task=regression` needs a number to predict, but the target is a class; use `task=classification` or "
                "`task=auto`, or set `data.target_kind=number`"
            )
        super().__init__(net, spec, training, l1)
        if loss not in LOSSES:
            raise UsageError(f"`task.loss` must be one of {', '.join(LOSSES)} for a number, got {loss!r}")
        self._loss = LOSSES[loss]
        if training is not None and loss != "mse":
            self.refuse_for_estimator(**{"task.loss": loss})

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss on the standardised scale, so learning rates do not depend on the user's unit."""
        return self._loss(output.squeeze(-1), self.target(y))

    def target(self, y: Tensor) -> Tensor:
        """y on the standardised scale."""
        return (y - self.spec.target_mean) / self.spec.target_std

    def predict_outputs(self, output: Tensor) -> Tensor:
        """Values [N] in the user's unit."""
        return output.squeeze(-1) * self.spec.target_std + self.spec.target_mean
