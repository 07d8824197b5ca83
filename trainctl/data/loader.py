"""Mini-batches from tensors that fit in memory, without a Dataset, a sampler or a collate function.

The order is a pure function of (seed, epoch), a position inside the epoch can be saved and set, and ranks share
the rows without padding. Rows are gathered for many mini-batches at a time and handed out as views of that piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from trainctl.errors import DataError

Batch = tuple[Tensor, Tensor | None]

PIECE_BYTES = 4 * 2**20  # gathered at a time: large enough to hide Python, small enough to stay in the cache


class Rows(Protocol):
    """What a loader needs of x: a tensor, or something that makes tensors of the rows asked for (images in files)."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor) -> Tensor: ...


class InMemoryLoader:
    """Yields `(x, y)` mini-batches, or with `chunked` (default: chunk > 1) lists of at most `chunk` of them.

    x [N, ...], y [N, ...] or None; shuffle=True means training: a new order each epoch, and every rank gets the same
    number of rows (the tail of the order is dropped). shuffle=False means evaluation: each row exactly once over all
    ranks, in order, rank r taking rows r::world_size; all ranks get as many batches, the last one may be empty.
    `device` moves the tensors once, at the start; `pin` puts what is handed out in pinned memory instead; `prefetch`
    gathers one piece ahead in a thread; reshuffle=False keeps the order of epoch 0. DataError when training would see
    no batch at all.
    """

    def __init__(
        self,
        x: Rows,
        y: Tensor | None,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        chunk: int = 1,
        rank: int = 0,
        world_size: int = 1,
        limit_batches: int | None = None,
        chunked: bool | None = None,
        device: torch.device | str | None = None,
        pin: bool = False,
        prefetch: bool = False,
        reshuffle: bool = True,
    ) -> None:
        self.x = x.to(device) if device is not None and isinstance(x, Tensor) else x
        self.y = y if device is None or y is None else y.to(device)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.chunk, self.chunked = chunk, chunk > 1 if chunked is None else chunked
        self.rank, self.world_size, self.pin, self.prefetch = rank, world_size, pin, prefetch
        self.reshuffle = reshuffle
        self.epoch, self.position, self._start = 0, 0, 0
        self.num_rows = rows_of_rank(len(x), rank, world_size, even=shuffle)
        # rank 0 has the most rows: a rank with fewer takes part in what ranks do together with an empty batch
        most = rows_of_rank(len(x), 0, world_size, even=shuffle)
        self.num_batches = count_batches(most, batch_size, drop_last, limit_batches)
        if shuffle and self.num_batches == 0:
            raise DataError(no_batches_message(self.num_rows, batch_size, world_size))
        self.num_batches = max(1, self.num_batches)
        batch_bytes = max(1, batch_size * x.shape[1:].numel() * x.dtype.itemsize)
        self._piece = max(1, PIECE_BYTES // batch_bytes // chunk) * chunk  # mini-batches gathered at a time

    batch_sampler = None  # Lightning looks for one beside the sampler

    @property
    def sampler(self) -> InMemoryLoader:
        """Lightning calls `loader.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; a position that was set for another epoch is forgotten."""
        if epoch != self.epoch:
            self._start = self.position = 0
        self.epoch = epoch

    def set_position(self, position: int) -> None:
        """Begin the next iteration, and only that one, at this mini-batch."""
        if not 0 <= position <= self.num_batches:
            raise DataError(f"position {position} is outside the epoch of {self.num_batches} batches")
        self._start = self.position = position

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of mini-batches handed out in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last mini-batch handed out; a finished epoch continues with the next one."""
        done = state["position"] >= self.num_batches
        self.epoch = state["epoch"] + done
        self.set_position(0 if done else state["position"])

    def __len__(self) -> int:
        return -(-self.num_batches // self.chunk) if self.chunked else self.num_batches

    def __iter__(self) -> Iterator[Any]:
        # a generator: nothing runs before the first `next`, so Lightning may call iter() before set_epoch()
        start, self._start = self._start, 0
        self.position = start
        # len() is the same in a resumed epoch: what was done before comes as empty chunks
        done = len(self) if start == self.num_batches else start // self.chunk
        yield from ([] for _ in range(done if self.chunked else 0))
        for batches in self._pieces(start):
            if not self.chunked:
                for batch in batches:
                    self.position += 1
                    yield batch
                continue
            # pieces begin at multiples of `chunk`; only the first chunk after a resume can be shorter
            first = 0
            while first < len(batches):
                size = min(self.chunk - self.position % self.chunk, len(batches) - first)
                self.position += size
                yield batches[first : first + size]
                first += size

    def _pieces(self, start: int) -> Iterator[list[Batch]]:
        """The epoch from mini-batch `start` on, a piece at a time."""
        order = self.order()
        bounds = [start, *range((start // self._piece + 1) * self._piece, self.num_batches, self._piece)]
        pieces = zip(bounds, [*bounds[1:], self.num_batches], strict=True) if start < self.num_batches else ()
        if not self.prefetch:
            for first, last in pieces:
                yield self._gather(order, first, last)
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = None
            for first, last in pieces:
                future = pool.submit(self._gather, order, first, last)
                if ahead is not None:
                    yield ahead.result()
                ahead = future
            if ahead is not None:
                yield ahead.result()

    def order(self) -> Tensor | None:
        """Row numbers this rank visits in the current epoch [num_rows], on the device of x; None = all, as they are."""
        if self.shuffle:
            epoch = self.epoch if self.reshuffle else 0
            order = epoch_order(len(self.x), self.seed, epoch)[: self.num_rows * self.world_size]
        elif self.world_size == 1:
            return None
        else:
            order = torch.arange(len(self.x))
        return order[self.rank :: self.world_size].contiguous().to(self.x.device)

    def _gather(self, order: Tensor | None, start: int, stop: int) -> list[Batch]:
        """Mini-batches start..stop as views of one freshly gathered piece, so changing them in place harms nobody."""
        first, last = start * self.batch_size, min(stop * self.batch_size, self.num_rows)
        index = None if order is None else order[first:last]

        def take(source: Rows) -> tuple[Tensor, ...]:
            if index is not None:
                piece = source.index_select(0, index)
            elif isinstance(source, Tensor):
                piece = source[first:last].clone()
            else:
                piece = source.index_select(0, torch.arange(first, last))
            parts = torch.split(piece.pin_memory() if self.pin else piece, self.batch_size)
            return parts if len(parts) == stop - start else (*parts, piece[:0])

        xs = take(self.x)
        return list(zip(xs, take(self.y) if self.y is not None else (None,) * len(xs), strict=True))


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """A permutation [rows] that depends on (seed, epoch) only and leaves the global random state alone."""
    # torch's CPU generator keeps 32 bits of a seed; this mixing gives other bits for each near (seed, epoch)
    mixed = (seed * 1_000_003 + epoch * 7919 + 12_345) % 2**32
    return torch.randperm(rows, generator=torch.Generator().manual_seed(mixed))


def rows_of_rank(rows: int, rank: int, world_size: int, even: bool) -> int:
    """How many of `rows` a rank serves: the same number everywhere when `even`, else every row once over all ranks."""
    return rows // world_size if even else len(range(rank, rows, world_size))


def count_batches(rows: int, batch_size: int, drop_last: bool, limit: int | None) -> int:
    """Mini-batches in an epoch of `rows`, at most `limit`."""
    batches = rows // batch_size if drop_last else -(-rows // batch_size)
    return batches if limit is None else min(batches, limit)


def no_batches_message(rows: int, batch_size: int, world_size: int) -> str:
    """The sentence for a training split that gives no step."""
    each = f" for each of {world_size} processes" if world_size > 1 else ""
    if rows == 0:
        return f"the training split has no rows{each}; give it more with `data.split.val` and `data.split.test`"
    return (
        f"{rows} rows{each} make no full batch of {batch_size}; "
        f"set `data.batch_size={rows}` or less, or `data.drop_last=false`"
    )
