"""What can be stacked: said of one member, before anything is built of many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainctl.data.base import Data
from trainctl.stacked import Unstackable
from trainctl.stacked.trainer import Member, StackedTrainer
from trainctl.stacked.vmapped import VmappedNet
from trainctl.tasks.base import Task

# from where on a stack is no faster than its members alone
LARGE = 250_000  # parameters
LARGE_STEP = 8 * 2**20  # bytes of activations in a training step


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
    if isinstance(stack.net, VmappedNet):
        return f"{stack.net.reason}, and vmap is slower"
    needed = step_bytes(stack)
    return f"a step of {needed / 2**20:.0f} MB keeps the processor busy alone" if needed > LARGE_STEP else None


def step_bytes(stack: StackedTrainer) -> int:
    """Bytes that a training step of one member keeps for its backward pass, weights left out."""
    weights = stack.weights_.flat.untyped_storage().data_ptr()
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, _ = next(stack.rows["train"].epoch(0))
    stack.draws.start(0, 0)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kept = stack.net(stack.settings.inputs(x))  # alive, so that no storage is counted under another's address
    return sum(sizes.values()) // len(kept)


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
