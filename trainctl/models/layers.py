"""Activations and norms by name: the small choices that several nets offer in YAML."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from trainctl.errors import UsageError, did_you_mean

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


def activation(name: str) -> nn.Module:
    """A new activation module: relu, gelu, silu or tanh; UsageError for another name."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UsageError(f"model.activation={name} is not one of {known}{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def norm(name: str, width: int) -> nn.Module:
    """A new norm over `width` features: none, batch or layer; UsageError for another name."""
    if name not in NORMS:
        raise UsageError(f"model.norm={name} is not one of {', '.join(NORMS)}{did_you_mean(name, NORMS)}")
    return NORMS[name](width)


def check_dims(key: str, dims: list[int]) -> list[int]:
    """`dims` as a list of ints when there is at least one and all are >= 1, else UsageError."""
    if not dims or any(dim < 1 for dim in dims):
        raise UsageError(
            f"model.{key}={list(dims)} must hold at least one width, each 1 or more, e.g. model.{key}=[64,64]"
        )
    return list(dims)


def check_dropout(dropout: float) -> float:
    """`dropout` when it is in [0, 1), else UsageError."""
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout={dropout} must be at least 0 and below 1, e.g. model.dropout=0.1")
    return dropout
