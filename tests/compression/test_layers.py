"""prune compressor=layers: which blocks can go, which one does, and the net that is built again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.compression import foreign_nets as foreign
from trainctl.compression.layers import Layers, droppable
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.spec import DataSpec
from trainctl.errors import RunError, UsageError
from trainctl.models.transformer import Transformer

NO_BLOCKS = (
    "the net has no residual or transformer blocks in an nn.Sequential or nn.ModuleList that could be dropped whole; "
    "use compressor=channels"
)


def test_the_block_that_is_missed_least_goes_and_training_brings_the_accuracy_back(bench: Callable[..., Any]) -> None:
    b = bench("resmlp", "model.num_blocks=3")
    names = droppable(b.net, b.context.example)
    assert names == ["2", "3", "4"]
    whole, accuracy, scores = copy.deepcopy(b.net), b.context.score(b.net), {}
    for name in names:
        without = copy.deepcopy(b.net)
        without[int(name)] = nn.Identity()
        scores[name] = b.context.score(without)
    compressor = Layers(amount=0.3)
    net = compressor.compress(b.net, b.context)
    (dropped,) = compressor.plan["dropped"]
    assert scores[dropped] == b.context.score(net) == max(scores.values())
    b.train(net)
    assert b.context.score(net) > accuracy - 0.03
    again = Layers(plan=json.loads(json.dumps(compressor.plan))).restore(whole)
    again.load_state_dict(net.state_dict())
    assert torch.equal(b.outputs(again), b.outputs(net))


def test_most_blocks_go_one_by_one_and_one_stays(bench: Callable[..., Any]) -> None:
    b = bench("resmlp", "model.num_blocks=3")
    compressor = Layers(amount=0.9)
    assert compressor.candidates(b.net, b.context) == [{"amount": 1 / 3}, {"amount": 2 / 3}]
    net = compressor.compress(b.net, b.context)
    assert len(compressor.plan["dropped"]) == 2 and len(droppable(net, b.context.example)) == 1


def test_blocks_of_foreign_nets_are_found() -> None:
    assert droppable(foreign.VisionNet(), torch.randn(2, 3, 16, 16)) == ["layer1.0", "layer1.1", "layer2.1"]
    tokens = torch.randint(0, foreign.NUM_TOKENS, (2, foreign.LENGTH))
    # torch's encoder looks into its first layer before it calls it
    assert droppable(foreign.TorchEncoder(), tokens) == ["encoder.layers.1"]


def test_blocks_of_our_transformer_can_go() -> None:
    spec = DataSpec("sequence", "class", classes=("a", "b"), sequence_length=8, num_tokens=20)
    x = torch.randint(0, 20, (4, 8))
    assert droppable(Transformer(spec, 16, 3, 2, 16), x) == ["blocks.0", "blocks.1", "blocks.2"]


def test_what_cannot_be_done_is_said(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    assert Layers().refusal(b.net, b.context.spec) == NO_BLOCKS
    with pytest.raises(UsageError) as raised:
        Layers().compress(nn.Sequential(nn.Sequential(nn.Linear(14, 8), nn.ReLU()), nn.Linear(8, 2)), b.context)
    assert str(raised.value) == NO_BLOCKS
    assert Layers().refusal(OnnxNet(), b.context.spec) == (
        "the weights are in `model.onnx` and cannot be pruned; prune the run that it was made from"
    )
    with pytest.raises(RunError, match="^the net of the config has no block `9`, which its compression dropped$"):
        Layers(plan={"dropped": ["9"]}).restore(b.net)
    with pytest.raises(UsageError, match="^compressor.amount=2 must be above 0 and below 1, e.g. compressor.amount="):
        Layers(amount=2)
