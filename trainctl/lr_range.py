"""optimizer.lr=auto: a range test (Smith 2017, section 3.3) on a copy of the task; the curve is kept in the run."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch

from trainctl.errors import UsageError
from trainctl.tasks.base import Task
from trainctl.tasks.estimator import is_estimator
from trainctl.tasks.training import is_single

LOW, HIGH, STEPS, SMOOTHING = 1e-6, 1.0, 120, 0.9


@dataclass(frozen=True)
class LrRange:
    """The chosen rate and the curve it was read from."""

    lr: float
    rates: list[float]
    losses: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins for lr_range.json."""
        return {"lr": self.lr, "rates": self.rates, "losses": self.losses}


def find(task: Task, loader: Any, make_optimizer: Any, seed: int) -> LrRange:
    """Raise the rate from 1e-6 to 1 in equal ratios over at most 120 batches; stop when the loss has blown up.

    The rate taken is a third of the one where the smoothed loss falls steepest. UsageError when it never falls.
    """
    if is_estimator(task.net):
        raise UsageError("`optimizer.lr=auto` is for nets that are trained step by step; an estimator has no rate")
    trial = copy.deepcopy(task).train()
    torch.manual_seed(seed)
    optimizer = make_optimizer(trial.net, LOW)
    rates: list[float] = []
    losses: list[float] = []
    average, lowest = 0.0, math.inf
    for step, (x, y) in zip(range(STEPS), _batches(loader), strict=False):
        rate = LOW * (HIGH / LOW) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = trial.to(x.device).loss(trial(x), y)  # the data may be on the GPU before the task is
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
        smooth = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or smooth > 4 * lowest:
            break
        lowest = min(lowest, smooth)
        rates.append(rate)
        losses.append(smooth)
    return LrRange(_steepest(rates, losses) / 3, rates, losses)


def _batches(loader: Any) -> Any:
    """Single mini-batches, epoch after epoch."""
    epoch = 0
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        for item in loader:
            yield from [item] if is_single(item) else item
        epoch += 1


def _steepest(rates: list[float], losses: list[float]) -> float:
    slopes = [b - a for a, b in zip(losses[5:-1], losses[6:], strict=True)]
    if not slopes or min(slopes) > -1e-6 * abs(losses[0]):  # less is rounding
        raise UsageError("`optimizer.lr=auto` found no rate at which the loss falls; set `optimizer.lr` to a number")
    return rates[5 + slopes.index(min(slopes))]
