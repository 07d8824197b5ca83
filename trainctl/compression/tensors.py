"""Tensors of a quantized net as a file holds them, and back: `flatten` a state dict, `load` it into a net.

A quantized weight of torchao is one tensor made of plain ones (`qdata`, `scale`, ...); in model.safetensors these stand
under their own names (`0.weight.qdata`). What else it consists of (block sizes, kinds of rounding) `restore` builds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def flatten(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain tensors that a state dict consists of, by name; plain ones pass unchanged, nothing is copied."""
    return {name: part for key, tensor in state.items() for name, part in _parts(key, tensor)}


def load(net: nn.Module, plain: Mapping[str, Tensor]) -> None:
    """Put what `flatten` gave into a net of the same structure, bit for bit.

    ValueError says in half a sentence what does not fit (see `mismatch`); the net is unchanged then.
    """
    own = net.state_dict()
    problem = mismatch(plain, own)
    if problem:
        raise ValueError(problem)
    net.load_state_dict({key: plain[key] for key in own if key in plain}, strict=False)
    with torch.no_grad():
        for key, tensor in (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)):
            if is_traceable_wrapper_subclass(tensor):
                for name, part in _parts(key, tensor):
                    part.copy_(plain[name])


def mismatch(plain: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What keeps the tensors of a run from filling the net whose state dict is `state`; empty when they fit."""
    own = flatten(state)
    for name in own:
        if name in plain and not takes(own[name], plain[name]):
            return f"`{name}` is {_shown(plain[name], own[name])} in the run and {_shown(own[name], plain[name])} in \
the config's net"
    missing, extra = sorted(set(own) - set(plain)), sorted(set(plain) - set(own))
    if missing:
        return f"the config's net has `{missing[0]}`, the run has not"
    return f"the run has `{extra[0]}`, the config's net has not" if extra else ""


def takes(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor of a net can hold one of a run.

    A lazy layer has no shape before its first weights; a full float takes what was trained in another precision.
    """
    if is_lazy(own):
        return True
    wide = own.dtype in (torch.float32, torch.float64) and given.dtype.is_floating_point
    return own.shape == given.shape and (own.dtype == given.dtype or wide)


def _shown(tensor: Tensor, other: Tensor) -> str:
    """Its shape, or its type when the shapes are equal."""
    return str(list(tensor.shape)) if tensor.shape != other.shape else str(tensor.dtype).removeprefix("torch.")


def _parts(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors below one entry, by name; one made of others may hold such again."""
    if not is_traceable_wrapper_subclass(tensor):
        yield key, tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(f"{key}.{name}", getattr(tensor, name))
