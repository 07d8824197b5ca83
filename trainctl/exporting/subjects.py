"""What is exported of a run: the net as it is, or with what happens before and after it, and rows to compare on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainctl.data.base import Chunk, Data
from trainctl.data.columns import typed
from trainctl.data.spec import DataSpec
from trainctl.data.table import locate
from trainctl.data.tabular import Tabular
from trainctl.errors import DataError, UsageError
from trainctl.exporting.columns import RawColumns
from trainctl.exporting.ports import BATCH, Port, Sample
from trainctl.exporting.prepared import Calls, TableRows
from trainctl.tasks.base import Task

STREAM_ROWS = 4096
REFERENCE_ROWS = 256  # at a time, for what the run itself gives


@dataclass(frozen=True)
class Subject:
    """inputs -> front -> x -> net -> y -> tail -> output; without front and tail it is the net alone.

    inputs: those of the file. columns: for tables in ONNX, what makes the front's tensors of the raw columns.
    facts: what else a stranger must know, JSON.
    """

    net: nn.Module
    inputs: tuple[Port, ...]
    output: Port
    sample: Sample
    front: nn.Module | None = None
    tail: Callable[[Tensor], Tensor] | None = None
    columns: RawColumns | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def subject(task: Task, data: Any, rows: int, preprocessing: bool, texts: bool) -> Subject:
    """What to export; `texts`: the format knows strings. At most `rows` rows of val (of train, where val has none).

    UsageError where there is no preprocessing to include.
    """
    if not preprocessing:
        return _net_alone(task, data, rows)
    if task.spec.kind == "sequence":
        raise UsageError(
            "the run's data are token ids, which the net takes as they are: there is no preprocessing of text to "
            "include; leave out `preprocessing=true`"
        )
    if task.spec.kind == "image":
        return _images(task, data, rows)
    if not isinstance(data, Tabular):
        raise UsageError(
            f"{type(data).__name__} has no raw columns whose preprocessing could be included; "
            "leave out `preprocessing=true`"
        )
    return _table(task, data, rows, texts)


def _net_alone(task: Task, data: Any, rows: int) -> Subject:
    spec = task.spec
    x, split = first_rows(data, rows)
    x = task.inputs(x)
    facts: dict[str, Any] = {}
    if spec.kind == "image":
        meaning = "pixels / 255, then (x - mean) / std per channel" if spec.mean else "pixels / 255"
        facts = {"mean": list(spec.mean), "std": list(spec.std)}
    elif spec.kind == "sequence":
        meaning = f"token ids below {spec.num_tokens}, 0 is padding"
    else:
        meaning = "`columns` as the run's preprocessing makes them: numbers, then category codes"
        facts = {"columns": [*spec.numeric, *(category.name for category in spec.categories)]}
        if isinstance(data, Tabular) and data.preprocessing is not None:
            facts["vocabulary"] = data.preprocessing.vocabulary
    if spec.target == "number":
        facts |= {"target_mean": spec.target_mean, "target_std": spec.target_std}
        gives = "value = y * target_std + target_mean"
    else:
        gives = "a logit per class; softmax gives probabilities"
    expected, alone = reference(task.net, x)
    return Subject(
        task.net,
        (Port("x", str(x.dtype).removeprefix("torch."), (BATCH, *x.shape[1:]), meaning),),
        Port("y", str(task.net(x[:1]).dtype).removeprefix("torch."), (BATCH, *expected.shape[1:]), gives),
        Sample({"x": x.numpy()}, expected, alone, split),
        facts=facts,
    )


def _images(task: Task, data: Any, rows: int) -> Subject:
    x, split = first_rows(data, rows)
    if x.dtype != torch.uint8:
        raise UsageError(
            f"{type(data).__name__} gives images as {str(x.dtype).removeprefix('torch.')}, so there is no scaling of "
            "uint8 to include; leave out `preprocessing=true`"
        )
    return Subject(
        task.net,
        (Port("image", "uint8", (BATCH, *x.shape[1:]), "pixels 0 to 255: channels, height, width"),),
        output(task.spec),
        Sample({"image": x.numpy()}, *reference(_outputs(task), x), split),
        Calls(task.inputs),
        task.predict_outputs,
    )


def _table(task: Task, data: Tabular, rows: int, texts: bool) -> Subject:
    fitted = data.preprocessing
    assert fitted is not None
    chunks, split = raw_rows(data, rows)
    frame = chunks.frame
    raw = RawColumns.of(data.columns, fitted.vocabulary, frame)
    gives = output(task.spec)
    if texts and gives.name in (port.name for port in raw.ports()):
        raise UsageError(
            f"the column `{gives.name}` has the name of the exported file's output; rename it and train again"
        )
    values = typed(frame, data.columns, "row {}".format)
    return Subject(
        task.net,
        raw.ports() if texts else raw.tensors(),
        gives,
        Sample(raw.feed(values, frame) if texts else raw.stacked(values),
               *reference(_outputs(task), chunks.x), split),
        TableRows(fitted, raw.numbers),
        task.predict_outputs,
        raw if texts else None,
        {} if texts else {"vocabulary": fitted.vocabulary},
    )  # fmt: skip


def output(spec: DataSpec) -> Port:
    """What `trainctl predict` gives for a row."""
    if spec.target == "number":
        return Port("value", "float32", (BATCH,), f"`{spec.target_name}` in its own unit")
    return Port("probabilities", "float32", (BATCH, len(spec.classes)), "of each of `classes`")


def first_rows(data: Any, count: int) -> tuple[Tensor, str]:
    """The first rows of val, or of train where val is empty; x as the data module holds it."""
    if not isinstance(data, Data):
        return _of_batches(data, count), "val"
    split = "val" if len(data.split("val")) else "train"
    x = data.split(split).x
    return x.index_select(0, torch.arange(min(count, len(data.split(split))))), split


def _of_batches(data: Any, count: int) -> Tensor:
    """The first rows of a foreign data module's validation batches."""
    data.prepare_data()
    data.setup("validate")
    found: list[Tensor] = []
    for batch in data.val_dataloader():
        found.append(batch[0])
        if sum(map(len, found)) >= count:
            break
    if not found:
        raise DataError(f"{type(data).__name__} has no validation rows to compare the exported file on")
    return torch.cat(found)[:count]


