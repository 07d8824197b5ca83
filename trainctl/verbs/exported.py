"""The ONNX file of a run's net, made once in a process: a search measures the same few runs beside each other."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from trainctl.compression import latency
from trainctl.run.run import Run
from trainctl.verbs import restore

KEPT = 4  # files held in memory
Key = tuple[Path, int, int]

_made: dict[Key, tuple[bytes | None, list[str]]] = {}


def as_onnx(run: Run, net: nn.Module, example: Tensor, notes: list[str] | None = None) -> bytes | None:
    """As `latency.as_onnx`, of the net that the run's weights give; these do not change once they are written."""
    weights, own = run.path / restore.WEIGHTS, list[str]()
    if not weights.exists():
        return latency.as_onnx(net, example, notes)
    stat = weights.stat()
    key = (weights.resolve(), stat.st_mtime_ns, stat.st_size)
    if key not in _made:
        _made[key] = latency.as_onnx(net, example, own), own
        while len(_made) > KEPT:
            del _made[next(iter(_made))]
    content, own = _made[key]
    if notes is not None:
        notes.extend(own)
    return content
