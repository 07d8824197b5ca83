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
        self.loaders = [loaders[id(data)] for data in datas]
        first = self.loaders[0]
        if not all(isinstance(loader.x, Tensor) for loader in self.loaders):
            raise Unstackable("the images are read from files as they are needed")
        for name in ("num_batches", "batch_size", "num_rows", "reshuffle"):
            if len({getattr(loader, name) for loader in self.loaders}) > 1:
                raise Unstackable(f"the members' {split} splits differ in {name}")
        if len({loader.x.shape for loader in self.loaders}) > 1 or any(loader.y is None for loader in self.loaders):
            raise Unstackable(f"the members' {split} splits differ in shape")
        self.num_batches, self.batch_size = first.num_batches, first.batch_size
        self.num_rows = min(first.num_rows, first.num_batches * first.batch_size)
        self.reshuffle = first.reshuffle
        self._group()

    def _group(self) -> None:
        """One source for each different content or order, and which one each member reads."""
        keys = [
            (loader.x.data_ptr(), loader.y.data_ptr(), seed if self.train else 0)  # type: ignore[union-attr]
            for loader, seed in zip(self.loaders, self.seeds, strict=True)
        ]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        self.which = [places[key] for key in keys]
        self.sources = [self.which.index(place) for place in range(len(places))]

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch, each in its member's order."""
        orders: list[Tensor | None] = [
            epoch_order(len(self.loaders[k].x), self.seeds[k], epoch if self.reshuffle else 0) for k in self.sources
        ]
        sample = self.loaders[0].x[:1]  # type: ignore[index]
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
        y = self._stacked([loader.y[: self.num_rows] for loader in self._distinct()])  # type: ignore[index]
        return y[0] if len(self.sources) == 1 else y

    def keep(self, positions: Sequence[int]) -> None:
        """Drop the other members."""
        self.loaders = [self.loaders[k] for k in positions]
        self.seeds = [self.seeds[k] for k in positions]
        self._group()

    def _distinct(self) -> list[InMemoryLoader]:
        return [self.loaders[k] for k in self.sources]

    def _take(self, orders: Sequence[Tensor | None], start: int, stop: int) -> tuple[Tensor, Tensor]:
        def rows(source: Any, order: Tensor | None) -> Tensor:
            piece: Tensor = source[start:stop] if order is None else source.index_select(0, order[start:stop])
            piece = piece.to(self.device)
            return piece.to(self.dtype) if piece.is_floating_point() else piece

        pairs = [(rows(l.x, o), rows(l.y, o)) for l, o in zip(self._distinct(), orders, strict=True)]  # noqa: E741
        return self._stacked([x for x, _ in pairs]), self._stacked([y for _, y in pairs])

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0][None]
        return torch.stack([parts[place] for place in self.which])
