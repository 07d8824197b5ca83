"""From the x that a DataSpec describes to what a net computes on; shared so that model and data combine freely.

`flat` gives one vector per sample for any kind of data, `tokens` a row of vectors; `require_kind` is the one sentence
for data that a model cannot take. Categorical columns share one embedding table: one lookup serves them all.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

MODELS_FOR = {
    "table": ("linear", "mlp", "resmlp", "transformer", "tree", "forest"),
    "image": ("linear", "mlp", "resmlp", "cnn", "resnet", "transformer"),
    "sequence": ("linear", "mlp", "resmlp", "lstm", "transformer"),
}
_PLURAL = {"table": "a table", "image": "images", "sequence": "sequences of tokens"}


def require_kind(spec: DataSpec, model: str, kind: str) -> None:
    """Raise UsageError, naming the models that fit, unless the data are of `kind`."""
    if spec.kind != kind:
        *rest, last = (f"model={name}" for name in MODELS_FOR[spec.kind])
        raise UsageError(
            f"model={model} needs {_PLURAL[kind]}, but the data are {_PLURAL[spec.kind]}; "
            f"use {', '.join(rest)} or {last}"
        )


class ColumnEmbedding(nn.Embedding):
    """Codes of all categorical columns, float or int [B, C] -> [B, C, dim], with one lookup.

    The vectors of code 0 (missing or unseen) start at zero: a value never met in training then says nothing.
    """

    offsets: Tensor

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sum(sizes), dim)
        starts = torch.tensor([0, *itertools.accumulate(sizes[:-1])])
        self.register_buffer("offsets", starts, persistent=False)
        with torch.no_grad():
            self.weight[starts] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes.long() + self.offsets)


class TableVector(nn.Module):
    """A table's x [B, columns] -> [B, width]: numeric columns as they are, then the embedded categories."""

    def __init__(self, spec: DataSpec, embedding_dim: int) -> None:
        super().__init__()
        self.num_numeric = len(spec.numeric)
        self.width = self.num_numeric + embedding_dim * len(spec.categories)
        self.embed = ColumnEmbedding([c.size for c in spec.categories], embedding_dim) if spec.categories else None

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is None:
            return x
        embedded = self.embed(x[:, self.num_numeric :]).flatten(1)
        return torch.cat((x[:, : self.num_numeric], embedded), 1) if self.num_numeric else embedded


class ImageVector(nn.Flatten):
    """An image [B, channels, height, width] -> [B, width], pixel by pixel."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.width = math.prod(image_shape(spec))


class SequenceVector(nn.Module):
    """Token ids [B, length] -> [B, width]: the mean of the embedded tokens, padding left out."""

    def __init__(self, spec: DataSpec, embedding_dim: int) -> None:
        super().__init__()
        self.width = embedding_dim
        self.embed = nn.Embedding(spec.num_tokens, embedding_dim, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        count = (x != 0).sum(1, keepdim=True).clamp(min=1)
        return self.embed(x).sum(1) / count  # type: ignore[no-any-return]


def flat(spec: DataSpec, embedding_dim: int, token_dim: int = 64) -> TableVector | ImageVector | SequenceVector:
    """The module that turns x of any kind into one vector per sample [B, module.width].

    `embedding_dim` is the width of each categorical column's vector, `token_dim` that of a sequence's tokens.
    """
    if spec.kind == "table":
        return TableVector(spec, embedding_dim)
    return ImageVector(spec) if spec.kind == "image" else SequenceVector(spec, token_dim)


def image_shape(spec: DataSpec) -> tuple[int, int, int]:
    """(channels, height, width) of an image spec."""
    assert spec.image_shape is not None
    return spec.image_shape


class Tokens(nn.Module, ABC):
    """x -> [B, num_tokens, dim]: a learned vector per position is added to what `_content` finds there."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.position = nn.Embedding(num_tokens, dim)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self._content(x) + self.position.weight

    @abstractmethod
    def _content(self, x: Tensor) -> Tensor:
        """The tokens [B, num_tokens, dim] before their positions are added."""


class ColumnTokens(Tokens):
    """A table's x [B, columns] -> [B, columns, dim]: a number scales its column's vector, a code picks one."""

    def __init__(self, spec: DataSpec, dim: int) -> None:
        super().__init__(spec.num_features, dim)
        self.num_numeric = len(spec.numeric)
        self.scale = nn.Embedding(self.num_numeric, dim) if spec.numeric else None
        self.embed = ColumnEmbedding([c.size for c in spec.categories], dim) if spec.categories else None

    def _content(self, x: Tensor) -> Tensor:
        parts = []
        if self.scale is not None:
            parts.append(x[:, : self.num_numeric, None] * self.scale.weight)
        if self.embed is not None:
            parts.append(self.embed(x[:, self.num_numeric :]))
        return torch.cat(parts, 1)


class PatchTokens(Tokens):
    """An image [B, channels, height, width] -> [B, patches, dim]; pixels beyond the last whole patch are left out."""

    def __init__(self, spec: DataSpec, dim: int, patch: int) -> None:
        channels, height, width = image_shape(spec)
        if not 1 <= patch <= min(height, width):
            raise UsageError(
                f"model.patch={patch} must be between 1 and {min(height, width)}, the image's smaller side"
            )
        super().__init__((height // patch) * (width // patch), dim)
        self.cut = nn.Conv2d(channels, dim, patch, stride=patch)

    def _content(self, x: Tensor) -> Tensor:
        return self.cut(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class SequenceTokens(Tokens):
    """Token ids [B, length] -> [B, length, dim]."""

    def __init__(self, spec: DataSpec, dim: int) -> None:
        super().__init__(spec.sequence_length, dim)
        self.embed = nn.Embedding(spec.num_tokens, dim, padding_idx=0)

    def _content(self, x: Tensor) -> Tensor:
        return self.embed(x)  # type: ignore[no-any-return]


def tokens(spec: DataSpec, dim: int, patch: int) -> Tokens:
    """The module that turns x of any kind into a row of vectors [B, tokens, dim]; `patch` matters to images only."""
    if spec.kind == "table":
        return ColumnTokens(spec, dim)
    return PatchTokens(spec, dim, patch) if spec.kind == "image" else SequenceTokens(spec, dim)
