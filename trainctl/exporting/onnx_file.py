"""ONNX files: the graphs of columns, preprocessing, net and task in a row; metadata says what a stranger must know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainctl.compression.onnx_net import INPUT, OPSET, OUTPUT, OnnxNet, quietly, session, to_onnx, traced
from trainctl.compression.trees import is_tree
from trainctl.errors import UsageError
from trainctl.exporting.columns import RawColumns, apart
from trainctl.exporting.ports import Feed, Runner
from trainctl.exporting.prepared import Whole
from trainctl.exporting.subjects import Subject


def write(subject: Subject, opset: int | None, facts: Mapping[str, Any]) -> bytes:
    """The file's content; opset None: 20, or that of the run's own graph. UsageError where it cannot be written."""
    whole = not isinstance(subject.net, OnnxNet) and not is_tree(subject.net)
    pieces = _in_one(subject, opset or OPSET) if whole else _in_parts(subject, opset)
    model = _joined(pieces)
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.metadata_props[:]
    model.metadata_props.extend(_entries(facts))
    model.graph.name, model.producer_name, model.producer_version = "net", "trainctl", str(facts["trainctl"])
    try:
        return bytes(model.SerializeToString())
    except ValueError:  # protobuf's limit
        raise UsageError("the net is larger than the 2 GB that an ONNX file holds; use `format=torch_export`") from None


def load(path: Path) -> Runner:
    """The file by ONNX Runtime, on as many threads as torch has now."""
    runner = session(path.read_bytes(), torch.get_num_threads())

    def run(feed: Feed) -> np.ndarray:
        result: np.ndarray = runner.run(None, feed)[0]
        return result

    return run


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators in a model."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def _in_one(subject: Subject, opset: int) -> list[Any]:
    """The columns' graph, where there is one, and all the rest in one graph."""
    module = Whole(subject.front, subject.net, subject.tail) if subject.front is not None else subject.net
    ports = subject.columns.tensors() if subject.columns is not None else subject.inputs
    names = tuple(port.name for port in ports)
    return [*_columns(subject, opset), _model(traced(module, examples(subject), names, subject.output.name, opset))]


def _in_parts(subject: Subject, opset: int | None) -> list[Any]:
    """A graph that is not traced (the run's own file, or trees) between those of what comes before and after it."""
    given = examples(subject)
    with torch.no_grad():
        x = Whole(subject.front)(*given)
        y = subject.net(x)
    own = _model(to_onnx(subject.net, x, opset or OPSET))
    written = opset_of(own)
    if opset not in (None, written):
        raise UsageError(
            f"the run's model is an ONNX file in opset {written} already, which is shipped as it is; "
            f"leave out `opset={opset}`"
        )
    if subject.front is None or subject.tail is None:
        return [own]
    ports = subject.columns.tensors() if subject.columns is not None else subject.inputs
    before = traced(Whole(subject.front), given, tuple(port.name for port in ports), INPUT, written)
    after = traced(Whole(tail=subject.tail), (y,), (OUTPUT,), subject.output.name, written)
    pieces = [*_columns(subject, written), _model(before), own, _model(after)]
    for piece in pieces:
        piece.ir_version = max(one.ir_version for one in pieces)
    return pieces


def _columns(subject: Subject, opset: int) -> list[Any]:
    return [subject.columns.graph(opset)] if isinstance(subject.columns, RawColumns) else []


def _model(content: bytes) -> Any:
    import onnx

    return onnx.load_from_string(content)


def examples(subject: Subject) -> tuple[Tensor, ...]:
    """Two rows of zeros for the exporter: it looks at shapes alone, and no row of the data belongs in a file."""
    if subject.columns is not None:
        shapes = [(port.dtype, port.shape[1:]) for port in subject.columns.tensors()]
    else:
        shapes = [(port.dtype, port.shape[1:]) for port in subject.inputs]
    return tuple(torch.zeros((2, *(int(size) for size in shape)), dtype=getattr(torch, name)) for name, shape in shapes)


def _joined(pieces: list[Any]) -> Any:
    """Models in a row as one: what each gives goes into the next, in order. Its inputs may have any names."""
    from onnx import compose

    model, own = pieces[0], apart(value.name for value in pieces[0].graph.input)
    for number, piece in enumerate(pieces[1:], start=1):
        is_last = piece is pieces[-1]
        named = compose.add_prefix(piece, f"{own}{number}/", rename_inputs=True, rename_outputs=not is_last)
        edges = zip(model.graph.output, named.graph.input, strict=True)
        with quietly():
            model = compose.merge_models(model, named, [(given.name, taken.name) for given, taken in edges])
    return model


def _entries(facts: Mapping[str, Any]) -> list[Any]:
    from onnx import StringStringEntryProto

    texts = {key: fact if isinstance(fact, str) else json.dumps(fact) for key, fact in facts.items()}
    return [StringStringEntryProto(key=key, value=text) for key, text in texts.items()]
