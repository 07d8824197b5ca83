"""Batches for K members: one x for all who read the same rows in the same order, else one for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainctl.data.base import Data
from trainctl.data.loader import PIECE_BYTES, InMemoryLoader, epoch_order
from trainctl.stacked import Unstackable

EVAL_ROWS = 512  # evaluated at a time: the activations of all members should stay in the cache


class Rows:
    """The rows of one split of each member; batches are (x [K or 1, B, ...], y [K or 1, B])."""

    def __init__(self, datas: Sequence[Data], seeds: Sequence[int], split: str, dtype: torch.dtype,
                 device: torch.device) -> None:  # fmt: skip
        self.seeds, self.train, self.dtype, self.device = list(seeds), split == "train", dtype, device
        loaders: dict[int, InMemoryLoader] = {}
        for data in datas:
            if id(data) not in loaders:
                loaders[id(data)] = data.train_dataloader() if self.train else data.loader(split)
        first = loaders[id(datas[0])]
        if not all(isinstance(loader.x, Tensor) for loader in loaders.values()):
            raise Unstackable("the images are read from files as they are needed")
        for name in ("num_batches", "batch_size", "num_rows", "reshuffle"):
            if len({getattr(loader, name) for loader in loaders.values()}) > 1:
                raise Unstackable(f"the members' {split} splits differ in {name}")
        if len({loader.x.shape for loader in loaders.values()}) > 1:
            raise Unstackable(f"the members' {split} splits differ in shape")
        found = {key: self._content(loader) for key, loader in loaders.items()}
        self.content = [found[id(data)] for data in datas]
        self.num_batches, self.batch_size = first.num_batches, first.batch_size
        self.num_rows = min(first.num_rows, first.num_batches * first.batch_size)
        self.reshuffle = first.reshuffle
        self._group()

    def _content(self, loader: Any) -> tuple[Tensor, Tensor]:
        """x and y where the nets are."""
        if loader.y is None:
            raise Unstackable("the rows have no target")
        return loader.x.to(self.device), loader.y.to(self.device)

    def _group(self) -> None:
        """One source for each different content or order, and which one each member reads."""
        keys = [
            (x.data_ptr(), y.data_ptr(), seed if self.train else 0)
            for (x, y), seed in zip(self.content, self.seeds, strict=True)
        ]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        self.which = [places[key] for key in keys]
        self.sources = [self.which.index(place) for place in range(len(places))]

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch, each in its member's order."""
        sample = self.content[0][0][:1]
        orders: list[Tensor | None] = [
            epoch_order(len(self.content[k][0]), self.seeds[k], epoch if self.reshuffle else 0).to(self.device)
            for k in self.sources
        ]
        batch_bytes = max(1, self.batch_size * sample.numel() * sample.element_size() * len(self.sources))
        piece = max(1, PIECE_BYTES // batch_bytes) * self.batch_size
        for start in range(0, self.num_rows, piece):
            x, y = self._take(orders, start, min(start + piece, self.num_rows))
            yield from zip(torch.split(x, self.batch_size, 1), torch.split(y, self.batch_size, 1), strict=True)

    def sample(self) -> Tensor:
        """The first two rows of x, [K or 1, 2, ...]."""
        return self._take([None] * len(self.sources), 0, min(2, self.num_rows))[0]

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in file order, EVAL_ROWS at a time."""
        for start in range(0, self.num_rows, EVAL_ROWS):
            yield self._take([None] * len(self.sources), start, min(start + EVAL_ROWS, self.num_rows))

    def targets(self) -> Tensor:
        """y [N] when all members have the same, else [K, N]."""
        y = self._stacked([self.content[k][1][: self.num_rows] for k in self.sources]).cpu()
        return y[0] if len(self.sources) == 1 else y

    def keep(self, positions: Sequence[int]) -> None:
        """Drop the other members."""
        self.content = [self.content[k] for k in positions]
        self.seeds = [self.seeds[k] for k in positions]
        self._group()

    def _take(self, orders: Sequence[Tensor | None], start: int, stop: int) -> tuple[Tensor, Tensor]:
        def rows(source: Tensor, order: Tensor | None) -> Tensor:
            piece = source[start:stop] if order is None else source.index_select(0, order[start:stop])
            return piece.to(self.dtype) if piece.is_floating_point() else piece

        pairs = [tuple(rows(part, order) for part in self.content[k])
                 for k, order in zip(self.sources, orders, strict=True)]  # fmt: skip
        return self._stacked([x for x, _ in pairs]), self._stacked([y for _, y in pairs])

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0][None]
        return torch.stack([parts[place] for place in self.which])
