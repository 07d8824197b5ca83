"""What sets the nets apart, and the sentences for options they cannot take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainctl.data.spec import Category, DataSpec
from trainctl.errors import UsageError
from trainctl.models.cnn import CNN
from trainctl.models.linear import Linear
from trainctl.models.lstm import LSTM
from trainctl.models.mlp import MLP
from trainctl.models.resmlp import ResMLP
from trainctl.models.resnet import ResNet
from trainctl.models.transformer import Transformer

TABLE = DataSpec("table", "number", numeric=("n", "m"), categories=(Category("c", 3),))
IMAGE = DataSpec("image", "class", classes=tuple("0123456789"), image_shape=(1, 28, 28))
TEXT = DataSpec("sequence", "class", classes=("a", "b"), sequence_length=6, num_tokens=9)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_linear_is_a_line_with_one_weight_per_category() -> None:
    net = Linear(TABLE)
    assert size(net) == 2 + 1 + 3
    x = torch.tensor([[1.0, 2, 1], [3, 4, 1], [5, 6, 1]])
    low, mid, high = net(x).flatten().tolist()
    assert mid - low == pytest.approx(high - mid, abs=1e-5)


def test_mlp_leaves_out_what_is_switched_off() -> None:
    kinds = [type(layer).__name__ for layer in MLP(TABLE, [8, 8])]
    assert kinds == ["TableVector", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    kinds = [type(layer).__name__ for layer in MLP(TABLE, [8], dropout=0.5, activation="gelu", norm="batch")]
    assert kinds == ["TableVector", "Linear", "BatchNorm1d", "GELU", "Dropout", "Linear"]


def widths(net: nn.Module) -> list[int]:
    return [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)][:-1]


def test_the_number_of_layers_repeats_the_last_width_or_leaves_out() -> None:
    assert widths(MLP(TABLE, [16, 8])) == [16, 8]
    assert widths(MLP(TABLE, [16, 8], num_layers=4)) == [16, 8, 8, 8]
    assert widths(MLP(TABLE, [16, 8], num_layers=1)) == [16]


def test_the_cnn_of_before_has_the_weights_it_had() -> None:
    shapes = {name: list(weight.shape) for name, weight in CNN(IMAGE, [4, 8]).state_dict().items()}
    norms = {
        f"features.{i}.{name}": [] if name == "num_batches_tracked" else [width]
        for i, width in ((1, 4), (5, 8))
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    convolutions = {"features.0.weight": [4, 1, 3, 3], "features.4.weight": [8, 4, 3, 3]}
    head = {"head.2.weight": [128, 8 * 7 * 7], "head.2.bias": [128], "head.4.weight": [10, 128], "head.4.bias": [10]}
    assert shapes == {**convolutions, **norms, **head}


@pytest.mark.parametrize("block", ["plain", "residual", "separable"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_blocks_and_norms_of_the_cnn_train(block: str, norm: str) -> None:
    net = CNN(IMAGE, [4, 8, 8], num_blocks=2, block=block, kernel=5, norm=norm, activation="silu")
    net(torch.randn(6, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    kinds = [type(layer).__name__ for layer in net.modules()]
    assert kinds.count("Conv2d") == {"plain": 6, "residual": 14, "separable": 12}[block]
    norms = {"none": set(), "batch": {"BatchNorm2d"}, "layer": {"GroupNorm"}}
    assert {kind for kind in kinds if "Norm" in kind} == norms[norm]
    assert "ReLU" not in kinds


def test_a_separable_cnn_is_smaller() -> None:
    assert size(CNN(IMAGE, [32, 64, 128], block="separable")) < size(CNN(IMAGE, [32, 64, 128])) - 50_000


def test_small_nets_for_images_stay_small() -> None:
    assert 100_000 < size(CNN(IMAGE, [32, 64, 128])) < 500_000
    assert 100_000 < size(ResNet(IMAGE, [32, 64, 128])) < 500_000


def test_a_large_image_does_not_blow_up_the_cnn() -> None:
    large = DataSpec("image", "class", classes=("a", "b"), image_shape=(3, 224, 224))
    assert size(CNN(large, [32, 64, 128])) < 500_000


@pytest.mark.parametrize("net", [LSTM, Transformer])
def test_a_sequence_of_padding_only_gives_a_finite_output(net: Callable[[DataSpec], nn.Module]) -> None:
    assert net(TEXT)(torch.zeros(2, 6, dtype=torch.long)).isfinite().all()


def test_the_transformer_ignores_padding() -> None:
    net = Transformer(TEXT).eval()
    x = torch.tensor([[3, 4, 0, 0, 0, 0]])
    before = net(x)
    with torch.no_grad():
        net.tokens.position.weight[2:] += 1.0
    torch.testing.assert_close(net(x), before)


def test_lstm_drops_out_between_layers_and_after_them() -> None:
    net = LSTM(TEXT, num_layers=2, dropout=0.5)
    assert net.lstm.dropout == 0.5
    assert net(torch.randint(1, 9, (4, 6))).shape == (4, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: MLP(TABLE, [8], activation="rellu"),
            "model.activation=rellu is not one of relu, gelu, silu, tanh; did you mean `relu`?",
        ),
        (lambda: ResMLP(TABLE, norm="bach"), "model.norm=bach is not one of none, batch, layer; did you mean `batch`?"),
        (
            lambda: MLP(TABLE, [8], num_layers=0),
            "model.num_layers=0 must be 1 or more, or null for one layer per width",
        ),
        (
            lambda: CNN(IMAGE, [8], block="residul"),
            "model.block=residul is not one of plain, residual, separable; did you mean `residual`?",
        ),
        (lambda: CNN(IMAGE, [8], kernel=4), "model.kernel=4 is not one of 1, 3, 5, 7, e.g. model.kernel=3"),
        (lambda: CNN(IMAGE, [8], num_blocks=0), "model.num_blocks=0 must be 1 or more"),
        (
            lambda: MLP(TABLE, 64),
            "model.hidden_dims=64 must be a list of whole numbers of 1 or more, e.g. model.hidden_dims=[64,64]",
        ),
        (
            lambda: MLP(TABLE, []),
            "model.hidden_dims=[] must be a list of whole numbers of 1 or more, e.g. model.hidden_dims=[64,64]",
        ),
        (
            lambda: CNN(IMAGE, [8, 0]),
            "model.channels=[8, 0] must be a list of whole numbers of 1 or more, e.g. model.channels=[64,64]",
        ),
        (
            lambda: MLP(TABLE, [8], dropout=1.0),
            "model.dropout=1.0 must be at least 0 and below 1, e.g. model.dropout=0.1",
        ),
        (
            lambda: Transformer(TABLE, dim=30),
            "model.dim=30 must be a multiple of model.num_heads=4, e.g. model.dim=64",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(make: Callable[[], nn.Module], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        make()
    assert str(raised.value) == sentence
