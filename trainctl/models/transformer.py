"""A small pre-norm transformer encoder over tokens, table columns or image patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.models import inputs
from trainctl.models.layers import check_dropout


class Transformer(nn.Module):
    """x of any kind -> [B, spec.num_outputs], read from one extra token that attends to all the others.

    A sequence gives one token per position (padding is masked), a table one per column, an image one per patch of
    `patch` x `patch` pixels. UsageError when `dim` is no multiple of `num_heads`, or a patch is larger than the image.
    """

    def __init__(
        self,
        spec: DataSpec,
        dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        hidden_dim: int = 128,
        dropout: float = 0.0,
        patch: int = 4,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise UsageError(f"model.dim={dim} must be a multiple of model.num_heads={num_heads}, e.g. model.dim=64")
        self.tokens = inputs.tokens(spec, dim, patch)
        self.padded = spec.kind == "sequence"
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        check_dropout(dropout)
        self.blocks = nn.ModuleList(_Block(dim, num_heads, hidden_dim, dropout) for _ in range(num_layers))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, spec.num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x)
        h = torch.cat((self.query.expand(h.shape[0], 1, -1), h), 1)
        mask = functional.pad(x != 0, (1, 0), value=True)[:, None, None, :] if self.padded else None
        for block in self.blocks:
            h = block(h, mask)
        return self.head(h[:, 0])  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads  # a head keeps its width when dim shrinks
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        h = h + self.drop(self._attend(self.norm(h), mask))
        return h + self.drop(self.mlp(h))  # type: ignore[no-any-return]

    def _attend(self, h: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = h.shape
        query, key, value = (
            self.query_key_value(h).view(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.project(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
