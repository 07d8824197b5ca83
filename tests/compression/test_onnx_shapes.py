"""Operators about shapes are settled beforehand, for every batch size, and the outputs stay."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor, nn

from trainctl.compression import onnx_shapes
from trainctl.compression.onnx_net import OnnxNet, traced


class Recurrent(nn.Module):
    """x [B, 5, 8] -> [B, 3] by an LSTM or GRU whose first state is zero, or one that is learned."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], learned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = kind(8, 4, 2, batch_first=True, bidirectional=True)
        self.first = nn.Parameter(torch.randn(4, 1, 4)) if learned else None
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = None if self.first is None else self.first.expand(-1, x.shape[0], -1).contiguous()
        state = (first, first) if first is not None and isinstance(self.cells, nn.LSTM) else first
        return self.head(self.cells(x, state)[0].mean(1))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "learned", "left"), [(nn.LSTM, False, 0), (nn.GRU, False, 0), (nn.LSTM, True, 1)])
def test_shapes_and_zeros_are_not_worked_out_again(kind, learned: bool, left: int) -> None:
    net = Recurrent(kind, learned).eval()
    content = traced(net, (torch.randn(2, 5, 8),), ("x",), "y")
    model = onnx_shapes.settle(onnx.load_model_from_string(content))
    assert len([node for node in model.graph.node if node.op_type == "Shape"]) <= left
    assert not [node for node in model.graph.node if node.op_type == "Expand"] or learned
    settled = OnnxNet(model.SerializeToString())
    for batch in (1, 2, 7):
        x = torch.randn(batch, 5, 8)
        torch.testing.assert_close(settled(x), net(x), atol=1e-5, rtol=1e-5)


class Mean(nn.Module):
    """Images [B, C, H, W] -> the mean over `axes`, between two convolutions' worth of other numbers."""

    def __init__(self, axes: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.conv, self.axes, self.keepdim = nn.Conv2d(2, 4, 3), axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.conv(x).mean(self.axes, keepdim=self.keepdim)


@pytest.mark.parametrize(
    ("axes", "keepdim", "pooled"),
    [((2, 3), True, True), ((-1, -2), False, True), ((3,), True, False), ((1, 2), False, False)],
)
def test_a_mean_over_all_places_is_a_pooling(axes: tuple[int, ...], keepdim: bool, pooled: bool) -> None:
    net = Mean(axes, keepdim).eval()
    model = onnx_shapes.settle(onnx.load_model_from_string(traced(net, (torch.randn(2, 2, 6, 7),), ("x",), "y")))
    operators = [node.op_type for node in model.graph.node]
    assert ("GlobalAveragePool" in operators, "ReduceMean" in operators) == (pooled, not pooled)
    for batch in (1, 3):
        x = torch.randn(batch, 2, 6, 7)
        torch.testing.assert_close(OnnxNet(model.SerializeToString())(x), net(x), atol=1e-5, rtol=1e-5)
