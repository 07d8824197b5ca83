"""What members set for themselves outside of loss, optimizer and schedule, as one value or a column of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainctl.stacked import Unstackable
from trainctl.tasks.base import Task


class Settings:
    """L1 penalty, clipping and weight average [K, 1] of each member (None: no member has it), and image scaling."""

    def __init__(self, tasks: Sequence[Task], like: Tensor) -> None:
        options = [task._options for task in tasks]
        accumulated = {option.accumulate_grad_batches for option in options}
        if len(accumulated) > 1:
            raise Unstackable("the members differ in accumulate_grad_batches")
        if any(task.augment is not None for task in tasks):
            raise Unstackable("images are changed at random")
        self.every = accumulated.pop()
        self._like = like
        self.l1 = _column([float(t.l1) for t in tasks], 0.0, like)
        clips = [math.inf if o.gradient_clip_val is None else float(o.gradient_clip_val) for o in options]
        self.clip = _column(clips, math.inf, like)
        # a member without an average has its last weights there: it moves all the way
        self.decay = _column([-1.0 if o.ema is None else o.ema for o in options], -1.0, like.double())
        self.averaged = any(o.ema is not None for o in options)
        self.image = tasks[0].spec.kind == "image"
        self.mean = self.std = None
        if self.image and tasks[0].spec.mean:
            self.mean, self.std = (_shared([getattr(t, name) for t in tasks], like) for name in ("mean", "std"))

    def inputs(self, x: Tensor) -> Tensor:
        """What the nets see: images become normalised, all else stays; see `Task.inputs`."""
        if not self.image:
            return x
        scaled = (x.float().div_(255.0) if x.dtype == torch.uint8 else x).to(self._like.dtype)
        return scaled if self.mean is None or self.std is None else (scaled - self.mean) / self.std

    def average_weight(self, updates: int) -> Tensor:
        """How far each average moves in its update number `updates`, as WeightAverage has it."""
        assert self.decay is not None
        weight = 1 - self.decay.clamp(max=(1 + updates) / (10 + updates))
        return weight.clamp(max=1.0).to(self._like.dtype)

    def keep(self, index: Tensor) -> None:
        """Drop the other members."""
        for name in ("l1", "clip", "decay"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[index])
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) > 1:
                setattr(self, name, value[index])


def _column(values: Sequence[float], nothing: float, like: Tensor) -> Tensor | None:
    """Values [K, 1], or None when all are `nothing`."""
    if all(value == nothing for value in values):
        return None
    return torch.tensor(values, dtype=torch.float64).to(like)[:, None]


def _shared(values: Sequence[Tensor], like: Tensor) -> Tensor:
    """[1, ...] when all are equal, else [K, ...]."""
    same = all(torch.equal(value, values[0]) for value in values)
    return torch.stack(list(values[:1] if same else values)).to(like)
