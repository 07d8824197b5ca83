"""int8_dynamic: int8 kernels on both engines, what it leaves, and what it says about it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from trainctl.compression.int8_dynamic import Int8Dynamic
from trainctl.compression.onnx_net import OnnxNet
from trainctl.compression.vnni import has_vnni
from trainctl.errors import UsageError


def compressed(b: Any, net: nn.Module, **options: Any) -> tuple[Int8Dynamic, Any]:
    method = Int8Dynamic(**options)
    return method, method.compress(net, b.context)


def operators(net: OnnxNet) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(net.content).graph.node]


@pytest.mark.parametrize(
    ("model", "kernels", "smaller"),
    [("mlp", {"MatMulInteger": 3}, 3.1), ("lstm", {"DynamicQuantizeLSTM": 1, "MatMulInteger": 1}, 3.3)],
)
def test_int8_kernels_run_a_quarter_of_the_bytes(
    bench: Callable[..., Any], exported: Callable[..., OnnxNet], model: str, kernels: dict[str, int], smaller: float
) -> None:
    b, whole = bench(model), exported(model)
    method, net = compressed(b, whole)
    assert method.plan == {"backend": "onnxruntime", "bits": 8 if has_vnni() else 7}
    assert {kind: operators(net).count(kind) for kind in kernels} == kernels
    assert len(whole.content) > smaller * len(net.content)
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    again = method.restore(copy.deepcopy(b.net))
    again.load(net.content)
    assert torch.equal(b.outputs(again), b.outputs(net))


def test_convolutions_are_stored_in_8_bits_and_computed_in_float(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    method = Int8Dynamic()
    assert method.refusal(b.net, b.context.spec) is None
    net = method.compress(copy.deepcopy(b.net), b.context)
    assert operators(net).count("Conv") == 2 and "ConvInteger" not in operators(net)
    assert len(b.notes) == 1 and b.notes[0].startswith(
        "`features.0`, `features.4`: weights in 8 bits, computed in float32, since ONNX Runtime's dynamic int8 "
    )
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    assert Int8Dynamic().compress(b.net, b.context).content == net.content  # type: ignore[attr-defined]


def test_an_excluded_layer_keeps_its_bits_and_a_wrong_pattern_is_told(
    bench: Callable[..., Any], exported: Callable[..., OnnxNet]
) -> None:
    b, whole = bench("mlp"), exported("mlp")
    _, net = compressed(b, whole, exclude=["0.*", "5"])
    assert operators(net).count("MatMulInteger") == 2
    held = {tensor.name for tensor in onnx.load_model_from_string(net.content).graph.initializer}
    assert {"0.embed.weight", "5.weight_transposed"} <= held
    for engine, given in (("onnxruntime", whole), ("torch", b.net)):
        with pytest.raises(
            UsageError, match="^`compressor.exclude` pattern 'tail' matches no layer of: 0.embed, 1, 3, 5$"
        ):
            compressed(b, given, exclude=["tail"], backend=engine)


def test_torch_takes_linear_layers_and_names_the_others(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    method, net = compressed(b, copy.deepcopy(b.net), backend="torch")
    assert method.plan == {"backend": "torch", "layers": ["head.2", "head.4"]}
    assert b.notes == [
        "`features.0` stays as it is: torchao quantizes Linear layers, and it is a Conv2d",
        "`features.4` stays as it is: torchao quantizes Linear layers, and it is a Conv2d",
        "fewer bits save bytes, not time, in torch on a CPU; backend=onnxruntime has the kernels",
    ]
    assert net.head[2].weight.qdata.dtype == torch.int8
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    b.context.strict = True
    with pytest.raises(
        UsageError,
        match="^`features.0` cannot be compressed: torchao quantizes Linear layers, and it is a Conv2d; "
        "leave out `strict=true` to keep it as it is$",
    ):
        Int8Dynamic("torch").compress(b.net, b.context)


def test_what_cannot_be_done_is_said_before_work_starts(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    spec = b.context.spec
    again = "the run is quantized already; quantize the run that it was made from"
    assert Int8Dynamic().refusal(OnnxNet(), spec) == again
    assert Int8Dynamic().refusal(compressed(b, copy.deepcopy(b.net), backend="torch")[1], spec) == again
    assert Int8Dynamic("torch").refusal(nn.Conv2d(1, 1, 1), spec) == (
        "compressor=int8_dynamic in torch takes Linear layers, and the net has none; use backend=onnxruntime"
    )
    assert Int8Dynamic("tensorrt").refusal(b.net, spec) == (
        "`backend` must be auto, onnxruntime or torch, got 'tensorrt'"
    )
