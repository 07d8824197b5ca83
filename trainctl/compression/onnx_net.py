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
from trainctl.compression.exporter import operators_remembered
from trainctl.compression.trees import is_tree
from trainctl.compression.trees_onnx import tree_to_onnx
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
        output = self._session.run(None, {INPUT: x.detach().cpu().contiguous().numpy()})[0]
        return torch.from_numpy(output).to(x.device)


def session(content: bytes, threads: int, optimized: bool = True) -> Any:
    """An InferenceSession on the CPU with `threads` threads, silent."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def to_onnx(net: nn.Module, example: Tensor, opset: int = OPSET) -> bytes:
    """The net in evaluation mode as ONNX with a free batch size; `example` is [2 or more, ...].

    UsageError names the operator and the layer when the net cannot be exported.
    """
    if is_tree(net):
        return tree_to_onnx(net, INPUT, OUTPUT, opset)
    return net.content if isinstance(net, OnnxNet) else traced(net, (example,), (INPUT,), OUTPUT, opset)


def traced(
    module: nn.Module, examples: tuple[Tensor, ...], inputs: tuple[str, ...], output: str, opset: int = OPSET
) -> bytes:
    """As `to_onnx`, for a module of one output and any number of inputs; each example is [2 or more, ...]."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        with quietly(), operators_remembered():
            batch = torch.export.Dim("batch")
            program = torch.onnx.export(
                module.eval(), examples, dynamo=True, opset_version=opset, input_names=inputs, output_names=[output],
                dynamic_shapes=tuple({0: batch} for _ in examples), verbose=False,
            )  # fmt: skip
        assert program is not None
        model = program.model_proto
        if not all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input):
            raise ValueError("Constraints violated (batch): the exporter went on with the example's batch size")
    except Exception as error:
        from trainctl.compression.blame import reason

        raise UsageError(f"the net cannot be exported to ONNX: {reason(error, module, examples)}") from error
    finally:
        for part, mode in modes:
            part.training = mode
    written = next(entry.version for entry in model.opset_import if not entry.domain)
    if written != opset:
        raise UsageError(f"the net cannot be written in opset {opset}, only in {written}; choose `opset={written}`")
    without_places(model)
    return bytes(model.SerializeToString())


def without_places(model: Any) -> None:
    """Take out where in which file on this machine each operator comes from; the layer's name stays."""
    kept = ("namespace", "pkg.torch.onnx.name_scopes")
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        found = [entry for entry in part.metadata_props if entry.key in kept]
        del part.metadata_props[:]
        part.metadata_props.extend(found)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The exporter tells its progress on stdout, its failures on stderr, and much in warnings; a run does not."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        aside = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
