"""fp16, bf16 and float8: floats of fewer bits, and where they are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from trainctl.compression.bf16 import Bf16
from trainctl.compression.float8 import Float8
from trainctl.compression.fp16 import Fp16
from trainctl.compression.halves import Half
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import ResourceError


class Projected(nn.Module):
    """Multiplies by a matrix of its own: what a layer gives, or x itself."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.matrix = nn.Parameter(torch.randn(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.matrix


def test_onnx_stores_fp16_and_gives_nearly_the_same_outputs(
    bench: Callable[..., Any], exported: Callable[..., OnnxNet]
) -> None:
    b, whole = bench("mlp"), exported("mlp")
    net: Any = Fp16().compress(whole, b.context)
    assert len(whole.content) > 1.9 * len(net.content)
    assert torch.allclose(b.outputs(net), b.outputs(b.net), atol=0.01)
    assert b.context.notes == [
        "16-bit weights save bytes, not time: they are widened to float32 when the file is loaded"
    ]


def test_values_beyond_fp16_stay_float32_and_are_named(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    with torch.no_grad():
        b.net[1].bias[0] = 1e5
    net: Any = Fp16().compress(b.net, b.context)
    assert "`1` stays as it is: it has values beyond 65504, the largest of float16" in b.context.notes
    held = {t.name: t.data_type for t in onnx.load_model_from_string(net.content).graph.initializer}
    assert held["1.bias"] == onnx.TensorProto.FLOAT and held["1.weight_half"] == onnx.TensorProto.FLOAT16


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "atol"), [(Fp16, 0.02), (Bf16, 0.15)])
@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_torch_computes_in_16_bits_from_the_same_input_to_float32(
    bench: Callable[..., Any], model: str, kind: type[Half], atol: float
) -> None:
    b = bench(model)
    method = kind("torch")
    net = method.compress(copy.deepcopy(b.net), b.context)
    assert {p.dtype for p in net.parameters()} == {kind.dtype}
    output = b.outputs(net)
    assert output.dtype == torch.float32 and torch.allclose(output, b.outputs(b.net), atol=atol)
    fresh = kind(plan=method.plan).restore(copy.deepcopy(b.net))
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(b.outputs(fresh), output)


def test_category_codes_above_256_survive_bf16(bench: Callable[..., Any]) -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(1000, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x[:, 0].long()))

    net, context = Codes(), bench("mlp").context
    x = torch.tensor([[257.0], [999.0]])
    context.example = x
    made = Bf16("torch").compress(copy.deepcopy(net), context)
    assert torch.allclose(made(x), net(x), atol=0.03)


def test_a_matrix_of_the_net_itself_is_16_bits_where_that_runs(bench: Callable[..., Any]) -> None:
    context = bench("mlp").context
    context.example = torch.randn(4, 3)
    after, before = Projected(nn.Linear(3, 5), 5), Projected(nn.Identity(), 3)
    assert Fp16("torch").compress(after, context).net.matrix.dtype == torch.float16
    context.notes.clear()
    assert Fp16("torch").compress(before, context).net.matrix.dtype == torch.float32
    sentence = "`net` stays as it is: Projected is no layer of torch.nn, and does not compute in 16 bits"
    assert context.notes[0] == sentence


def test_bf16_and_float8_are_refused_where_nothing_computes_them(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    spec = b.context.spec
    assert Bf16().refusal(b.net, spec) is None and Bf16().engine == "torch"
    assert Bf16("onnxruntime").refusal(b.net, spec) == (
        "ONNX Runtime computes nothing in bfloat16 on the CPU; use backend=torch, or compressor=fp16"
    )
    assert Float8("onnxruntime").refusal(b.net, spec) == (
        "ONNX Runtime computes nothing in float8 on the CPU; use compressor=int8_static"
    )
    if not torch.cuda.is_available():
        sentence = (
            "float8 needs a GPU of compute capability 8.9 or more, and this machine has no CUDA device; "
            "use compressor=int8_static"
        )
        assert Float8().refusal(b.net, spec) == sentence
        with pytest.raises(ResourceError, match=f"^{sentence}$"):
            Float8(plan={"backend": "torch", "layers": ["1"]}).restore(b.net)
