"""The exporter's table of operators is made once, gives the same files, and belongs to nobody."""

from __future__ import annotations

import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from trainctl.compression import exporter
from trainctl.compression.onnx_net import to_onnx


def test_exports_share_the_table_and_give_the_same_file() -> None:
    net, x, plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3), ONNXRegistry.__dict__
    before, first = plain["from_torchlib"], to_onnx(net, x)
    misses = exporter._table.cache_info().misses
    assert to_onnx(net, x) == first and exporter._table.cache_info().misses == misses
    assert plain["from_torchlib"] is before


def test_what_one_export_adds_the_next_does_not_see() -> None:
    with exporter.operators_remembered():
        one, other = ONNXRegistry.from_torchlib(), ONNXRegistry.from_torchlib()
    operator = next(iter(one.functions))
    one.functions[operator].clear()
    assert other.functions[operator] and len(other.functions) > 500
    assert one.opset_version == other.opset_version
