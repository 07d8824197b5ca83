"""Attention in few operators: the same outputs, and torch's own form where it would not give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainctl.compression.attention import to_lean_onnx
from trainctl.compression.onnx_net import OnnxNet, to_onnx


class Attending(nn.Module):
    """x [B, 6] of tokens -> [B, 4]: attention under a mask of one `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.embed, self.head = kind, nn.Embedding(10, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).unflatten(2, (2, 8)).transpose(1, 2)
        seen = (x != 0)[:, None, None, :]
        options: dict[str, Any] = {
            "none": {},
            "bool": {"attn_mask": seen},
            "float": {"attn_mask": torch.where(seen, 0.0, -5.0)},
            "causal": {"is_causal": True},
            "scale": {"scale": 0.1},
        }[self.kind]
        return self.head(functional.scaled_dot_product_attention(h, h, h, **options).transpose(1, 2).flatten(2).mean(1))


def rows(seed: int) -> Tensor:
    x = torch.randint(1, 10, (8, 6), generator=torch.Generator().manual_seed(seed))
    x[::2, 4:] = 0
    return x


def operators(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal", "scale"])
def test_outputs_are_those_of_torch(bench: Callable[..., Any], kind: str) -> None:
    context = bench("mlp").context
    context.example, context.calibration = rows(0)[:2], rows(0)
    net = Attending(kind).eval()
    content = to_lean_onnx(net, context)
    torch.testing.assert_close(OnnxNet(content)(rows(1)), net(rows(1)), atol=1e-5, rtol=1e-5)
    plain = operators(to_onnx(net, context.example))
    if kind == "causal":
        assert operators(content) == plain
    else:
        assert operators(content).total() < plain.total() and "IsNaN" not in operators(content)


@pytest.mark.slow
def test_queries_that_may_attend_to_nothing_keep_the_exporters_form(bench: Callable[..., Any]) -> None:
    context = bench("mlp").context
    context.example, context.calibration = rows(0)[:2], torch.cat((rows(0), torch.zeros(1, 6, dtype=torch.int64)))
    assert "IsNaN" in operators(to_lean_onnx(Attending("bool").eval(), context))


@pytest.mark.slow
def test_a_transformer_is_the_same_net(bench: Callable[..., Any]) -> None:
    b = bench("transformer")
    lean = OnnxNet(to_lean_onnx(b.net, b.context))
    torch.testing.assert_close(b.outputs(lean), b.outputs(b.net), atol=1e-4, rtol=1e-4)
