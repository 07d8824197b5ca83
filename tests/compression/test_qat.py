"""Quantization-aware fine-tuning: the net that is trained, and what ships."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.compression.onnx_net import OnnxNet
from trainctl.compression.qat import QAT
from trainctl.errors import UsageError


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_fine_tuning_with_rounding_ships_an_int8_net(bench: Callable[..., Any], model: str) -> None:
    b = bench(model)
    before = b.context.score(b.net)
    compressor = QAT()
    net = b.train(compressor.compress(copy.deepcopy(b.net), b.context), epochs=1, lr=1e-4)
    rounded = b.context.score(net)
    shipped = compressor.finish(net, b.context)
    assert isinstance(shipped, OnnxNet) and compressor.plan["layers"]
    assert abs(b.context.score(shipped) - rounded) <= 0.01
    assert b.context.score(shipped) >= before - 0.015


@pytest.mark.parametrize("reduce_range", ["auto", True])
def test_the_prepared_net_computes_what_the_int8_net_will(bench: Callable[..., Any], reduce_range: Any) -> None:
    b = bench("cnn")
    plain = b.outputs(b.net)
    compressor = QAT(reduce_range=reduce_range)
    net = compressor.compress(copy.deepcopy(b.net), b.context)
    rounded = b.outputs(net)
    shipped = b.outputs(compressor.finish(net, b.context))
    assert (rounded - plain).norm() > 0
    assert (shipped - rounded).norm() < 0.6 * (shipped - plain).norm()


def test_a_copy_and_its_state_stand_alone(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    net = QAT().compress(b.net, b.context)
    twin = copy.deepcopy(net)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    b.train(twin)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    net.load_state_dict(twin.state_dict())
    assert torch.equal(b.outputs(net), b.outputs(twin))


def test_the_same_training_gives_the_same_file(bench: Callable[..., Any]) -> None:
    contents = []
    for _ in range(2):
        b = bench("mlp")
        compressor = QAT()
        contents.append(compressor.finish(b.train(compressor.compress(b.net, b.context)), b.context).content)
    assert contents[0] == contents[1]


def test_what_cannot_be_rounded_is_left(bench: Callable[..., Any]) -> None:
    b = bench("lstm")
    net = QAT(exclude=["head.*"]).compress(b.net, b.context)
    assert b.notes == ["`lstm` stays as it is: fine-tuning does not round the weights of LSTM"]
    assert isinstance(net.head[1], nn.Linear) and not hasattr(net.head[1], "parametrizations")
    b = bench("lstm")
    b.context.strict = True
    with pytest.raises(
        UsageError, match="^`lstm` cannot be compressed: fine-tuning does not round the weights of LSTM"
    ):
        QAT().compress(b.net, b.context)
