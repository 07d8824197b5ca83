"""A small convolutional net for small images."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs
from trainctl.models.layers import check_dims, check_dropout


class CNN(nn.Module):
    """Images [B, channels, height, width] -> [B, spec.num_outputs].

    One stage per entry of `channels`: 3x3 convolution, batch norm, ReLU, halving while the image is at least 4 pixels
    high and wide; then one dense layer of `hidden_dim`. Larger images are averaged down to about 4x4 before it.
    """

    def __init__(self, spec: DataSpec, channels: list[int], hidden_dim: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        inputs.require_kind(spec, "cnn", "image")
        width, *size = inputs.image_shape(spec)
        side = min(size)
        stages: list[nn.Module] = []
        for out in check_dims("channels", channels):
            stages += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
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
            nn.ReLU(),
            nn.Linear(hidden_dim, spec.num_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]
