"""Learning rate schedules. Each factory gets the optimizer and the run's length, and says when it wants its step.

The curves over steps are pure functions of the step number: a resumed run continues them exactly, and one whose
`max_epochs` was extended follows the longer curve from there on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from trainctl.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """A torch scheduler and when to call its `step()`: after every optimizer step or every epoch.

    metric=True: `step(value)` wants the monitored metric, lower being better (negate one that should rise).
    """

    scheduler: LRScheduler
    interval: Literal["step", "epoch"]
    metric: bool = False


def as_schedule(scheduler: Schedule | LRScheduler) -> Schedule:
    """What a foreign factory returned, as a Schedule: a bare torch scheduler steps once an epoch, a cycle each step."""
    if isinstance(scheduler, Schedule):
        return scheduler
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        return Schedule(scheduler, "step")
    return Schedule(scheduler, "epoch", metric=isinstance(scheduler, ReduceLROnPlateau))


def cosine(
    optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int, warmup: float = 0.05, final: float = 0.0
) -> Schedule:
    """Linear warm-up to the optimizer's lr, then half a cosine down to `final` times it.

    `warmup` is a share of all steps when below 1, else a number of steps; UsageError when negative.
    """
    warm = _warmup_steps("cosine", warmup, total_steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return _half_cosine(1.0, final, (step - warm) / max(total_steps - warm, 1))

    return Schedule(LambdaLR(optimizer, factor), "step")


def one_cycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup: float = 0.3,
    initial: float = 0.04,
    final: float = 4e-6,
) -> Schedule:
    """Half a cosine from `initial` times the optimizer's lr up to it, then half a cosine down to `final` times it.

    The shape of torch's OneCycleLR without its cycling of the momentum. `warmup` as for `cosine`.
    """
    warm = _warmup_steps("one_cycle", warmup, total_steps)

    def factor(step: int) -> float:
        if step < warm:
            return _half_cosine(initial, 1.0, step / warm)
        return _half_cosine(1.0, final, (step - warm) / max(total_steps - 1 - warm, 1))

    return Schedule(LambdaLR(optimizer, factor), "step")


def step(
    optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int, every: int = 10, gamma: float = 0.1
) -> Schedule:
    """The lr times `gamma` after each `every` epochs."""
    if every < 1:
        raise UsageError(f"scheduler.every={every} must be 1 or more epochs, e.g. scheduler.every=10")
    return Schedule(StepLR(optimizer, every, gamma), "epoch")


def plateau(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
    factor: float = 0.3,
    patience: int = 4,
    min_delta: float = 0.0,
    min_lr: float = 0.0,
) -> Schedule:
    """The lr times `factor` when the monitored metric has not improved by `min_delta` for `patience` epochs."""
    if not 0 < factor < 1:
        raise UsageError(f"scheduler.factor={factor} must be above 0 and below 1, e.g. scheduler.factor=0.3")
    scheduler = ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=min_delta, threshold_mode="abs", min_lr=min_lr
    )
    return Schedule(scheduler, "epoch", metric=True)


def _warmup_steps(name: str, warmup: float, total_steps: int) -> int:
    if total_steps < 1:
        raise UsageError(f"scheduler={name} must know the run's length; set trainer.max_epochs, e.g. to 50")
    if warmup < 0:
        raise UsageError(
            f"scheduler.warmup={warmup} must be 0 or more: a share of all steps (0.05) or a number of steps (100)"
        )
    return int(warmup * total_steps if warmup < 1 else warmup)


def _half_cosine(start: float, end: float, done: float) -> float:
    """From `start` (done <= 0) to `end` (done >= 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
