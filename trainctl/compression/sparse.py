"""Weights with many zeros in fewer bytes on disk: one bit per entry for where, and the non-zero entries themselves.

A file in this form is an ordinary safetensors file; reading it costs the decoding that `measure` times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from trainctl.errors import RunError

MASK, VALUES, SHAPE = "|mask", "|values", "|shape"
OVERHEAD = 512  # bytes that two more entries and their names take in the file
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`name` -> `name|mask` (uint8, 8 entries each), `name|values` and `name|shape` where that is smaller.

    Zero is +0.0 alone: what `unpack` gives has the same bits, -0.0 and NaN too.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = _packed(name, tensor.detach().cpu().contiguous())
        packed |= found or {name: tensor.detach().cpu().contiguous().clone()}
    return packed


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    size = tensor.element_size()
    if size not in _BITS or tensor.is_complex() or not tensor.numel():
        return None
    bits = tensor.flatten().view(_BITS[size])
    there = bits != 0
    mask = torch.from_numpy(np.packbits(there.numpy(), bitorder="little"))
    values = bits[there].view(tensor.dtype)
    if values.numel() * size + mask.numel() + OVERHEAD >= tensor.numel() * size:
        return None
    return {name + MASK: mask, name + VALUES: values, name + SHAPE: torch.tensor(tensor.shape, dtype=torch.int64)}


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `pack`; tensors that were not packed are passed on. RunError when an entry is damaged."""
    state = {name: tensor for name, tensor in packed.items() if not name.endswith((MASK, VALUES, SHAPE))}
    for key in (name for name in packed if name.endswith(MASK)):
        name = key.removesuffix(MASK)
        try:
            state[name] = _unpacked(packed[key], packed[name + VALUES], packed[name + SHAPE].tolist())
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"the packed weights of `{name}` are damaged: {error}") from None
    return state


def _unpacked(mask: Tensor, values: Tensor, shape: list[int]) -> Tensor:
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if mask.dtype != torch.uint8 or min(shape, default=1) < 1 or (count + 7) // 8 != mask.numel():
        raise ValueError(f"{mask.numel()} bytes of mask do not fit the shape {shape}")
    there = np.unpackbits(mask.numpy(), count=count, bitorder="little").view(bool)
    if int(there.sum()) != values.numel():
        raise ValueError(f"{values.numel()} values for {int(there.sum())} places")
    whole = np.zeros(count, dtype=f"i{values.element_size()}")
    whole[there] = values.contiguous().view(_BITS[values.element_size()]).numpy()
    return torch.from_numpy(whole).view(values.dtype).view(shape)


def is_packed(state: Mapping[str, Tensor]) -> bool:
    """Whether there is anything for `unpack` to do."""
    return any(name.endswith(MASK) for name in state)


def measure(state: Mapping[str, Tensor], rounds: int = 5) -> dict[str, float]:
    """What packing gives and costs: `dense_bytes` and `sparse_bytes` of the file, `decode_ms` (median) in memory."""
    packed = pack(state)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        unpack(packed)
        times.append((time.perf_counter() - started) * 1000)
    dense = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return {"dense_bytes": len(save(dense)), "sparse_bytes": len(save(packed)), "decode_ms": round(median(times), 3)}
