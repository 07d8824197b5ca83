"""Regression metrics of whole tensors, weighted so that the bootstrap and the point estimate are one piece of code.

Errors are prediction minus target, in the target's unit. Undefined metrics are None: R² of a constant target, MAPE when
a target is zero.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from trainctl.errors import DivergedError
from trainctl.metrics import names


def regression(
    pred: Tensor, y: Tensor, full: bool = True, only: Collection[str] | None = None
) -> dict[str, float | None]:
    """Metrics of pred [N] against y [N]; None where undefined. `only` names those wanted, else all or the quick ones.

    DivergedError when a prediction is not finite.
    """
    wanted = only if only is not None else names.NUMBER if full else names.QUICK_NUMBER
    if not len(y):
        return dict.fromkeys(wanted)
    values = NumberScores(pred.cpu(), y.cpu(), wanted)(torch.ones(1, len(y), dtype=torch.float64))
    return {name: None if (value := values[name].item()) != value else value for name in wanted}


def warnings(y: Tensor, metrics: dict[str, float | None]) -> list[str]:
    """A sentence for each reason why a metric is null."""
    if not len(y):
        return [f"there are no rows; {', '.join(metrics)} written as null"]
    sentences = []
    if "r2" in metrics and metrics["r2"] is None:
        reason = "there is 1 row" if len(y) == 1 else "target is constant"
        sentences.append(f"{reason}; R² written as null")
    if "mape" in metrics and metrics["mape"] is None:
        sentences.append(f"target is 0 in {int((y == 0).sum())} of {len(y)} rows; MAPE written as null")
    return sentences


class NumberScores:
    """Callable: weights [R, N] -> {metric: values [R]}, NaN where undefined; `wanted` bounds the work."""

    def __init__(self, pred: Tensor, y: Tensor, wanted: Collection[str]) -> None:
        pred, y = pred.reshape(-1).double(), y.reshape(-1).double()
        bad = int((~pred.isfinite()).sum())
        if bad:
            raise DivergedError(f"the predictions of {bad} of {len(y)} rows are not finite; lower `optimizer.lr`")
        self.wanted = wanted
        self.constant = bool((y == y[0]).all())
        error = pred - y
        self.quantiles = [name for name in wanted if name in names.QUANTILES]
        self.order: Tensor | None = None  # what weights must follow, when they are of certain rows
        if self.quantiles:
            error, self.order = error.sort(stable=True)
            y = y[self.order]
        centred = y - y.mean()
        relative = (error / y).abs() if "mape" in wanted and not bool((y == 0).any()) else torch.full_like(y, torch.nan)
        self.error = error
        self.columns = torch.stack([error.square(), error.abs(), relative, centred, centred.square()], 1)

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        total = weights.sum(1, keepdim=True).double()
        sums = (weights @ self.columns.to(weights.dtype)).double()
        mse, mae, mape, centre, square = (sums / total).unbind(1)
        spread = square - centre.square()
        defined = (spread > 1e-12 * square) & (not self.constant)
        found = {"mse": mse, "rmse": _root(mse), "mae": mae, "mape": mape}
        found["r2"] = torch.where(defined, 1 - mse / spread, torch.nan)
        if self.quantiles:
            found |= self._quantiles(weights, total)
        return {name: found[name] for name in self.wanted}

    def _quantiles(self, weights: Tensor, total: Tensor) -> dict[str, Tensor]:
        """Linear interpolation between order statistics, as numpy does; weights are whole counts."""
        at = (total - 1) * torch.tensor([names.QUANTILES[name] for name in self.quantiles], dtype=torch.float64)
        low = at.floor()
        seen = weights.cumsum(1)
        ranks = torch.cat([low, torch.minimum(low + 1, total - 1)], 1).to(seen.dtype)
        below, above = self.error[torch.searchsorted(seen, ranks, right=True)].chunk(2, 1)
        values = below + (at - low) * (above - below)
        return dict(zip(self.quantiles, values.unbind(1), strict=True))


def _root(values: Tensor) -> Tensor:
    """The square root to the last bit: torch's own differs by processor."""
    return torch.from_numpy(np.sqrt(values.cpu().numpy())).to(values.device)
