"""What can be stacked: said of one member, before anything is built of many."""

from __future__ import annotations

from typing import Any

import torch

from trainctl.data.base import Data
from trainctl.stacked import Unstackable
from trainctl.stacked.trainer import Member, StackedTrainer
from trainctl.stacked.vmapped import VmappedNet
from trainctl.tasks.base import Task

LARGE = 250_000  # parameters from which a stack is no faster than its members alone


def why_not(task: Any, data: Any, config: dict[str, Any]) -> str | None:
    """A short reason why this member cannot be trained in a stack, such as `compile=true`; None when it can.

    task, data: as `build` makes them, the data set up. Whether several fit together, `StackedTrainer` says.
    """
    reason = _config(config)
    if reason is not None:
        return reason
    if not isinstance(task, Task) or not isinstance(data, Data):
        return "the task or the data are not of this package"
    try:
        StackedTrainer([Member(task, data, config["seed"])], torch.device("cpu"), 1)
    except Unstackable as error:
        return str(error)
    return None


def not_faster(task: Task, data: Data, config: dict[str, Any], device: torch.device) -> str | None:
    """A short reason why a stack of members that can be stacked would gain nothing; None when it is worth while.

    Measured (experiments/benchmarks/sweeps/stacked_alone.py): on a CPU a large net keeps a core as busy alone as in a
    stack, and vmapped convolutions and attention take longer than one net after the other.
    """
    if device.type != "cpu":
        return None
    count = sum(p.numel() for p in task.net.parameters())
    if count > LARGE:
        return f"a net of {count} parameters keeps the processor busy alone"
    stack = StackedTrainer([Member(task, data, config["seed"])], device, 1)
    return f"{stack.net.reason}, and vmap is slower" if isinstance(stack.net, VmappedNet) else None


def _config(config: dict[str, Any]) -> str | None:
    trainer = config["trainer"]
    if config.get("compile"):
        return "compile=true"
    if config["optimizer"].get("lr") == "auto":
        return "optimizer.lr=auto"
    if trainer["precision"] not in ("32-true", "64-true", 32, 64):
        return f"trainer.precision={trainer['precision']}"
    if trainer["devices"] not in (1, "auto", "1"):
        return f"trainer.devices={trainer['devices']}"
    for key in ("max_time", "profiler"):
        if trainer.get(key):
            return f"trainer.{key}={trainer[key]}"
    return None
