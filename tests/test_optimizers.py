"""Parameter groups, the torch optimizers that conf/optimizer names, and Muon."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from trainctl import optimizers
from trainctl.data.spec import Category, DataSpec
from trainctl.models.mlp import MLP

CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "optimizer").glob("*.yaml"))
SPEC = DataSpec(
    "table", "class", classes=("a", "b"), numeric=("n1", "n2"), categories=(Category("c", 20), Category("d", 30))
)


def make(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MLP(SPEC, [32, 32], norm="layer", embedding_dim=16)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(64, 2, generator=generator)
    codes = torch.randint(0, 20, (64, 2), generator=generator).float()
    return torch.cat((x, codes), 1), (x[:, 0] * x[:, 1] > 0).long()


def build(path: Path, net: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    given = {**yaml.safe_load(path.read_text(encoding="utf-8")), **changes}
    assert given.pop("_partial_") is True
    module, name = given.pop("_target_").rsplit(".", 1)
    factory = getattr({"torch.optim": torch.optim, "trainctl.optimizers": optimizers}[module], name)
    return factory(optimizers.parameter_groups(net, given["weight_decay"]), **given)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> float:
    for step in steps:
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


def test_biases_norms_and_embeddings_do_not_decay() -> None:
    net = make()
    names = {id(p): name for name, p in net.named_parameters()}
    weights, rest = optimizers.parameter_groups(net, 0.1)
    assert [names[id(p)] for p in weights["params"]] == ["1.weight", "4.weight", "7.weight"]
    assert weights["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    assert {names[id(p)] for p in rest["params"]} == {
        "0.embed.weight", "1.bias", "2.weight", "2.bias", "4.bias", "5.weight", "5.bias", "7.bias",
    }  # fmt: skip


def test_convolutions_decay_and_batch_norms_do_not() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    weights, rest = optimizers.parameter_groups(net, 0.1)
    assert [p.ndim for p in weights["params"]] == [4]
    assert [p.ndim for p in rest["params"]] == [1, 1, 1]


def test_frozen_and_shared_parameters_and_empty_groups() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    net[2].requires_grad_(False)
    groups = optimizers.parameter_groups(net, 0.1)
    assert [group["params"] for group in groups] == [[net[0].weight]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_optimizer_learns(path: Path) -> None:
    net = make()
    before = train(net, build(path, net), range(1))
    assert train(net, build(path, net), range(150)) < 0.9 * before


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_weight_decay_shrinks_only_the_weights(path: Path) -> None:
    plain, decayed = make(), make()
    train(plain, build(path, plain, weight_decay=0.0), range(3))
    train(decayed, build(path, decayed, weight_decay=0.5), range(3))
    assert decayed[4].weight.norm() < plain[4].weight.norm()
    zero_gradient = build(path, decayed, weight_decay=0.5)
    before = copy.deepcopy(decayed.state_dict())
    for parameter in decayed.parameters():
        parameter.grad = torch.zeros_like(parameter)
    zero_gradient.step()
    changed = {name for name, value in decayed.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "4.weight", "7.weight"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_resume_from_a_saved_state_is_bit_exact(path: Path, tmp_path: Path) -> None:
    whole = make()
    train(whole, build(path, whole), range(20))

    first = make()
    optimizer = build(path, first)
    train(first, optimizer, range(11))
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = make(seed=1)
    second.load_state_dict(saved["net"])
    resumed = build(path, second, lr=0.5)
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, range(11, 20))

    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_changed_lr_reaches_every_parameter(path: Path) -> None:
    net = make()
    optimizer = build(path, net)
    train(net, optimizer, range(2))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(net.state_dict())
    train(net, optimizer, range(2, 4))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fused_adamw_agrees_with_the_plain_one() -> None:
    path = next(path for path in CONFIGS if path.stem == "adamw")
    fused, plain = make(), make()
    train(fused, build(path, fused, fused=True), range(20))
    train(plain, build(path, plain, fused=False), range(20))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value)


def test_muon_takes_the_hidden_matrices_only() -> None:
    net = make()
    optimizer = optimizers.Muon(optimizers.parameter_groups(net, 0.1))
    names = {id(p): name for name, p in net.named_parameters()}
    groups = [(group["by"], group["weight_decay"], group["name"]) for group in optimizer.param_groups]
    assert groups == [("muon", 0.1, "weights"), ("adamw", 0.1, "weights"), ("adamw", 0.0, "rest")]
    assert [names[id(p)] for p in optimizer.param_groups[0]["params"]] == ["1.weight", "4.weight"]
    assert [names[id(p)] for p in optimizer.param_groups[1]["params"]] == ["7.weight"]


@pytest.mark.parametrize("net", [nn.Linear(4, 2), nn.Linear(32, 32, bias=False)], ids=["adamw only", "muon only"])
def test_muon_with_one_kind_of_parameter(net: nn.Module) -> None:
    optimizer = optimizers.Muon(optimizers.parameter_groups(net, 0.0), lr=0.01)

    def closure() -> float:
        optimizer.zero_grad()
        loss = net(torch.ones(1, next(net.parameters()).shape[1])).square().sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    for _ in range(30):
        last = optimizer.step(closure)
    assert last < first


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_scaled_gradients_give_the_same_step(path: Path) -> None:
    plain, scaled = make(), make()
    train(plain, build(path, plain), range(5))
    optimizer, scaler = build(path, scaled), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(5):
        x, y = batch(step)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(scaled(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[name], value, rtol=1e-4, atol=1e-5)
