"""A small residual convolutional net for small images."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs
from trainctl.models.layers import check_dims, check_dropout


class ResNet(nn.Sequential):
    """Images [B, channels, height, width] -> [B, spec.num_outputs].

    A 3x3 stem, then one stage per entry of `channels` of `num_blocks` basic blocks; every stage but the first halves
    the image; global average pooling and a linear head end it.
    """

    def __init__(self, spec: DataSpec, channels: list[int], num_blocks: int = 1, dropout: float = 0.0) -> None:
        inputs.require_kind(spec, "resnet", "image")
        width = check_dims("channels", channels)[0]
        stem = nn.Sequential(_conv(inputs.image_shape(spec)[0], width, 3, 1), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        for stage, out in enumerate(channels):
            for block in range(num_blocks):
                blocks.append(_Block(width, out, stride=2 if stage and not block else 1))
                width = out
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(check_dropout(dropout))]
        super().__init__(stem, *blocks, *head, nn.Linear(width, spec.num_outputs))


class _Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, out, 3, stride),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            _conv(out, out, 3, 1),
            nn.BatchNorm2d(out),
        )
        same = width == out and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(_conv(width, out, 1, stride), nn.BatchNorm2d(out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.skip(x))  # type: ignore[no-any-return]


def _conv(width: int, out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, stride, padding=kernel // 2, bias=False)
