"""A run's net is exported once in a process, and again when its weights were written anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.verbs import exported, restore


def test_a_file_is_made_once_for_the_weights_of_a_run(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(path=tmp_path)
    net, x = nn.Linear(3, 2).eval(), torch.randn(2, 3)
    assert exported.as_onnx(run, net, x) != exported.as_onnx(run, nn.Linear(3, 2).eval(), x)  # no weights: nothing kept
    (tmp_path / restore.WEIGHTS).write_bytes(b"1")
    first = exported.as_onnx(run, net, x)
    assert first is not None and exported.as_onnx(run, net, x) is first
    (tmp_path / restore.WEIGHTS).write_bytes(b"22")
    assert exported.as_onnx(run, net, x) is not first


def test_why_there_is_none_is_said_each_time(tmp_path: Path) -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    run: Any = SimpleNamespace(path=tmp_path)
    (tmp_path / restore.WEIGHTS).write_bytes(b"333")
    for _ in range(2):
        notes: list[str] = []
        assert exported.as_onnx(run, Own(), torch.randn(2, 3), notes) is None
        assert len(notes) == 1 and notes[0].startswith("not timed in ONNX Runtime: ")
