"""Attention in an ONNX graph for ONNX Runtime in few operators.

torch's exporter writes `scaled_dot_product_attention` as forty operators in opset 20, most of them about shapes and
about queries that may attend to nothing. On small nets these take more time than the products do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from trainctl.compression.base import Context
from trainctl.compression.onnx_net import OnnxNet, to_onnx
from trainctl.errors import UsageError

ROWS = 64
CLOSE = 1e-4  # of the largest output


def to_lean_onnx(net: nn.Module, context: Context) -> bytes:
    """As `to_onnx`, with attention in few operators where that gives the same outputs on rows of train.

    It does not where a query may attend to nothing: torch gives zeros then, a softmax a mean of the values.
    """
    lean = _Lean()
    try:
        with lean:
            content = to_onnx(net, context.example)
        if not lean.used or _same(net, content, context):
            return content
    except UsageError:
        if not lean.used:
            raise
    return to_onnx(net, context.example)


class _Lean(TorchFunctionMode):
    """Meanwhile attention is products and a softmax; what these cannot express stays as it is."""

    used = False

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            found = _attend(*args, **(kwargs or {}))
            if found is not None:
                self.used = True
                return found
        return func(*args, **(kwargs or {}))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """[..., queries, width] as scaled_dot_product_attention gives it; None for what it is not written for."""
    if dropout_p or is_causal or enable_gqa:
        return None
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, torch.finfo(query.dtype).min)
        scores = scores + attn_mask
    return torch.softmax(scores, -1) @ value


def _same(net: nn.Module, content: bytes, context: Context) -> bool:
    rows = context.calibration[:ROWS] if len(context.calibration) else context.example
    with torch.inference_mode():
        expected = net.eval()(rows)
        found = OnnxNet(content)(rows)
    return bool((found - expected).abs().max() <= CLOSE * expected.abs().max().clamp(min=1))
