"""Rows that ranks evaluated apart, put together again in the order of the file."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(mine: Tensor) -> Tensor:
    """All ranks' rows in file order, on every rank; rank r of w holds rows r, r + w, r + 2w, ...

    Ranks may hold different numbers of rows (also none); nothing is padded into the result, so a metric of
    the result is the metric that one process would give.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    world_size = dist.get_world_size()
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
