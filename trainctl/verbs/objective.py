"""What a compression may cost: one metric on val, larger is better after `sign`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainctl import metrics
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError, did_you_mean
from trainctl.tasks.base import Task


@dataclass(frozen=True)
class Objective:
    """`name` without its stage; `sign` is -1 where less is better."""

    name: str
    sign: int

    @classmethod
    def of(cls, wanted: str, spec: DataSpec) -> Objective:
        """`auto`, or a metric of the task such as `auroc` or `val/auroc`; UsageError for any other."""
        name = wanted.removeprefix("val/")
        if wanted == "auto":
            name = "accuracy" if spec.target == "class" else "r2"
        have = metrics.names.produced(spec.target)
        if name not in have:
            names = ", ".join(f"val/{one}" for one in have)
            raise UsageError(f"`objective={wanted}` is not produced on val; have: {names}{did_you_mean(name, have)}")
        return cls(name, -1 if metrics.names.mode(name) == "min" else 1)

    def measure(self, task: Task, output: Tensor, y: Tensor) -> float:
        """The metric of raw net outputs [N, num_outputs]; NaN where it is undefined."""
        if self.name == "loss":
            return task.loss(output, y).item()
        value = metrics.measure(task.predict_outputs(output), y, task.spec, only=[self.name])[self.name]
        return float("nan") if value is None else value

    def drop(self, before: float, after: float) -> float:
        """By how much `after` is worse."""
        return self.sign * (before - after)


@torch.inference_mode()
def net_outputs(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The outputs [N, num_outputs] and targets [N] of batches whose x is what the net takes."""
    net.eval()
    pairs = [(net(x).float(), y) for x, y in batches]
    return torch.cat([output for output, _ in pairs]), torch.cat([y for _, y in pairs])
