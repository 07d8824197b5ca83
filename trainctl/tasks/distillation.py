"""Learning from another net's outputs as well as from the data (Hinton, Vinyals & Dean 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Distillation:
    """(1 - weight) * loss + weight * how far the net's output is from the teacher's on the same x.

    Outputs [B, classes >= 2]: temperature² * KL(teacher || student) of the softened probabilities; [B, 1], a number:
    the mean squared difference. No module of the task: the teacher is in no checkpoint and gets no gradients.
    """

    def __init__(self, teacher: nn.Module, temperature: float = 2.0, weight: float = 0.5) -> None:
        self.teacher, self.temperature, self.weight = teacher.eval(), temperature, weight

    def __call__(self, x: Tensor, output: Tensor, y: Tensor, loss: Tensor) -> Tensor:
        """The blended loss, a scalar; x is what the net saw (augmented too), `loss` the task's own on y."""
        dtype = x.dtype if x.is_floating_point() else None  # trainer.precision may have changed the student's
        with torch.no_grad():
            taught = self.teacher.to(x.device, dtype)(x)
        precise = torch.promote_types(output.dtype, torch.float32)
        return (1 - self.weight) * loss + self.weight * self.distance(output.to(precise), taught.to(precise))

    def distance(self, output: Tensor, taught: Tensor) -> Tensor:
        """How far the student is from the teacher, a scalar on the scale of the task's loss."""
        if output.shape[1] == 1:
            return functional.mse_loss(output, taught)
        soft, target = (functional.log_softmax(logits / self.temperature, 1) for logits in (output, taught))
        # gradients of soft targets shrink with the square of the temperature
        return self.temperature**2 * functional.kl_div(soft, target, reduction="batchmean", log_target=True)
