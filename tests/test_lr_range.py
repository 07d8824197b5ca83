"""The range test behind optimizer.lr=auto, and the choice of a thread count: both work on a copy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainctl import lr_range, threads
from trainctl.data.loader import InMemoryLoader
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.classification import Classification
from trainctl.tasks.regression import Regression
from trainctl.tasks.training import Training

SPEC = DataSpec("table", "class", classes=("a", "b"), numeric=("p", "q"))


def sgd(net, lr=None):
    return torch.optim.SGD(net.parameters(), lr=lr or 0.1)


def task() -> Classification:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    return Classification(net, SPEC, Training(optimizer=sgd))


def loader(chunk: int) -> InMemoryLoader:
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    return InMemoryLoader(x, y, 16, shuffle=True, chunk=chunk)


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_rate_lies_before_the_steepest_fall(chunk):
    net = task()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = lr_range.find(net, loader(chunk), sgd, seed=3)
    assert found.rates[0] == pytest.approx(1e-6) and found.rates == sorted(found.rates)
    assert found.lr == pytest.approx(found.rates[found.rates.index(found.lr * 3)] / 3)
    assert 1e-3 < found.lr < 1 and found.losses[-1] < found.losses[0]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert found == lr_range.find(net, loader(chunk), sgd, seed=3)


def test_it_ends_when_the_loss_has_blown_up():
    x = 30 * torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    net = Regression(nn.Linear(2, 1), DataSpec("table", "number", numeric=("p", "q")), Training(optimizer=sgd))
    found = lr_range.find(net, InMemoryLoader(x, x[:, 0], 16, shuffle=True), sgd, seed=0)
    assert 20 < len(found.rates) < lr_range.STEPS and found.lr < 0.01


def test_without_any_fall_it_says_so():
    class Flat(Classification):
        def loss(self, output, y):
            return 0 * super().loss(output, y) + 1

    net = task()
    net.__class__ = Flat
    with pytest.raises(UsageError) as raised:
        lr_range.find(net, loader(1), sgd, seed=0)
    assert str(raised.value) == (
        "`optimizer.lr=auto` found no rate at which the loss falls; set `optimizer.lr` to a number"
    )


def test_threads_are_chosen_on_a_copy():
    before = torch.get_num_threads()
    net = task()
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    try:
        count = threads.choose(net, (torch.randn(16, 2, generator=torch.Generator()), torch.zeros(16).long()), cores=2)
        assert count in (1, 2) and torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_one_core_needs_no_trial():
    assert threads.choose(task(), (torch.zeros(1, 2), torch.zeros(1).long()), cores=1) == 1


@pytest.mark.parametrize(("cores", "tried"), [(2, [2]), (4, [2, 4]), (6, [2, 4, 6]), (16, [2, 4, 8, 16])])
def test_counts_that_are_tried(cores, tried):
    assert threads._candidates(cores) == tried


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= threads.allowed_cores()
