"""Runs that take part in a benchmark: a net with rows to call it on, and how to load it anew."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainctl import build
from trainctl.compression import latency, measure
from trainctl.compression.base import is_compressed, parent_of
from trainctl.compression.latency import Subject
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.base import Data
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError, RunError, TrainctlError
from trainctl.run import files
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs import exported, kept_data, restore

log = logging.getLogger("trainctl")

SPLIT = "val"
MADE = "made"


@dataclass
class Entrant:
    """A run that takes part.

    file: what ships. rows: the split that they are of, or `made`. head: the first rows as the subjects take them.
    engines: what to time on so many threads. load: builds the net anew from the file. counts: as `measure.static`.
    """

    run: Run
    file: Path
    rows: str
    head: Callable[[int], Any]
    engines: Callable[[int], dict[str, Subject]]
    load: Callable[[], Subject]
    counts: Callable[[], measure.Figures]
    notes: list[str]

    @property
    def name(self) -> str:
        """Its path as it is shown."""
        return files.shown(self.run.path)


def entrant(run: Run, rows: int, seen: dict[str, Tensor]) -> Entrant:
    """Restore a run. `seen` holds rows by what they depend on: most runs of a benchmark share their data.

    RunError (no weights, no parent of an export), DataError (no rows can be had).
    """
    made = of_export(run, rows) if run.verb == "export" else of_model(run, rows, seen)
    for sentence in made.notes:
        log.info("%s: %s", made.name, sentence)
    return made


def of_model(run: Run, rows: int, seen: dict[str, Tensor]) -> Entrant:
    """A run with a model: its own net, and the same by ONNX Runtime where it can be exported."""
    config, notes = run.config, list[str]()
    data, task = restore.restore(run, config)
    net = restore.weights_of(task).eval()
    spec = restore.spec_of(data, run.path / restore.PREPROCESSING)
    x, source = rows_of(run, data, spec, rows, seen, notes)
    x = task.inputs(x).contiguous() if isinstance(task, Task) else x
    onnx = exported.as_onnx(run, net, repeated(x, 2), notes)
    shipped = run.path / restore.file_of(net)

    def load() -> nn.Module:
        made = build.task(config, spec, data)
        restore.load_weights(made, run)
        return restore.weights_of(made).eval()

    return Entrant(
        run,
        shipped,
        source,
        lambda count: x[:count].contiguous(),
        partial(latency.engines, net, onnx),
        load,
        lambda: measure.static(net, x, [shipped], float_net(config, spec)),
        notes,
    )


def of_export(run: Run, rows: int) -> Entrant:
    """An exported file, called as a program that knows nothing of trainctl would: by names, on rows of the parent's."""
    from trainctl.exporting import onnx_file, torch_file
    from trainctl.exporting.subjects import subject

    if run.parent is None:
        raise RunError(f"`{files.shown(run.path)}` does not say which run it was exported from; export it again")
    about = run.record.get("export") or {}
    parent, config, form = Run.open(run.parent), run.config, str(about.get("format"))
    data, task = restore.restore(parent, config)
    if not isinstance(task, Task):
        raise RunError(f"`{files.shown(run.path)}` was exported from a task that is not of trainctl; name its parent")
    shipped, spec = exported_file(run), task.spec
    sample = subject(task, data, rows, bool(about.get("preprocessing")), texts=form == "onnx").sample
    feed = {name: enough(values, rows) for name, values in sample.feed.items()}
    loaders: dict[str, Callable[[], Any]] = {
        "onnx": partial(onnx_file.load, shipped),
        "torch_export": partial(torch_file.load_program, shipped),
        "safetensors": lambda: torch_file.load_weights(shipped, lambda: build.net(config, spec)),
    }
    load, engine = loaders[form], "onnxruntime" if form == "onnx" else "torch"

    def counts() -> measure.Figures:
        x = task.inputs(repeated(_val_rows(data, 1), 1))
        return measure.static(task.net, x, [shipped], float_net(config, spec)) | _weights_in(shipped, form)

    return Entrant(
        run, shipped, sample.split, lambda count: {name: values[:count] for name, values in feed.items()},
        lambda threads: {engine: _on_threads(load, threads)}, load, counts, [],
    )  # fmt: skip


