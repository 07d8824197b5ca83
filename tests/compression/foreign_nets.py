"""Nets as strangers write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_TOKENS, LENGTH, CLASSES = 50, 12, 5


class _Basic(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class VisionNet(nn.Module):
    """Like torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(_Basic(16, 16, 1), _Basic(16, 16, 1))
        self.layer2 = nn.Sequential(_Basic(16, 32, 2), _Basic(32, 32, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))  # type: ignore[no-any-return]


class Branches(nn.Module):
    """Concatenation, groups of channels, a gate of two halves and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 5, padding=2)
        self.c, self.grouped = nn.Conv2d(20, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.norm, self.gate = nn.GroupNorm(4, 16), nn.Conv2d(16, 32, 1)
        self.up, self.fc = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.c(torch.cat((self.a(x), self.b(x)), 1)))
        value, gate = self.gate(functional.relu(self.norm(self.grouped(h)))).chunk(2, 1)
        return self.fc(self.up(value * gate.sigmoid()).mean((2, 3)))  # type: ignore[no-any-return]


class TorchEncoder(nn.Module):
    """torch's own transformer layers (nn.MultiheadAttention)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(NUM_TOKENS, 32), nn.Parameter(torch.randn(1, LENGTH, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(x) + self.position).mean(1))  # type: ignore[no-any-return]


class OwnAttention(nn.Module):
    """Queries, keys and values of their own, and a width beside the number of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.num_heads, self.all_heads = nn.Embedding(NUM_TOKENS, 32), 4, 32
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        q, k, v = (
            f(h).view(len(x), LENGTH, self.num_heads, self.all_heads // self.num_heads).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        seen = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        h = h + self.out(seen.transpose(1, 2).reshape(len(x), LENGTH, self.all_heads))
        return self.fc(h.mean(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """The last output of a GRU of two layers and directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_TOKENS, 16, padding_idx=0)
        self.gru = nn.GRU(16, 24, 2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(self.embed(x))[0][:, -1])  # type: ignore[no-any-return]


class Shuffled(nn.Module):
    """Channels change places, which no dependency graph follows; then they are taken as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h.view(len(x), 2, h.shape[1] // 2, *h.shape[2:]).transpose(1, 2).reshape(h.shape)
        return self.fc(self.second(h).relu().mean((2, 3)))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """The output layer's weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(NUM_TOKENS, 16), nn.Linear(16, NUM_TOKENS, bias=False)
        self.fc.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x).mean(1))  # type: ignore[no-any-return]


class NoBatch(nn.Module):
    """Runs no forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("call `generate` instead")
