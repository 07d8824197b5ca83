"""What ranks tell each other: rows that they evaluated apart, in the order of the file, and what rank 0 chose."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler


def ranks() -> int:
    """How many processes share this run; 1 before they have met."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def chosen_by_first(value: float, device: torch.device | str) -> float:
    """Rank 0's value, on every rank: what is measured differs from one rank to the next."""
    if ranks() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(told, src=0)
    return float(told)


def gather_rows(mine: Tensor) -> Tensor:
    """All ranks' rows in file order, on every rank; rank r of w holds rows r, r + w, r + 2w, ...

    Ranks may hold different numbers of rows (also none); nothing is padded into the result, so a metric of
    the result is the metric that one process would give.
    """
    world_size = ranks()
    if world_size == 1:
        return mine
    count = torch.tensor([len(mine)], device=mine.device)
    counts = [torch.zeros_like(count) for _ in range(world_size)]
    dist.all_gather(counts, count)
    sizes = [int(c) for c in counts]
    longest = max(sizes)
    padded = mine.new_zeros((longest, *mine.shape[1:]))
    padded[: len(mine)] = mine
    parts = [torch.zeros_like(padded) for _ in range(world_size)]
    dist.all_gather(parts, padded)
    whole = mine.new_zeros((sum(sizes), *mine.shape[1:]))
    for rank, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        whole[rank::world_size] = part[:size]
    return whole


def rows_unpadded(trainer: Any) -> int | None:
    """Rows of the evaluated set when Lightning gave a foreign loader its sampler, which repeats some; else None."""
    loader = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    sampler = getattr(loader, "sampler", None)
    return len(sampler.dataset) if isinstance(sampler, DistributedSampler) else None  # type: ignore[arg-type]
