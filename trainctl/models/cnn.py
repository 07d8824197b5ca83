"""A small convolutional net for small images, with the choices that architecture search varies."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError, did_you_mean
from trainctl.models import inputs
from trainctl.models.layers import activation, check_dims, check_dropout, norm2d

BLOCKS = ("plain", "residual", "separable")
KERNELS = (1, 3, 5, 7)


class CNN(nn.Module):
    """Images [B, channels, height, width] -> [B, spec.num_outputs].

    One stage per entry of `channels`: `num_blocks` blocks, halving while the image is at least 4 pixels high and wide;
    then one dense layer of `hidden_dim`. Larger images are averaged down to about 4x4 before it. A block is a
    convolution, norm and activation (plain), two of them around which the input is led (residual), or one that is
    split into a convolution per channel and one over the channels (separable). UsageError for unknown names.
    """

    def __init__(
        self,
        spec: DataSpec,
        channels: list[int],
        hidden_dim: int = 128,
        dropout: float = 0.0,
        num_blocks: int = 1,
        block: str = "plain",
        kernel: int = 3,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        inputs.require_kind(spec, "cnn", "image")
        check_block(block, kernel, num_blocks)
        width, *size = inputs.image_shape(spec)
        side = min(size)
        stages: list[nn.Module] = []
        for out in check_dims("channels", channels):
            for _ in range(num_blocks):
                stages += _block(block, width, out, kernel, activation, norm)
                width = out
            if side >= 4:
                stages.append(nn.MaxPool2d(2))
                size, side = [n // 2 for n in size], side // 2
        if side > 7:
            stages.append(nn.AvgPool2d(side // 4))
            size = [n // (side // 4) for n in size]
        self.features = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(check_dropout(dropout)),
            nn.Linear(width * size[0] * size[1], hidden_dim),
            _act(activation),
            nn.Linear(hidden_dim, spec.num_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def check_block(block: str, kernel: int, num_blocks: int) -> None:
    """UsageError for a block or kernel that there is not, or no block at all."""
    if block not in BLOCKS:
        raise UsageError(f"model.block={block} is not one of {', '.join(BLOCKS)}{did_you_mean(block, BLOCKS)}")
    if kernel not in KERNELS:
        raise UsageError(f"model.kernel={kernel} is not one of {', '.join(map(str, KERNELS))}, e.g. model.kernel=3")
    if num_blocks < 1:
        raise UsageError(f"model.num_blocks={num_blocks} must be 1 or more")


def _block(kind: str, width: int, out: int, kernel: int, act: str, norm: str) -> list[nn.Module]:
    """The modules of one block, [B, width, ...] -> [B, out, ...]; what is switched off is left out."""
    if kind == "residual":
        return [_Residual(width, out, kernel, act, norm)]
    if kind == "separable":
        return [
            *_conv(width, width, kernel, norm, groups=width),
            _act(act),
            *_conv(width, out, 1, norm),
            _act(act),
        ]
    return [*_conv(width, out, kernel, norm), _act(act)]


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, kernel: int, act: str, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(width, out, kernel, norm), _act(act), *_conv(out, out, kernel, norm))
        self.skip = nn.Identity() if width == out else nn.Sequential(*_conv(width, out, 1, norm))
        self.act = _act(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.skip(x))  # type: ignore[no-any-return]


def _conv(width: int, out: int, kernel: int, norm: str, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, and its norm; the norm's own shift takes the place of the bias."""
    conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups, bias=norm == "none")
    return [conv] if norm == "none" else [conv, norm2d(norm, out)]


def _act(name: str) -> nn.Module:
    return activation(name)
