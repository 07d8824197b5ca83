"""`torch.export` programs (.pt2) and bare weights (.safetensors)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainctl.compression import tensors
from trainctl.compression.blame import reason
from trainctl.compression.onnx_net import quietly
from trainctl.errors import UsageError
from trainctl.exporting.onnx_file import examples
from trainctl.exporting.ports import Feed, Runner
from trainctl.exporting.prepared import Whole
from trainctl.exporting.subjects import Subject
from trainctl.tasks.estimator import is_estimator

FACTS = "trainctl.json"


def write_program(subject: Subject, facts: Mapping[str, Any]) -> bytes:
    """A .pt2 file with a free batch size and the facts as `trainctl.json` in it; UsageError where torch cannot."""
    module = Whole(subject.front, subject.net, subject.tail) if subject.front is not None else subject.net
    given = examples(subject)
    try:
        with quietly():
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} for _ in given)
            program = torch.export.export(module.eval(), given, dynamic_shapes=shapes, strict=False)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # files of this machine
            content = io.BytesIO()
            torch.export.save(program, content, extra_files={FACTS: json.dumps(facts, ensure_ascii=False)})
    except Exception as error:
        raise UsageError(f"the net cannot be exported by torch.export: {reason(error, module, given)}") from error
    return content.getvalue()


def load_program(path: Path) -> Runner:
    """The program as a function, on the CPU."""
    with quietly():
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return _runner(module)


def write_weights(net: nn.Module, facts: Mapping[str, Any]) -> bytes:
    """The net's state_dict (of a quantized tensor its parts), with the facts as JSON in the header's metadata."""
    from safetensors.torch import save

    plain = tensors.flatten(net.state_dict())
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in plain.items()}
    return save(state, metadata={"trainctl": json.dumps(facts, ensure_ascii=False)})


def load_weights(path: Path, fresh: Callable[[], nn.Module]) -> Runner:
    """A freshly built net with the file's weights, as a function."""
    from safetensors.torch import load_file

    net, state = fresh(), load_file(path)
    if is_estimator(net):
        net.adopt(state)  # type: ignore[operator]  # only its weights tell how large it grew
    tensors.load(net, state)
    return _runner(net.eval())


def _runner(module: nn.Module) -> Runner:
    def run(feed: Feed) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = module(*(torch.from_numpy(values) for values in feed.values())).float().numpy()
        return result

    return run
