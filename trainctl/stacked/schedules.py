"""The learning rate of each member, step by step, from its own scheduler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainctl.schedulers import Schedule, as_schedule
from trainctl.tasks.training import Training


class Rates:
    """Schedulers over the members' own optimizers, which hold the settings but never step."""

    def __init__(
        self, options: Sequence[Training], optimizers: Sequence[Optimizer], num_batches: int, max_epochs: int
    ) -> None:
        self.optimizers = list(optimizers)
        self.schedules = [
            _schedule(o, optimizer, num_batches, max_epochs) for o, optimizer in zip(options, optimizers, strict=True)
        ]
        self.steps = 0
        self.now = self._read()

    def step(self) -> bool:
        """After an optimizer step; True when a setting may have changed."""
        self.steps += 1
        stepped = [s for s in self.schedules if s is not None and s.interval == "step"]
        if not stepped:
            return False
        if len(stepped) == len(self.schedules) and all(_is_function(s) for s in stepped):
            self.now = [s.scheduler.base_lrs[0] * s.scheduler.lr_lambdas[0](self.steps) for s in stepped]  # type: ignore[attr-defined]
            return True
        for schedule in stepped:
            schedule.scheduler.step()
        self.now = self._read()
        return True

    def end_epoch(self, monitored: Sequence[float | None], modes: Sequence[str]) -> None:
        """After an epoch, with the monitored figure of each member."""
        for schedule, value, mode in zip(self.schedules, monitored, modes, strict=True):
            if schedule is None or schedule.interval != "epoch":
                continue
            if schedule.metric:
                figure = math.nan if value is None else value
                schedule.scheduler.step(figure if mode == "min" else -figure)  # type: ignore[arg-type]
            else:
                schedule.scheduler.step()
        if any(s is not None and s.interval == "epoch" for s in self.schedules):
            self.now = self._read()

    def keep(self, positions: Sequence[int]) -> None:
        """Drop the other members."""
        self.optimizers = [self.optimizers[k] for k in positions]
        self.schedules = [self.schedules[k] for k in positions]
        self.now = [self.now[k] for k in positions]

    def _read(self) -> list[float]:
        return [float(o.param_groups[0]["lr"]) for o in self.optimizers]


def _schedule(options: Training, optimizer: Any, num_batches: int, max_epochs: int) -> Schedule | None:
    if options.scheduler is None:
        return None
    optimizer._opt_called = True  # the optimizer that steps is the stacked one, which torch would warn about
    steps = math.ceil(num_batches / options.accumulate_grad_batches)
    return as_schedule(options.scheduler(optimizer, total_steps=steps * max_epochs, steps_per_epoch=steps))


def _is_function(schedule: Schedule) -> bool:
    """Whether the rate is a function of the step number, which needs no torch scheduler to follow."""
    return type(schedule.scheduler) is LambdaLR