def _on_threads(load: Callable[[], Subject], threads: int) -> Subject:
    """Loaded while torch has so many threads: ONNX Runtime takes as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return load()
    finally:
        torch.set_num_threads(before)


def _weights_in(shipped: Path, form: str) -> measure.Figures:
    """An exported ONNX file is counted itself: preprocessing adds to it, and folding takes from it."""
    if form != "onnx":
        return {}
    parameters, non_zeros = measure.parameters_of(OnnxNet(shipped.read_bytes()))
    return {"parameters": parameters, "non_zeros": non_zeros}


def exported_file(run: Run) -> Path:
    """The file that an `export` run made; RunError when it is gone or damaged."""
    inside = (run.record.get("artifacts") or {}).get("export")
    path = run.verify(inside) if inside else Path(str((run.record.get("outputs") or {}).get("export")))
    if not path.is_file():
        raise RunError(f"the file that `{files.shown(run.path)}` exported is gone: `{files.shown(path)}`")
    return path


def rows_of(
    run: Run, data: Any, spec: DataSpec | None, rows: int, seen: dict[str, Tensor], notes: list[str]
) -> tuple[Tensor, str]:
    """x [rows, ...] of the validation split, repeated where it has fewer, or made from the spec where there is none."""
    fitted = {k: v for k, v in Manifest.read(run.path).files.items() if k.startswith(f"{restore.PREPROCESSING}/")}
    key = json.dumps([kept_data.key(run.config), rows, fitted], sort_keys=True)
    if key in seen:
        return seen[key], SPLIT
    try:
        seen[key] = repeated(_val_rows(data, rows), rows)
        return seen[key], SPLIT
    except (TrainctlError, OSError) as error:
        if spec is None:
            raise DataError(f"`{files.shown(run.path)}` has neither data at hand nor a spec: {error}") from error
        notes.append(f"timed on rows made from its spec, since its data is not at hand: {error}")
        return made_rows(spec, rows), MADE


def _val_rows(data: Any, rows: int) -> Tensor:
    """The first rows of val; DataError when there are none."""
    if isinstance(data, Data):
        x = data.split(SPLIT).x
        found: Tensor | None = x.index_select(0, torch.arange(min(rows, len(x))))
    else:
        data.prepare_data()
        data.setup("fit")
        batch = next(iter(data.val_dataloader()), None)
        found = batch[0] if isinstance(batch, list | tuple) and isinstance(batch[0], Tensor) else None
    if found is None or not len(found):
        raise DataError(f"the split {SPLIT} has no rows")
    return found


def made_rows(spec: DataSpec, rows: int, seed: int = 0) -> Tensor:
    """x [rows, ...] of random values as a spec describes them: what a net takes as long for as for real rows."""
    draw = torch.Generator().manual_seed(seed)
    if spec.kind == "image":
        assert spec.image_shape is not None
        return torch.randint(256, (rows, *spec.image_shape), generator=draw, dtype=torch.uint8)
    if spec.kind == "sequence":
        return torch.randint(1, max(2, spec.num_tokens), (rows, spec.sequence_length), generator=draw)
    numbers = torch.randn(rows, len(spec.numeric), generator=draw)
    codes = [torch.randint(category.size, (rows, 1), generator=draw).float() for category in spec.categories]
    return torch.cat([numbers, *codes], 1)


def repeated(x: Tensor, rows: int) -> Tensor:
    """Exactly `rows` rows."""
    return x.repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))[:rows].contiguous()


def enough(values: np.ndarray, rows: int) -> np.ndarray:
    """`repeated`, of an array."""
    whole: np.ndarray = np.concatenate([values] * -(-rows // len(values)))[:rows]
    return whole


def float_net(config: dict[str, Any], spec: DataSpec | None) -> nn.Module | None:
    """A net whose multiply-adds the run's has, where they cannot be counted in a quantized one; weights do not matter.

    None for a net that is not quantized, and for one that has no model node.
    """
    model = config.get("model") or {}
    if spec is None or not is_compressed(model) or build.component(model["steps"][-1]).verb != "quantize":
        return None
    return build.net({**config, "model": parent_of(model)}, spec).eval()
