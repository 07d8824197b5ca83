"""A residual multilayer perceptron: deeper than `mlp` without becoming harder to train."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs
from trainctl.models.layers import activation, check_dropout, norm


class ResMLP(nn.Sequential):
    """x of any kind -> [B, spec.num_outputs]: a dense layer to `width`, `num_blocks` residual blocks, a head.

    A block is norm, Linear to `hidden_dim`, activation, dropout, Linear back. UsageError for an unknown `activation`
    or `norm` and a `dropout` outside [0, 1).
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 128,
        hidden_dim: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
        activation: str = "relu",
        norm: str = "layer",
        embedding_dim: int = 8,
        token_dim: int = 64,
    ) -> None:
        vector = inputs.flat(spec, embedding_dim, token_dim)
        blocks = [_Block(width, hidden_dim, dropout, activation, norm) for _ in range(num_blocks)]
        super().__init__(
            vector,
            nn.Linear(vector.width, width),
            *blocks,
            _act(width, norm, activation),
            nn.Linear(width, spec.num_outputs),
        )


class _Block(nn.Sequential):
    def __init__(self, width: int, hidden: int, dropout: float, act: str, norm_name: str) -> None:
        super().__init__(
            norm(norm_name, width),
            nn.Linear(width, hidden),
            activation(act),
            nn.Dropout(check_dropout(dropout)),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


def _act(width: int, norm_name: str, act: str) -> nn.Sequential:
    return nn.Sequential(norm(norm_name, width), activation(act))
