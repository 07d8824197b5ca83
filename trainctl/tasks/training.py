"""How a task is optimised, and where its training stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, Tensor], Batch]


@dataclass(frozen=True)
class Training:
    """How a task is optimised; what it optimises is the task's own."""

    optimizer: Callable[[nn.Module], Optimizer]
    scheduler: Callable[..., Any] | None = None
    gradient_clip_val: float | None = None
    accumulate_grad_batches: int = 1
    ema: float | None = None
    seed: int = 0


@dataclass
class Progress:
    """Where training stands; saved in every checkpoint, so a resumed epoch ends with the figures of a whole one."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    loss_sum: float | Tensor = 0.0
    lr: float | None = None  # of the last optimizer step
    stopped: bool = False


def batch_seed(seed: int, epoch: int, batch: int, rank: int = 0) -> int:
    """What seeds the random draws of a batch: a function of its place alone, which makes resuming exact."""
    return (((seed * 1_000_003 + epoch) * 1_000_003 + batch) * 1_009 + rank) % 2**63


def num_batches(loader: Any) -> int:
    """Mini-batches per epoch of our loader (which counts chunks in `len`) or of any other."""
    return int(loader.num_batches) if hasattr(loader, "num_batches") else len(loader)


def is_single(batch: Any) -> bool:
    """Whether this is one `(x, y)` of an ordinary DataLoader, not a chunk of several."""
    return len(batch) > 0 and isinstance(batch[0], Tensor)
