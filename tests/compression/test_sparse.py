"""Packed weights: the same bits in fewer bytes, and damage is told."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from trainctl.compression.sparse import is_packed, measure, pack, unpack
from trainctl.errors import RunError


def sparse_state(share: float = 0.9) -> dict[str, Tensor]:
    """Weights of several types with a share of zeros, and what does not pay."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 3, 5, 7, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < share] = 0
    weight[0, 0, 0, :3] = torch.tensor([-0.0, float("nan"), float("-inf")])
    return {
        "conv.weight": weight,
        "half.weight": weight.to(torch.bfloat16),
        "wide.weight": weight.double(),
        "codes": (weight.nan_to_num(1, 1, 1) * 50).to(torch.int8),
        "flags": weight != 0,
        "view.weight": weight.transpose(0, 1),
        "zeros": torch.zeros(5000),
        "bias": torch.randn(64, generator=generator),
        "dense.weight": torch.randn(64, 64, generator=generator),
        "steps": torch.tensor(7),
        "empty": torch.empty(0, 4),
    }


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_unpacked_weights_have_the_same_bits_after_a_trip_through_a_file() -> None:
    state = sparse_state()
    packed = load(save(pack(state)))
    assert is_packed(packed) and not is_packed(state)
    again = unpack(packed)
    assert set(again) == set(state)
    for name, tensor in state.items():
        found = again[name]
        assert (found.dtype, found.shape, bits(found)) == (tensor.dtype, tensor.shape, bits(tensor)), name


def test_only_what_pays_is_packed() -> None:
    packed = pack(sparse_state())
    assert {"bias", "dense.weight", "steps", "empty"} <= set(packed)
    assert {"conv.weight|mask", "conv.weight|values", "conv.weight|shape"} <= set(packed)


def test_packing_is_measured_in_bytes_and_milliseconds() -> None:
    weight = torch.randn(512, 512)
    weight[torch.rand(weight.shape) < 0.9] = 0
    found = measure({"weight": weight})
    assert found["dense_bytes"] > 7 * found["sparse_bytes"] and found["decode_ms"] > 0


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("w|values", torch.ones(3), "3 values for 20 places"),
        ("w|mask", torch.zeros(4, dtype=torch.uint8), "4 bytes of mask do not fit the shape [40, 50]"),
        ("w|shape", torch.tensor([2**40, 2**40]), f"250 bytes of mask do not fit the shape [{2**40}, {2**40}]"),
        ("w|shape", torch.tensor([-40, -50]), "250 bytes of mask do not fit the shape [-40, -50]"),
        ("w|shape", None, "'w|shape'"),
    ],
)
def test_damage_is_told_with_the_name(key: str, value: Tensor | None, told: str) -> None:
    weight = torch.zeros(40, 50)
    weight[0, :20] = 1.0
    packed = pack({"w": weight})
    if value is None:
        del packed[key]
    else:
        packed[key] = value
    with pytest.raises(RunError) as error:
        unpack(packed)
    assert str(error.value) == f"the packed weights of `w` are damaged: {told}"
