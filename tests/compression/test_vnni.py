"""Weights of 7 bits where those of 8 may overflow, and what is said of 8 bits that come from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from trainctl.compression import vnni
from trainctl.compression.int8 import Int8
from trainctl.compression.int8_dynamic import Int8Dynamic
from trainctl.compression.int8_static import Int8Static

INT8 = onnx.TensorProto.INT8


def largest(content: bytes) -> int:
    """The largest code of a matrix in 8 bits, of those that are multiplied."""
    graph = onnx.load_model_from_string(content).graph
    found = [t for t in graph.initializer if t.data_type == INT8 and len(t.dims) > 1 and "embed" not in t.name]
    codes = [onnx.numpy_helper.to_array(t) for t in found]
    return max(int(np.abs(one.astype(int)).max()) for one in codes)


@pytest.mark.parametrize("kind", [Int8Static, Int8, Int8Dynamic])
@pytest.mark.parametrize(
    ("has", "reduce_range", "bits", "notes"),
    [(True, "auto", 8, []), (False, "auto", 7, [vnni.NO_VNNI]), (False, False, 8, []), (True, True, 7, [])],
)
def test_how_many_bits(
    bench: Callable[..., Any], exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: Any, has: bool,
    reduce_range: Any, bits: int, notes: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(vnni, "has_vnni", lambda: has)
    b, compressor = bench("mlp"), kind(reduce_range=reduce_range)
    net = compressor.finish(compressor.compress(exported("mlp"), b.context), b.context)
    assert compressor.plan["bits"] == bits and b.context.notes == notes
    assert largest(net.content) == vnni.TOP[bits]


@pytest.mark.parametrize("kind", [Int8Static, Int8, Int8Dynamic])
@pytest.mark.parametrize(("has", "bits", "said"), [(False, 8, 1), (False, 7, 0), (True, 8, 0)])
def test_eight_bits_from_elsewhere(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: Any, has: bool,
    bits: int, said: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(vnni, "has_vnni", lambda: has)
    kind(plan={"bits": bits, "backend": "onnxruntime"}).restore(bench("mlp").net)
    assert [record.message for record in caplog.records if record.name == "trainctl"] == [vnni.AT_RISK] * said
