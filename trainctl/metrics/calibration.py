"""Calibration: do events given probability 0.8 happen 8 times in 10?

Two classes: the probability of the positive class. More: the probability of the predicted class. 15 equal-width bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BINS = 15


def claims(probs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What was claimed and whether it came true: (probability [N], 0 or 1 [N]) from probs [N, C] and y [N]."""
    if probs.shape[1] == 2:
        return probs[:, 1], y
    confidence, label = probs.max(1)
    return confidence, (label == y).long()


def bin_of(claimed: Tensor, num_bins: int = NUM_BINS) -> Tensor:
    """Bin index [N] of each probability; bins are open below and closed above, 0 falls in the first."""
    return (claimed * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)


def bins(probs: Tensor, y: Tensor, num_bins: int = NUM_BINS) -> list[dict[str, float]]:
    """One row per bin that is not empty: low, high, count, mean claimed probability, fraction that came true."""
    claimed, true = claims(probs.double(), y)
    index = bin_of(claimed, num_bins)
    count = torch.bincount(index, minlength=num_bins).tolist()
    claimed_sum = torch.bincount(index, claimed, num_bins).tolist()
    true_sum = torch.bincount(index, true.double(), num_bins).tolist()
    return [
        {
            "low": i / num_bins,
            "high": (i + 1) / num_bins,
            "count": count[i],
            "claimed": claimed_sum[i] / count[i],
            "true": true_sum[i] / count[i],
        }
        for i in range(num_bins)
        if count[i]
    ]
