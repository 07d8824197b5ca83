"""What cannot be written as ONNX is told with its operator and layer; what is written knows nothing of the machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainctl.compression.onnx_net import OnnxNet, session, to_onnx
from trainctl.errors import UsageError


class Svd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x[:, :, None] @ x[:, None, :])[1][:, :2]


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(4, 6)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 3, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = nn.utils.rnn.pack_padded_sequence(x[:, :, None], (x > 9).sum(1) + 2, True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(rows)[0], True, total_length=x.shape[1])[0].mean(1)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (Svd(), "no operator of ONNX does what `aten._linalg_svd` in the layer `1.1` (Svd) does; use another layer"),
        (Branch(), "the layer `1.1` (Branch) decides by the values that it computes, and a graph cannot branch on them;"
                   " use torch.where"),
        (Fixed(), "the layer `1.1` (Fixed) takes one batch size only; use x.shape[0] for it"),
        (Packed(), "the layer `1.1.rnn` (LSTM) is given a packed sequence, which a graph cannot hold; give it the "
                   "padded one"),
    ],
    ids=["operator", "branch", "batch", "packed"],
)
def test_a_layer_that_cannot_be_exported_is_named(layer: nn.Module, sentence: str, capfd) -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), layer))
    with pytest.raises(UsageError) as refused:
        to_onnx(net, torch.randn(4, 6))
    assert str(refused.value) == f"the net cannot be exported to ONNX: {sentence}"
    assert capfd.readouterr() == ("", "")


def test_the_batch_is_free_the_opset_as_asked_and_no_path_of_this_machine_is_inside() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4).eval(), nn.ReLU(), nn.Linear(4, 2))
    content = to_onnx(net, torch.randn(3, 6), opset=18)
    assert [part.training for part in net] == [True, False, True, True] and b".py" not in content
    runner, x = session(content, 1), torch.randn(5, 6)
    for rows in (x[:1], x):
        assert np.allclose(runner.run(None, {"x": rows.numpy()})[0], net(rows).detach(), atol=1e-6)
    assert torch.equal(OnnxNet(to_onnx(OnnxNet(content), x))(x), OnnxNet(content)(x))
