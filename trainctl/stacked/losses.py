"""Losses and outputs of K tasks at once: what Classification and Regression say, one value per member.

A stacked net gives [K, B, C] with the batch innermost in memory, so all here works on the transposed [K, C, B].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trainctl.stacked import Unstackable
from trainctl.tasks.classification import Classification
from trainctl.tasks.regression import LOSSES, Regression


def stacked(tasks: Sequence[Any], like: Tensor) -> ClassLoss | NumberLoss:
    """The loss of all tasks; Unstackable when they are of different kinds or have a loss of their own."""
    kinds = {type(task) for task in tasks}
    if len(kinds) > 1:
        raise Unstackable("the tasks differ")
    kind = kinds.pop()
    if kind is Classification:
        return ClassLoss(tasks, like)
    if kind is Regression:
        return NumberLoss(tasks, like)
    raise Unstackable(f"{kind.__name__} has a loss of its own")


def same_or_column(values: Sequence[float], like: Tensor) -> Tensor | float:
    """The number that all members share, or one per member [K]."""
    return values[0] if len(set(values)) == 1 else torch.tensor(values, dtype=torch.float64).to(like)


def _at(value: Tensor | float, ndim: int) -> Any:
    """One number per member against tensors [K, ...] of `ndim` dimensions."""
    return value.view(-1, *[1] * (ndim - 1)) if isinstance(value, Tensor) else value


class ClassLoss:
    """Cross-entropy with each member's label smoothing and class weights."""

    def __init__(self, tasks: Sequence[Classification], like: Tensor) -> None:
        self.num_classes = len(tasks[0].spec.classes)
        self.classes = torch.arange(self.num_classes, device=like.device)[None, :, None]
        self.smoothing = same_or_column([float(t.label_smoothing) for t in tasks], like)
        weights = [cast(Tensor | None, t.class_weights) for t in tasks]
        self.weights: Tensor | None = None
        if any(w is not None for w in weights):
            ones = torch.ones(self.num_classes)
            self.weights = torch.stack([ones if w is None else w.cpu() for w in weights]).to(like)

    def train(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss [K] of a training batch: output [K, B, C], y [K or 1, B]."""
        log_probs = output.transpose(1, 2).log_softmax(1)
        target = (y[:, None] == self.classes).to(output.dtype)
        total: Tensor | int = y.shape[1]
        if self.weights is not None:
            total = (target * self.weights[:, :, None]).sum((1, 2))
        if isinstance(self.smoothing, Tensor) or self.smoothing:
            smoothing = _at(self.smoothing, 3)
            target = target * (1 - smoothing) + smoothing / self.num_classes
        if self.weights is not None:
            target = target * self.weights[:, :, None]
        return -(log_probs * target).sum((1, 2)) / total

    def evaluate(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss [K] without smoothing and weights: output [K, N, C], y [K or 1, N]."""
        log_probs = output.transpose(1, 2).log_softmax(1)
        index = y[:, None].expand(len(output), 1, -1)
        return -log_probs.gather(1, index)[:, 0].mean(1)

    def outputs(self, output: Tensor) -> Tensor:
        """Probabilities [K, N, C]."""
        return output.transpose(1, 2).softmax(1).transpose(1, 2)

    def keep(self, index: Tensor) -> None:
        """Drop the other members."""
        if isinstance(self.smoothing, Tensor):
            self.smoothing = self.smoothing[index]
        if self.weights is not None:
            self.weights = self.weights[index]


class NumberLoss:
    """Squared, absolute or Huber loss of the target on each member's standardised scale."""

    def __init__(self, tasks: Sequence[Regression], like: Tensor) -> None:
        kinds = {task._loss for task in tasks}
        if len(kinds) > 1 or not kinds <= set(LOSSES.values()):
            raise Unstackable("the losses differ")
        self._each: Any = kinds.pop()
        self.mean = same_or_column([t.spec.target_mean for t in tasks], like)
        self.std = same_or_column([t.spec.target_std for t in tasks], like)

    def train(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss [K] of a batch: output [K, B, 1], y [K or 1, B]."""
        target = (y - _at(self.mean, 2)) / _at(self.std, 2)
        output = output.squeeze(-1)
        losses: Tensor = self._each(output, target.expand_as(output), reduction="none")
        return losses.mean(1)

    evaluate = train

    def outputs(self, output: Tensor) -> Tensor:
        """Values [K, N] in the user's unit."""
        values: Tensor = output.squeeze(-1) * _at(self.std, 2) + _at(self.mean, 2)
        return values.to(output.dtype)

    def keep(self, index: Tensor) -> None:
        """Drop the other members."""
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(self, name, value[index])
