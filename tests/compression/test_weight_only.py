"""int8_weight_only and int4_weight_only: few bits in the file, and what they are computed in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from trainctl.compression.int4_weight_only import Int4WeightOnly
from trainctl.compression.int8_weight_only import Int8WeightOnly
from trainctl.compression.onnx_bits import int8
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import UsageError


def held(content: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(content).graph.initializer}


def test_int8_codes_are_within_half_a_step_of_the_weights_of_each_channel() -> None:
    weights = np.random.default_rng(0).normal(size=(6, 5, 3, 3)).astype(np.float32) * np.arange(6)[:, None, None, None]
    codes, scale = int8(weights.astype(np.float32), (0,))
    assert codes.dtype == np.int8 and scale.shape == (6, 1, 1, 1) and not codes[0].any()
    assert (np.abs(codes[1:]).max((1, 2, 3)) == 127).all()
    assert (np.abs(codes * scale - weights) <= 0.5001 * scale).all()


@pytest.mark.parametrize(("model", "smaller"), [("transformer", 3.3), ("cnn", 3.1)])
def test_every_matrix_is_stored_in_8_bits(
    bench: Callable[..., Any], exported: Callable[..., OnnxNet], model: str, smaller: float
) -> None:
    b, whole = bench(model), exported(model)
    method = Int8WeightOnly()
    net = method.compress(whole, b.context)
    constants = held(net.content)
    assert not [name for name, c in constants.items() if c.dtype == np.float32 and c.ndim >= 2 and "scale" not in name]
    assert len(whole.content) > smaller * len(net.content)
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    assert b.context.notes == [
        "8-bit weights save bytes, not time: they are widened to float32 when the file is loaded; "
        "`compressor=int8_dynamic` and `int8_static` compute in int8"
    ]
    restored = method.restore(b.net)
    restored.load(net.content)
    assert torch.equal(b.outputs(restored), b.outputs(net))


def test_torch_stores_linear_layers_in_8_bits(bench: Callable[..., Any]) -> None:
    b = bench("transformer")
    method = Int8WeightOnly("torch")
    net = method.compress(copy.deepcopy(b.net), b.context)
    assert "blocks.1.mlp.4" in method.plan["layers"] and "tokens.embed" not in method.plan["layers"]
    assert "`tokens.embed` stays as it is: torchao quantizes Linear layers, and it is an Embedding" in b.context.notes
    assert b.context.score(net) >= b.context.score(b.net) - 0.01


def test_4_bits_make_linear_weights_six_times_smaller_at_the_same_accuracy(
    bench: Callable[..., Any], exported: Callable[..., OnnxNet]
) -> None:
    b = bench("transformer")
    net = Int4WeightOnly().compress(exported("transformer"), b.context)
    graph = onnx.load_model_from_string(net.content).graph
    packed = {name for node in graph.node if node.op_type == "MatMulNBits" for name in node.input[1:]}
    stored = sum(value.nbytes for name, value in held(net.content).items() if name in packed)
    linear = sum(m.weight.numel() * 4 for m in b.net.modules() if isinstance(m, torch.nn.Linear))
    assert linear > 6 * stored
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    assert b.context.notes == [
        "4 bits are for linear layers; 8-bit weights in `tokens.position`, `tokens.embed`",
    ]


def test_layers_that_are_named_get_8_bits(bench: Callable[..., Any], exported: Callable[..., OnnxNet]) -> None:
    b = bench("mlp")
    every, some = (Int4WeightOnly(eight=names).compress(exported("mlp"), b.context) for names in ((), ("1",)))
    nodes = [[n.op_type for n in onnx.load_model_from_string(net.content).graph.node] for net in (every, some)]
    assert [one.count("MatMulNBits") for one in nodes] == [3, 2]
    assert len(every.content) < len(some.content) < len(exported("mlp").content) / 3
    with pytest.raises(UsageError, match="`compressor.eight` pattern 'hed' matches no layer of: "):
        Int4WeightOnly(eight=["hed"]).compress(exported("mlp"), b.context)


def test_smaller_blocks_are_closer_to_the_net(bench: Callable[..., Any], exported: Callable[..., OnnxNet]) -> None:
    b = bench("mlp")
    fine, coarse = (Int4WeightOnly(block_size=n).compress(exported("mlp"), b.context) for n in (16, 128))
    whole = b.outputs(b.net)
    assert (b.outputs(fine) - whole).abs().mean() < (b.outputs(coarse) - whole).abs().mean()
    assert len(fine.content) > len(coarse.content)


def test_4_bits_in_torch_are_refused_with_what_torchao_says(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    assert Int4WeightOnly("torch").refusal(b.net, b.context.spec) == (
        "torchao's 4-bit weights do not run on this machine (Requires mslk >= 1.0.0); use backend=onnxruntime"
    )
