"""95 % percentile intervals from resampled rows: the same scores, called with counts of how often each row was drawn.

Deterministic from the seed; a block of resamples is scored at a time, so memory stays small.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Interval = tuple[float, float]

_BLOCK_CELLS = 1 << 20  # resamples x rows scored at once: 4 MB of counts stay in the cache
_MAX_DRAWS = 64_000_000  # rows drawn in total: a large test set needs fewer resamples for the same sharpness


def num_resamples(rows: int, asked: int = 1000) -> int:
    """How many resamples are drawn: `asked`, fewer (at least 100) for more than 64 million drawn rows."""
    return min(asked, max(100, _MAX_DRAWS // max(rows, 1)))


def intervals(
    scores: Callable[[Tensor], dict[str, Tensor]], rows: int, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval | None]:
    """{metric: (low, high)} of `scores(weights [R, rows])`.

    None when there are fewer than two rows, or when the metric is undefined in more than 5 % of the resamples.
    """
    if rows < 2:
        return {name: None for name in scores(torch.ones(1, rows, dtype=torch.float64))} if rows else {}
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK_CELLS // rows)
    resamples = num_resamples(rows, resamples)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, resamples, block):
        for name, values in scores(_draw(min(block, resamples - start), rows, generator)).items():
            parts.setdefault(name, []).append(values.double())
    return {name: _percentiles(torch.cat(values), level) for name, values in parts.items()}


def _draw(resamples: int, rows: int, generator: torch.Generator) -> Tensor:
    """Counts [resamples, rows]: each line sums to `rows`."""
    drawn = torch.randint(rows, (resamples, rows), generator=generator)
    drawn += torch.arange(resamples)[:, None] * rows
    counts = torch.bincount(drawn.flatten(), minlength=resamples * rows).view(resamples, rows)
    return counts.float() if rows < 2**24 else counts.double()  # float32 sums of counts are exact up to 2**24


def _percentiles(values: Tensor, level: float) -> Interval | None:
    defined = values[~values.isnan()]
    if len(defined) < 0.95 * len(values):
        return None
    tail = (1 - level) / 2
    low, high = torch.quantile(defined, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
