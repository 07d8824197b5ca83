"""The stacked optimizers take torch's own steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainctl.optimizers import parameter_groups
from trainctl.stacked import Unstackable
from trainctl.stacked.optimizers import stacked
from trainctl.stacked.weights import Weights

CPU = torch.device("cpu")
MAKES: dict[str, tuple[Callable[..., Optimizer], list[dict[str, Any]]]] = {
    "adamw": (AdamW, [{"lr": 0.1}, {"lr": 0.02, "weight_decay": 0.5}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}]),
    "adam": (Adam, [{"lr": 0.1, "weight_decay": 0.3}, {"lr": 0.2}, {"lr": 0.2, "betas": (0.5, 0.999)}]),
    "same": (AdamW, [{"lr": 0.1, "weight_decay": 0.1}] * 2),
    "momentum": (SGD, [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.2, "weight_decay": 0.1}, {"lr": 0.1, "momentum": 0.5}]),
    "nesterov": (SGD, [{"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.1, "momentum": 0.8, "nesterov": True}]),
    "sgd": (SGD, [{"lr": 0.1}, {"lr": 0.2}]),
}


def net_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "foreach"])
@pytest.mark.parametrize("name", MAKES)
def test_each_member_takes_the_steps_of_torch(name: str, fused: bool) -> None:
    make, options = MAKES[name]
    nets = [net_of(k) for k in range(len(options))]
    alone = [
        make(parameter_groups(net, option.get("weight_decay", 0.0)), fused=fused, **option)
        for net, option in zip(nets, options, strict=True)
    ]
    weights = Weights(nets, alone, CPU)
    update = stacked(alone, weights.groups, weights.flat)
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        gradients = torch.randn(weights.flat.shape, generator=generator, dtype=torch.float64)
        for k, (net, optimizer) in enumerate(zip(nets, alone, strict=True)):
            parameters = dict(net.named_parameters())
            for columns in weights.columns:
                parameters[columns.name].grad = weights.view(gradients, columns)[k].clone()
            if step == 6:  # what a scheduler does
                for group in optimizer.param_groups:
                    group["lr"] /= k + 2
            optimizer.step()
        if step == 6:
            update.refresh()
        update(weights.flat, gradients)
    for k, net in enumerate(nets):
        state: dict[str, Tensor] = weights.state(k, weights.flat)
        for key, value in net.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("option", "reason"), [
    ({"amsgrad": True}, "an optimizer with amsgrad"),
    ({"maximize": True}, "an optimizer with maximize"),
    ({"lr": torch.tensor(0.1), "capturable": True}, "a learning rate that is a tensor"),
], ids=["amsgrad", "maximize", "tensor"])  # fmt: skip
def test_what_torch_can_and_a_stack_cannot_is_said(option: dict[str, Any], reason: str) -> None:
    net = net_of(0)
    optimizer = AdamW(parameter_groups(net), **option)
    weights = Weights([net], [optimizer], CPU)
    with pytest.raises(Unstackable, match=f"^{reason}$"):
        stacked([optimizer], weights.groups, weights.flat)


def test_nesterov_and_plain_momentum_make_two_stacks() -> None:
    nets = [net_of(0), net_of(1)]
    alone = [SGD(parameter_groups(net), lr=0.1, momentum=0.9, nesterov=bool(k)) for k, net in enumerate(nets)]
    weights = Weights(nets, alone, CPU)
    with pytest.raises(Unstackable, match="^the optimizers differ in nesterov$"):
        stacked(alone, weights.groups, weights.flat)
