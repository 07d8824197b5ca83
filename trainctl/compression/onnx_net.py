"""A net as ONNX: `to_onnx` writes it, `OnnxNet` runs it with ONNX Runtime on the CPU as if it were a torch module."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.compression.base import Artifact
from trainctl.errors import RunError, UsageError

OPSET = 20
INPUT, OUTPUT = "x", "y"


class OnnxNet(Artifact):
    """x [B, ...] -> output [B, spec.num_outputs] by ONNX Runtime, on the threads that torch had when it was loaded."""

    file = "model.onnx"

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self._session: Any = None
        if content:
            self.load(content)

    def load(self, content: bytes) -> None:
        """Take the content of model.onnx; RunError when ONNX Runtime cannot run it."""
        try:
            self._session = session(content, torch.get_num_threads())
        except Exception as error:
            raise RunError(f"`{self.file}` cannot be run: {str(error).splitlines()[0]}") from error
        self.content = content

    def forward(self, x: Tensor) -> Tensor:
        if self._session is None:
            raise RunError(f"`{self.file}` is not loaded; name a run that was completed")
        return torch.from_numpy(self._session.run(None, {INPUT: x.detach().cpu().contiguous().numpy()})[0])


def session(content: bytes, threads: int, optimized: bool = True) -> Any:
    """An InferenceSession on the CPU with `threads` threads, silent."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def to_onnx(net: nn.Module, example: Tensor) -> bytes:
    """The net in evaluation mode as ONNX with a free batch size; `example` is [2 or more, ...].

    UsageError names the operator, and the layer where torch tells it, when the net cannot be exported.
    """
    if isinstance(net, OnnxNet):
        return net.content
    was_training = net.training
    try:
        with quietly():
            program = torch.onnx.export(
                net.eval(), (example,), dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise UsageError(f"the net cannot be exported to ONNX: {_reason(error)}") from error
    finally:
        net.train(was_training)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The exporter tells its progress on stdout and in warnings; a run does not."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
