"""An exponential moving average of a net's weights, evaluated and saved in place of the last ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of the floating-point parameters with `decay` per optimizer step (Polyak & Juditsky 1992).

    The decay is warmed up as min(decay, (1 + n) / (10 + n)), so short runs are not held near their start.
    Buffers (batch-norm statistics) are taken from the net as they are.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.swapped = False
        self._live = [p for p in net.parameters() if p.is_floating_point()]
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the net's weights."""
        self.num_updates += 1
        weight = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], weight)

    def swap_in(self) -> None:
        """Put the average into the net; the live weights are kept until `swap_out`."""
        if not self.swapped:
            self._swap()

    def swap_out(self) -> None:
        """Put the live weights back; nothing happens when they are in place."""
        if self.swapped:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        self.swapped = not self.swapped
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)

    def to(self, device: torch.device) -> None:
        """Follow the net to its device."""
        self._average = [a.to(device) for a in self._average]

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """Built-ins and tensors only."""
        return {"num_updates": self.num_updates, "average": [a.clone() for a in self._average]}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """Inverse of `state_dict`."""
        saved, updates = state["average"], state["num_updates"]
        assert isinstance(saved, list) and isinstance(updates, int)
        self.num_updates = updates
        for average, value in zip(self._average, saved, strict=True):
            average.copy_(value)
