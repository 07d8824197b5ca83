"""A multilayer perceptron: the default net."""

from __future__ import annotations

from torch import nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.models import inputs
from trainctl.models.layers import activation, check_dims, check_dropout, norm


class MLP(nn.Sequential):
    """x of any kind -> [B, spec.num_outputs] through dense layers of `hidden_dims`.

    `num_layers`: how many there are (the last width is repeated, or what is beyond left out); null: one per width.
    `embedding_dim` is the width of each categorical column's vector. Images are flattened, tokens (`token_dim` wide)
    averaged. UsageError for an unknown `activation` or `norm`, an empty `hidden_dims`, a `dropout` outside [0, 1).
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden_dims: list[int],
        dropout: float = 0.0,
        activation: str = "relu",
        norm: str = "none",
        embedding_dim: int = 8,
        token_dim: int = 64,
        num_layers: int | None = None,
    ) -> None:
        vector = inputs.flat(spec, embedding_dim, token_dim)
        layers: list[nn.Module] = [vector]
        width = vector.width
        check_dropout(dropout)
        for hidden in _widths(check_dims("hidden_dims", hidden_dims), num_layers):
            layers += _dense(width, hidden, dropout, activation, norm)
            width = hidden
        super().__init__(*layers, nn.Linear(width, spec.num_outputs))


def _widths(dims: list[int], num_layers: int | None) -> list[int]:
    if num_layers is None:
        return dims
    if num_layers < 1:
        raise UsageError(f"model.num_layers={num_layers} must be 1 or more, or null for one layer per width")
    return [*dims, *[dims[-1]] * num_layers][:num_layers]


def _dense(width: int, hidden: int, dropout: float, act: str, norm_name: str) -> list[nn.Module]:
    """Linear, norm, activation, dropout; what is switched off is left out, since each call costs time."""
    layers = [nn.Linear(width, hidden), norm(norm_name, hidden), activation(act)]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return [layer for layer in layers if not isinstance(layer, nn.Identity)]
