"""Weights of quantized nets in a file: bit for bit, and only into the net that they are of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load as read
from safetensors.torch import save
from torch import nn

from trainctl import build
from trainctl.compression.int8_dynamic import Int8Dynamic
from trainctl.compression.tensors import flatten, load


def test_a_quantized_net_comes_back_bit_for_bit(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    method = Int8Dynamic("torch")
    net = method.compress(b.net, b.context)
    plain = flatten(net.state_dict())
    assert {"1.weight.qdata", "1.weight.scale", "1.weight.zero_point", "1.bias", "0.embed.weight"} <= set(plain)
    fresh = Int8Dynamic(plan=method.plan).restore(build.net(b.config, b.data.spec))
    load(fresh, read(save({name: part.contiguous() for name, part in plain.items()})))
    filled = flatten(fresh.state_dict())
    assert all(torch.equal(filled[name], part) and filled[name].dtype == part.dtype for name, part in plain.items())
    assert torch.equal(b.outputs(fresh), b.outputs(net))
    assert torch.equal(b.outputs(copy.deepcopy(fresh)), b.outputs(net))


def test_plain_weights_pass_unchanged() -> None:
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    assert all(flatten(state)[name] is tensor for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": torch.zeros(2, 2)}, "`weight` is [2, 2] in the run and [2, 3] in the config's net"),
        (
            {"weight": torch.zeros(2, 3, dtype=torch.int8)},
            "`weight` is int8 in the run and float32 in the config's net",
        ),
        ({"weight": None}, "the config's net has `weight`, the run has not"),
        ({"extra": torch.zeros(1)}, "the run has `extra`, the config's net has not"),
    ],
)
def test_weights_of_another_net_are_refused(change: dict[str, Any], sentence: str) -> None:
    net = nn.Linear(3, 2)
    before = copy.deepcopy(net.state_dict())
    given = {name: part for name, part in {**net.state_dict(), **change}.items() if part is not None}
    with pytest.raises(ValueError) as error:
        load(net, {name: part + 1 for name, part in given.items()})
    assert str(error.value) == sentence
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_float32_net_takes_weights_of_another_precision_and_a_half_one_does_not() -> None:
    net = nn.Linear(3, 2)
    wide = {name: tensor.double() for name, tensor in net.state_dict().items()}
    load(net, wide)
    with pytest.raises(ValueError, match="^`weight` is float64 in the run and float16 in the config's net$"):
        load(net.half(), wide)
