"""Activations and norms by name: the small choices that several nets offer in YAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
NORMS_2D: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),  # over all channels and pixels of an image
}


def activation(name: str) -> nn.Module:
    """A new activation module: relu, gelu, silu or tanh; UsageError for another name."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UsageError(f"model.activation={name} is not one of {known}{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def norm(name: str, width: int) -> nn.Module:
    """A new norm over `width` features: none, batch or layer; UsageError for another name."""
    return _norm(name, width, NORMS)


def norm2d(name: str, channels: int) -> nn.Module:
    """A new norm over the `channels` of images [B, channels, height, width]: none, batch or layer."""
    return _norm(name, channels, NORMS_2D)


def _norm(name: str, width: int, known: dict[str, Callable[[int], nn.Module]]) -> nn.Module:
    if name not in known:
        raise UsageError(f"model.norm={name} is not one of {', '.join(known)}{did_you_mean(name, known)}")
    return known[name](width)


def check_dims(key: str, dims: Sequence[int]) -> list[int]:
    """`dims` as a list when it holds whole numbers of 1 or more, at least one of them; else UsageError."""
    widths = list(dims) if isinstance(dims, Sequence) else []
    if not widths or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise UsageError(f"model.{key}={dims} must be a list of whole numbers of 1 or more, e.g. model.{key}=[64,64]")
    return widths


def check_dropout(dropout: float) -> float:
    """`dropout` when it is in [0, 1), else UsageError."""
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout={dropout} must be at least 0 and below 1, e.g. model.dropout=0.1")
    return dropout
