"""The in-memory loader: order, positions, chunks, sharding and the sentences for data that gives no batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from trainctl.data.loader import InMemoryLoader, epoch_order
from trainctl.errors import DataError


def make(rows: int, batch_size: int = 4, shuffle: bool = True, **options: Any) -> InMemoryLoader:
    x = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    return InMemoryLoader(x, torch.arange(rows), batch_size, shuffle, **options)


def seen(loader: InMemoryLoader) -> list[list[int]]:
    """Row numbers of each mini-batch."""
    batches = itertools.chain.from_iterable(loader) if loader.chunked else loader
    return [y.tolist() for _, y in batches]


def test_an_epoch_gives_each_row_once_and_x_belongs_to_y() -> None:
    loader = make(21)
    batches = list(loader)
    assert [len(x) for x, _ in batches] == [4, 4, 4, 4, 4, 1]
    assert sorted(torch.cat([y for _, y in batches]).tolist()) == list(range(21))
    assert all(torch.equal(x.squeeze(1).long(), y) for x, y in batches)
    assert len(loader) == loader.num_batches == 6


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first, again = make(50, seed=3), make(50, seed=3)
    torch.manual_seed(1)
    epochs = []
    for epoch in range(3):
        first.set_epoch(epoch)
        epochs.append(seen(first))
        torch.rand(7)  # the global random state must not matter
    again.set_epoch(2)
    assert seen(again) == epochs[2]
    assert epochs[0] != epochs[1] != epochs[2]
    assert seen(make(50, seed=4)) != epochs[0]
    assert torch.equal(epoch_order(50, 3, 1)[:4], torch.tensor(epochs[1][0]))


def test_iterating_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    seen(make(30))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_reshuffle_every_epoch_has_the_order_of_epoch_0() -> None:
    loader = make(30, reshuffle=False, limit_batches=2)
    first = seen(loader)
    loader.set_epoch(5)
    assert seen(loader) == first


@pytest.mark.parametrize("chunk", [1, 2, 3, 8, 100])
def test_chunks_hold_the_same_batches(chunk: int) -> None:
    plain, chunked = make(50), make(50, chunk=chunk, chunked=True)
    chunks = list(chunked)
    assert [y.tolist() for part in chunks for _, y in part] == seen(plain)
    assert len(chunked) == len(chunks) == -(-13 // chunk)
    assert all(len(part) == chunk for part in chunks[:-1])
    assert chunked.num_batches == 13


def test_chunk_1_gives_plain_batches_unless_asked_for_lists() -> None:
    assert isinstance(next(iter(make(8))), tuple)
    assert isinstance(next(iter(make(8, chunked=True))), list)
    assert isinstance(next(iter(make(8, chunk=2, chunked=False))), tuple)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("position", [0, 1, 4, 5, 12, 13])
def test_a_position_resumes_the_same_epoch(position: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.data.loader.PIECE_BYTES", 64)  # several pieces an epoch
    loader = make(50, seed=1, chunk=chunk)
    loader.set_epoch(2)
    whole = seen(loader)
    resumed = make(50, seed=1, chunk=chunk)
    resumed.set_epoch(2)
    resumed.set_position(position)
    assert seen(resumed) == whole[position:]
    assert seen(resumed) == whole  # only the first iteration begins there


def test_chunks_keep_their_number_and_borders_after_a_resume() -> None:
    loader = make(50, chunk=3)
    loader.set_position(4)
    assert [len(part) for part in loader] == [0, 2, 3, 3, 1]


def test_the_state_continues_after_the_last_batch_handed_out() -> None:
    reference = make(21, seed=9)
    epochs = []
    for epoch in range(2):
        reference.set_epoch(epoch)
        epochs.append(seen(reference))
    loader = make(21, seed=9)
    batches = iter(loader)
    taken = [next(batches)[1].tolist() for _ in range(4)]
    resumed = make(21, seed=9)
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(0)  # as Lightning does when it starts the epoch it resumes
    assert taken + seen(resumed) == epochs[0]
    finished = make(21, seed=9)
    finished.load_state_dict(resumed.state_dict())
    assert (finished.epoch, finished.position) == (1, 0)
    assert seen(finished) == epochs[1]


def test_another_epoch_forgets_a_position() -> None:
    loader = make(21)
    loader.set_position(3)
    loader.set_epoch(1)
    assert len(seen(loader)) == 6


def test_a_position_outside_the_epoch_is_refused() -> None:
    with pytest.raises(DataError, match="^position 7 is outside the epoch of 6 batches$"):
        make(21).set_position(7)


def test_lightning_sets_the_epoch_after_calling_iter() -> None:
    late = make(21, seed=2)
    batches = iter(late)
    late.sampler.set_epoch(1)
    direct = make(21, seed=2)
    direct.set_epoch(1)
    assert [y.tolist() for _, y in batches] == seen(direct)


@pytest.mark.parametrize(("rows", "world_size"), [(21, 2), (17, 2), (1, 2), (10, 3), (9, 2), (13, 3)])
def test_evaluation_gives_each_row_once_over_all_ranks(rows: int, world_size: int) -> None:
    ranks = [make(rows, shuffle=False, rank=rank, world_size=world_size) for rank in range(world_size)]
    served = [list(itertools.chain.from_iterable(seen(loader))) for loader in ranks]
    assert served == [list(range(rank, rows, world_size)) for rank in range(world_size)]
    # nets with buffers meet in every batch: a rank that has one batch fewer gets an empty one
    assert [len(loader) for loader in ranks] == [max(1, -(-len(served[0]) // 4))] * world_size
    assert [len(list(loader)) for loader in ranks] == [len(ranks[0])] * world_size


def test_a_rank_without_rows_gets_one_empty_batch_to_keep_step_with_the_others() -> None:
    assert [len(x) for x, _ in make(1, shuffle=False, rank=1, world_size=2)] == [0]


def test_training_ranks_share_the_order_evenly_and_drop_its_tail() -> None:
    order = list(itertools.chain.from_iterable(seen(make(23, seed=5))))
    ranks = [make(23, seed=5, rank=rank, world_size=2) for rank in range(2)]
    served = [seen(loader) for loader in ranks]
    assert [len(batches) for batches in served] == [3, 3]
    assert [sorted(part) for part in zip(*(itertools.chain.from_iterable(s) for s in served), strict=True)] == [
        sorted(pair) for pair in zip(order[0:22:2], order[1:22:2], strict=True)
    ]


def test_evaluation_is_in_row_order_without_target_and_with_a_limit() -> None:
    loader = InMemoryLoader(torch.arange(10), None, batch_size=3, shuffle=False, limit_batches=2)
    assert [(x.tolist(), y) for x, y in loader] == [([0, 1, 2], None), ([3, 4, 5], None)]


def test_drop_last_and_limit_bound_an_epoch() -> None:
    assert len(seen(make(21, drop_last=True))) == 5
    assert len(seen(make(21, limit_batches=2))) == 2
    assert len(seen(make(21, limit_batches=200))) == 6


def test_a_batch_changed_in_place_does_not_reach_the_data() -> None:
    for shuffle in (True, False):
        loader = make(8, shuffle=shuffle)
        for x, _ in loader:
            x.zero_()
        assert loader.x.sum() == sum(range(8))  # type: ignore[attr-defined]


def test_prefetching_gives_the_same_batches_and_raises_what_gathering_raises() -> None:
    class Files:
        shape, dtype, device = torch.Size((20, 2**20)), torch.float32, torch.device("cpu")

        def __len__(self) -> int:
            return 20

        def index_select(self, dim: int, index: Tensor) -> Tensor:
            if 13 in index.tolist():
                raise DataError("row 13 is broken")
            return index.float()

    loader = InMemoryLoader(Files(), None, 2, shuffle=False, prefetch=True)
    got = []
    with pytest.raises(DataError, match="row 13 is broken"):
        for x, _ in loader:
            got.append(x.tolist())
    assert got == [[float(i), float(i + 1)] for i in range(0, 12, 2)]
    assert seen(make(50, seed=1, prefetch=True)) == seen(make(50, seed=1))


def test_a_device_takes_x_and_y() -> None:
    loader = make(8, device="meta", shuffle=False)
    assert all(x.device.type == y.device.type == "meta" for x, y in loader)


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (
            21,
            {"batch_size": 64, "drop_last": True},
            "21 rows make no full batch of 64; set `data.batch_size=21` or less, or `data.drop_last=false`",
        ),
        (
            41,
            {"batch_size": 64, "drop_last": True, "world_size": 2},
            "20 rows for each of 2 processes make no full batch of 64; set `data.batch_size=20` or less, "
            "or `data.drop_last=false`",
        ),
        (
            1,
            {"world_size": 2},
            "the training split has no rows for each of 2 processes; "
            "give it more with `data.split.val` and `data.split.test`",
        ),
    ],
)
def test_training_without_a_batch_is_an_error(rows: int, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        make(rows, **options)
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("position", range(8))
def test_a_resumed_epoch_has_as_many_chunks_as_a_whole_one(position):
    x = torch.arange(14).float().unsqueeze(1)
    loader = InMemoryLoader(x, torch.arange(14), 2, shuffle=True, chunk=4)
    loader.set_position(position)
    chunks = list(loader)
    assert (len(chunks), sum(map(len, chunks))) == (len(loader), 7 - position) == (2, 7 - position)
