"""Show a net its first rows before training: lazy layers get their shapes, a net that cannot fit is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainctl.errors import UsageError
from trainctl.tasks.base import Task

SHAPE_WORDS = ("shape", "size", "channels", "dimension")


def show(task: Task, x: Tensor, config: dict[str, Any]) -> None:
    """One forward pass of `x` [2, ...] without gradients; weights that exist and the random state stay as they are.

    UsageError when the net cannot take such rows, or gives another shape than the target needs.
    """
    name, kind = config["model"].get("_target_"), task.spec.kind
    shape = list(task.inputs(x).shape)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(config["seed"])
        try:
            output = task.eval()(x)
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            if not any(word in reason for word in SHAPE_WORDS):  # a mistake inside the net, which needs its traceback
                raise
            raise UsageError(
                f"`{name}` cannot take this {kind}, x {shape}: {reason}; let it take `spec` first to fit any data"
            ) from error
        finally:
            task.train()
    needed = [len(x), task.spec.num_outputs]
    if not isinstance(output, Tensor) or list(output.shape) != needed:
        given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(
            f"`{name}` gives {given} for {len(x)} rows, but `{task.spec.target_name}` needs {needed}; "
            "let it take `spec` first and end in `spec.num_outputs`"
        )
