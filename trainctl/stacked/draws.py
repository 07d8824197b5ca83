"""Dropout masks of a stack: each member drops what it would drop alone.

A task seeds torch's generator for every batch, and dropout layers draw from it in the order of the forward pass.
Members with the same seed and the same active layers draw the same numbers, so one drawing serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainctl.stacked import Unstackable
from trainctl.tasks.training import batch_seed


class Draws:
    """The random numbers of the batch that is in progress; `seeds` are the members', K of them."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.seeds, self.device = list(seeds), device
        self.rates: list[list[float]] = []  # of each dropout layer, of each member
        self._streams: list[tuple[int, list[int], torch.Generator]] | None = None
        self.uniform = draws_are_thresholds()

    def layer(self, modules: Sequence[nn.Dropout]) -> int:
        """Register a dropout layer of all members; returns its number."""
        rates = [float(m.p) for m in modules]
        if any(p >= 1 for p in rates):
            raise Unstackable("a dropout of 1")
        self.rates.append(rates)
        self._streams = None
        return len(self.rates) - 1

    def active(self, layer: int) -> bool:
        """Whether the layer drops anything in any member."""
        return any(self.rates[layer])

    def start(self, epoch: int, batch: int) -> None:
        """Begin a batch: every generator is seeded as the task seeds torch's."""
        if not any(map(any, self.rates)):
            return
        if self._streams is None:
            self._streams = self._grouped()
        for seed, _, generator in self._streams:
            generator.manual_seed(batch_seed(seed, epoch, batch))

    def factors(self, layer: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """What to multiply activations [K, *shape] by: [K, *shape], or [1, *shape] when all drop the same."""
        assert self._streams is not None
        rates = self.rates[layer]
        drawing = [(members, generator) for _, members, generator in self._streams if rates[members[0]]]
        if len(drawing[0][0]) == len(rates) and len(set(rates)) == 1:
            mask = torch.empty((1, *shape), dtype=dtype)
            self._fill(mask, [0], rates, drawing[0][1])
            return mask.to(self.device)
        mask = torch.ones((len(rates), *shape), dtype=dtype)
        for members, generator in drawing:
            self._fill(mask, members, rates, generator)
        return mask.to(self.device)

    def _fill(self, mask: Tensor, members: list[int], rates: list[float], generator: torch.Generator) -> None:
        """The factors of members that draw from one generator."""
        if not self.uniform:
            before = generator.get_state()
            for k in members:
                generator.set_state(before)
                mask[k].bernoulli_(1 - rates[k], generator=generator).div_(1 - rates[k])
            return
        drawn = torch.rand(mask.shape[1:], dtype=torch.float64, generator=generator)
        if len(members) == 1:
            (k,) = members
            torch.lt(drawn, 1 - rates[k], out=mask[k]).div_(1 - rates[k])
            return
        kept = torch.tensor([1 - rates[k] for k in members], dtype=torch.float64).view(-1, *[1] * drawn.ndim)
        if len(members) == len(mask):
            torch.lt(drawn, kept, out=mask).div_(kept.to(mask.dtype))
        else:
            mask[members] = (drawn < kept).to(mask.dtype).div_(kept.to(mask.dtype))

    def _grouped(self) -> list[tuple[int, list[int], torch.Generator]]:
        """Members that draw the same numbers: one generator each."""
        streams: dict[tuple[int, tuple[bool, ...]], list[int]] = {}
        for k, seed in enumerate(self.seeds):
            streams.setdefault((seed, tuple(bool(rates[k]) for rates in self.rates)), []).append(k)
        return [(seed, members, torch.Generator()) for (seed, _), members in streams.items()]

    def keep(self, positions: Sequence[int]) -> None:
        """Drop the other members."""
        self.seeds = [self.seeds[k] for k in positions]
        self.rates = [[rates[k] for k in positions] for rates in self.rates]
        self._streams = None


def draws_are_thresholds() -> bool:
    """Whether `bernoulli_(q)` is `uniform < q` here; MKL on Intel has a generator of its own for it."""
    one, two = (torch.Generator().manual_seed(1) for _ in range(2))
    drawn = torch.empty(64).bernoulli_(0.7, generator=one)
    return torch.equal(drawn.bool(), torch.rand(64, dtype=torch.float64, generator=two) < 0.7)
