"""The ONNX file of a run's net, made once in a process."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.compression import latency
from trainctl.run.run import Run
from trainctl.verbs.once import Once

_made: Once[tuple[bytes | None, list[str]]] = Once()


def as_onnx(run: Run, net: nn.Module, example: Tensor, notes: list[str] | None = None) -> bytes | None:
    """As `latency.as_onnx`, of the net that the run's weights give."""

    def make() -> tuple[bytes | None, list[str]]:
        said: list[str] = []
        return latency.as_onnx(net, example, said), said

    content, said = _made.of(run, make)
    if notes is not None:
        notes.extend(said)
    return content
