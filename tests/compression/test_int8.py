"""int8 by sensitivity: what becomes static, dynamic or stays in float, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest

from trainctl.compression.int8 import Int8, least_taken_back, taken_back
from trainctl.compression.onnx_int8 import Layer
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import UsageError


def made(b: Any, net: Any = None, **keys: Any) -> tuple[OnnxNet, Int8]:
    compressor = Int8(**keys)
    net = compressor.finish(compressor.compress(net or b.exported, b.context), b.context)
    assert isinstance(net, OnnxNet)
    return net, compressor


def operators(net: OnnxNet) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(net.content).graph.node}


@pytest.mark.parametrize(
    ("model", "kernel"), [("mlp", "QGemm"), ("lstm", "DynamicQuantizeLSTM"), ("transformer", "DynamicQuantizeMatMul")]
)
def test_each_net_is_computed_in_int8_within_the_drop(bench: Callable[..., Any], model: str, kernel: str) -> None:
    b = bench(model)
    net, compressor = made(b)
    assert kernel in operators(net)
    assert b.context.score(net) >= b.context.score(b.net) - 0.002
    assert len(net.content) < len(b.exported.content) / 2
    assert compressor.plan["layers"].keys() == compressor.plan["sensitivity"].keys()


def test_the_same_net_gives_the_same_file(bench: Callable[..., Any]) -> None:
    first, compressor = made(bench("transformer"))
    again, other = made(bench("transformer"))
    assert first.content == again.content and compressor.plan == other.plan


def test_a_layer_that_spoils_the_outputs_is_taken_back(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    b.net[3].weight.data[:, :4] *= 1e-4  # what 8 bits for the whole of a weight round to nothing
    b.net[3].weight.data[0, 0] = 300.0
    b.net[5].weight.data[:, 0] = 0
    net, compressor = made(b, b.net, per_channel=False)
    assert compressor.plan["layers"]["3"] == "float"
    assert compressor.plan["sensitivity"]["3"]["static"] > compressor.plan["sensitivity"]["1"]["static"]
    assert b.context.score(net) >= b.context.score(b.net) - 0.002
    assert b.notes == ["`3` stays in float: with it in 8 bits the drop exceeds 0.002"]


def test_no_layer_within_the_drop_is_a_sentence(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    score = b.context.score
    float_outputs = b.outputs(b.net)

    def strict(net: Any) -> float:
        return score(net) if (b.outputs(net) - float_outputs).abs().max() < 1e-4 else 0.0

    b.context.score = strict
    with pytest.raises(UsageError) as error:
        made(b)
    assert str(error.value) == (
        "`compressor=int8` finds no layer that can be quantized with a drop of 0.002 at most; give more, e.g. "
        "compressor.max_drop=0.01, or take `compressor=qat`"
    )


def test_the_worst_goes_back_first_to_dynamic_then_to_float() -> None:
    layers = [Layer(name, "Gemm", name, 1, ("static", "dynamic")) for name in "ab"]
    errors = {("a", "static"): 0.5, ("a", "dynamic"): 0.1, ("b", "static"): 0.2, ("b", "dynamic"): 0.3}
    start = {"a": "static", "b": "static"}
    steps = taken_back(layers, start, errors)
    assert steps == [("a", "dynamic"), ("b", "float"), ("a", "float")]
    assert least_taken_back(start, steps, lambda modes: True) == start
    assert least_taken_back(start, steps, lambda modes: modes["b"] == "float") == {"a": "dynamic", "b": "float"}
    assert least_taken_back(start, steps, lambda modes: False) == {"a": "float", "b": "float"}
