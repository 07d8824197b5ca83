"""Dropout masks of a stack are those that each member draws alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainctl.stacked import Unstackable
from trainctl.stacked.draws import Draws
from trainctl.tasks.training import batch_seed

CPU = torch.device("cpu")
SHAPES = ((7, 5), (7, 3))
CASES = {
    "same": ([0, 0, 0], [[0.3] * 3, [0.3] * 3]),
    "rates": ([0, 0, 0], [[0.1, 0.5, 0.9], [0.2, 0.4, 0.6]]),
    "seeds": ([0, 1, 2], [[0.3] * 3, [0.1, 0.2, 0.3]]),
    "mixed": ([4, 1, 4, 1, 4], [[0.3, 0.3, 0.2, 0.1, 0.0], [0.1, 0.0, 0.3, 0.5, 0.5]]),
    "none": ([0, 0], [[0.0, 0.4], [0.0, 0.0]]),
}


def alone(seed: int, rates: list[float], epoch: int, batch: int) -> list[Tensor]:
    torch.manual_seed(batch_seed(seed, epoch, batch))
    return [F.dropout(torch.ones(shape), p) for shape, p in zip(SHAPES, rates, strict=True)]


@pytest.mark.parametrize("uniform", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("case", CASES)
def test_each_member_drops_what_it_drops_alone(case: str, uniform: bool) -> None:
    seeds, rates = CASES[case]
    draws = Draws(seeds, CPU)
    draws.uniform = draws.uniform and uniform
    numbers = [draws.layer([nn.Dropout(p) for p in layer]) for layer in rates]
    for epoch, batch in ((0, 0), (0, 1), (3, 2)):
        draws.start(epoch, batch)
        factors = [draws.factors(n, s, torch.float32) for n, s in zip(numbers, SHAPES, strict=True) if draws.active(n)]
        for k, seed in enumerate(seeds):
            wanted = alone(seed, [layer[k] for layer in rates], epoch, batch)
            for found, mask in zip(factors, wanted, strict=False):
                assert torch.equal(found[k if len(found) > 1 else 0], mask)


def test_members_that_are_kept_go_on_drawing_as_before() -> None:
    draws = Draws([1, 2, 1], CPU)
    number = draws.layer([nn.Dropout(p) for p in (0.1, 0.2, 0.3)])
    draws.keep([2, 1])
    draws.start(1, 1)
    found = draws.factors(number, (4, 4), torch.float32)
    for k, (seed, p) in enumerate(((1, 0.3), (2, 0.2))):
        torch.manual_seed(batch_seed(seed, 1, 1))
        assert torch.equal(found[k], F.dropout(torch.ones(4, 4), p))


def test_a_dropout_of_everything_is_refused() -> None:
    with pytest.raises(Unstackable, match="^a dropout of 1$"):
        Draws([0], CPU).layer([nn.Dropout(1.0)])
