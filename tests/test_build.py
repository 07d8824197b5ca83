"""Config to components: durations, what is injected, and what cannot be made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainctl import build, durations
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

SPEC = DataSpec("table", "class", classes=("a", "b"), numeric=("x",))


@pytest.mark.parametrize(("text", "seconds"), [
    (None, None), (90, 90), (1.5, 1.5), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800),
    ("1h 30m", 5400), ("0.5s", 0.5), ("00:01:30:00", 5400), ("01:30", 90), ("1:00:00", 3600),
])
def test_durations(text, seconds):
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "10x", "1:2:3:4:5"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError) as raised:
        durations.seconds(text)
    assert str(raised.value) == (
        f"`trainer.max_time` must be a duration such as 10m, 1h30m or 00:01:30:00, got '{text}'"
    )


def test_what_a_signature_names_is_passed_and_the_config_wins():
    assert build.component({"_target_": "builtins.dict", "a": 1}, a=2) == {"a": 1}
    net = build.component({"_target_": "torch.nn.Linear", "in_features": 3}, out_features=2, spec=SPEC)
    assert (net.in_features, net.out_features) == (3, 2)
    make = build.component({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert make([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("node", "message"), [
    ({"_target_": "torch.nn.Linear", "in_features": -1, "out_features": 1}, "`torch.nn.Linear` cannot be made from "),
    ({"_target_": "no_such_package.Net"}, "`no_such_package.Net` cannot be imported: "),
])
def test_what_cannot_be_made_is_a_sentence(node, message):
    with pytest.raises(UsageError) as raised:
        build.component(node)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_the_seed_decides_the_net_and_leaves_the_generator_alone():
    config = {"seed": 3, "model": {"_target_": "trainctl.models.mlp.MLP", "hidden_dims": [4]}}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = build.net(config, SPEC).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    other, third = build.net(config, SPEC).state_dict(), build.net({**config, "seed": 4}, SPEC).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], third[key]) for key in one)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: build.net({"model": {"_target_": "builtins.dict"}}, SPEC),
     "`model._target_` must be a torch.nn.Module, got dict"),
    (lambda: build.data({"data": {"_target_": "builtins.dict"}, "trainer": {}}),
     "`data._target_` must be a LightningDataModule, got dict"),
    (lambda: build.task({"task": {"_target_": "builtins.dict"}}, SPEC),
     "`task._target_` must be a LightningModule, got dict"),
    (lambda: build.optimizer({"_target_": "builtins.list", "_partial_": True}, nn.Linear(1, 1)),
     "`optimizer._target_` must be a torch optimizer, got list"),
    (lambda: build.task({"task": {"_target_": "trainctl.tasks.auto.auto"}}, None),
     "this data has no spec; give it a `spec` attribute or name a task that builds its own net"),
])
def test_the_wrong_kind_of_component_is_refused(make, message):
    with pytest.raises(UsageError) as raised:
        make()
    assert str(raised.value) == message


def test_freezing_takes_one_pattern_or_a_list():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    build.freeze(net, "0")
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["0.weight", "0.bias"]
