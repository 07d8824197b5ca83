"""From the x that a DataSpec describes to what a net computes on; shared so that model and data combine freely.

`flat` gives one vector per sample for any kind of data, `tokens` a row of vectors; `require_kind` is the one sentence
for data that a model cannot take. Categorical columns share one embedding table: one lookup serves them all.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

MODELS_FOR = {
    "table": ("linear", "mlp", "resmlp", "transformer"),
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