def raw_rows(data: Tabular, count: int) -> tuple[Chunk, str]:
    """As `first_rows`, read from the table's file again, with the raw frame."""
    import polars as pl

    split = "val" if len(data.split("val")) else "train"
    wanted = np.sort(data.split(split).rows)[:count]
    own = split != "train" and split != data.plan.folded and data.paths[split]
    path = locate(str(data.paths[split if own else "main"]), data.root, data.origin)
    parts: list[tuple[Tensor, np.ndarray, Any]] = []
    for chunk in data.stream(path, STREAM_ROWS, with_target=False):
        mask = np.isin(chunk.rows, wanted)
        parts.append((chunk.x[torch.from_numpy(mask)], chunk.rows[mask], chunk.frame.filter(pl.Series(mask))))
        if chunk.rows[-1] >= wanted[-1]:
            break
    x, frame = torch.cat([part[0] for part in parts]), pl.concat([part[2] for part in parts])
    return Chunk(x, None, np.concatenate([part[1] for part in parts]), frame), split


def _outputs(task: Task) -> Callable[[Tensor], Tensor]:
    """What `predict` does with x."""
    return lambda x: task.predict_outputs(task(x).float())


@torch.inference_mode()
def reference(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What the run itself gives for x [N, ...], and for the first row alone, float32."""
    whole = torch.cat([function(part).float() for part in torch.split(x, REFERENCE_ROWS)])
    return whole.numpy(), function(x[:1]).float().numpy()
