"""A stacked net's outputs and gradients are those of its members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from trainctl.optimizers import parameter_groups
from trainctl.stacked import Unstackable
from trainctl.stacked.draws import Draws
from trainctl.stacked.layers import TooFewRows
from trainctl.stacked.nets import StackedNet
from trainctl.stacked.weights import Weights

CPU = torch.device("cpu")
MEMBERS = 3


class Own(nn.Linear):
    """A subclass that computes as its base does."""


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 3)), (6, 5)),
    "no_bias": (lambda: nn.Sequential(nn.Linear(5, 20, bias=False), nn.ReLU(), nn.Linear(20, 3, bias=False)), (6, 5)),
    "wide": (lambda: nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 32), nn.ReLU(), nn.ReLU(), Own(32, 40)), (6, 16)),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.LayerNorm((5, 20)), nn.Flatten(),
                                     nn.Linear(100, 2)), (6, 5, 4)),
    "flatten": (lambda: nn.Sequential(nn.Flatten(1, 2), nn.Linear(20, 18), nn.Flatten(start_dim=1)), (6, 5, 4)),
    "norms": (lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, momentum=None), nn.Tanh(),
                                    nn.LayerNorm(8, elementwise_affine=False)), (6, 5)),
    "no_statistics": (lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, track_running_stats=False)), (6, 5)),
    "plain_norm": (lambda: nn.Sequential(nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2)), (6, 5)),
    "first_norm": (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2)), (6, 5)),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Linear(5, 6), nn.SiLU()), nn.Sequential(nn.Linear(6, 2))),
               (6, 5)),
}  # fmt: skip


def made(make: Callable[[], nn.Module]) -> tuple[list[nn.Module], Weights, StackedNet]:
    nets = []
    for seed in range(MEMBERS):
        torch.manual_seed(seed)
        nets.append(make().double())
    weights = Weights(nets, [SGD(parameter_groups(net), 0.1) for net in nets], CPU)
    return nets, weights, StackedNet(nets, weights.values, Draws([0] * MEMBERS, CPU))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("name", NETS)
def test_outputs_and_gradients_are_those_of_the_members(name: str, shared: bool) -> None:
    make, shape = NETS[name]
    nets, weights, stack = made(make)
    x = torch.randn((1 if shared else MEMBERS, *shape), dtype=torch.float64)
    for _ in range(2):
        found = stack(x)
        gradients = torch.autograd.grad(found.square().sum(), weights.leaves)
        for k, net in enumerate(nets):
            out = net(x[0 if shared else k])
            own = dict(zip((n for n, _ in net.named_parameters()),
                           torch.autograd.grad(out.square().sum(), list(net.parameters())), strict=True))  # fmt: skip
            torch.testing.assert_close(found[k], out)
            for columns, gradient in zip(weights.columns, gradients, strict=True):
                torch.testing.assert_close(gradient[k], own[columns.name])
    stack.training = False
    for k, net in enumerate(nets):
        torch.testing.assert_close(stack(x)[k], net.eval()(x[0 if shared else k]))
        state = weights.state(k, weights.flat)
        for key, value in net.state_dict().items():
            torch.testing.assert_close(state[key], value)


@pytest.mark.parametrize("padded", [0, None])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_embeddings_learn_as_the_members_do(shared: bool, padded: int | None) -> None:
    nets, weights, stack = made(lambda: nn.Sequential(nn.Embedding(7, 3, padding_idx=padded), nn.Flatten()))
    codes = torch.randint(0, 7, (1 if shared else MEMBERS, 6, 4))
    (gradient,) = torch.autograd.grad(stack(codes).square().sum(), weights.leaves)
    assert stack.padding == ([] if padded is None else ["0.weight"])
    for k, net in enumerate(nets):
        net(codes[0 if shared else k]).square().sum().backward()
        own: Any = next(net.parameters()).grad
        torch.testing.assert_close(gradient[k], own)


def test_batch_norm_refuses_one_row() -> None:
    _, _, stack = made(NETS["norms"][0])
    with pytest.raises(TooFewRows):
        stack(torch.randn(1, 1, 5, dtype=torch.float64))


class Hooked(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_forward_hook(lambda module, inputs, output: output + 1)


class Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("module", "reason"), [
    (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "the nets have different shapes"),
    (lambda: Hooked(2, 2), "Hooked has hooks"),
    (lambda: nn.Sequential(nn.Linear(2, 2), Bare()), "there is no stacked form of Bare"),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Flatten(0)), "it flattens the batch"),
    (lambda: nn.Sequential(nn.Embedding(2, 2, max_norm=1.0)), "an embedding with options of its own"),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).float()), None),
], ids=["parametrized", "hooked", "bare", "flatten", "embedding", "fine"])  # fmt: skip
def test_what_has_no_stacked_form_is_said(module: Callable[[], nn.Module], reason: str | None) -> None:
    if reason is None:
        made(module)
        return
    with pytest.raises(Unstackable, match=f"^{reason}$"):
        made(module)


def test_parameters_of_several_types_are_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(Unstackable, match="^the net's parameters have several types$"):
        Weights([net], [SGD(net.parameters(), 0.1)], CPU)
