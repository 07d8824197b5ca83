"""Weights of a run, back in a net."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from trainctl import build
from trainctl.callbacks.checkpoint import read_checkpoint
from trainctl.compression import sparse, tensors
from trainctl.compression.base import Artifact
from trainctl.data.base import Data
from trainctl.data.spec import DataSpec
from trainctl.errors import RunError, UsageError
from trainctl.run import checkpoints, files
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run
from trainctl.tasks.estimator import is_estimator

log = logging.getLogger("trainctl")

WEIGHTS = "model.safetensors"
PREPROCESSING = "preprocessing"


def restore(parent: Run, config: dict[str, Any]) -> tuple[Any, Any]:
    """The data module (not set up, with the parent's preprocessing) and the task with the parent's weights.

    RunError when weights are missing, damaged or of another shape.
    """
    folder = parent.path / PREPROCESSING
    for relative in Manifest.read(parent.path).files:
        if relative.startswith(f"{PREPROCESSING}/"):
            parent.verify(relative)
    data = build.data(config, folder if folder.is_dir() else None)
    task = build.task(config, spec_of(data, folder), data)
    load_weights(task, parent)
    return data, task.eval()


def spec_of(data: Any, folder: Path | None = None) -> DataSpec | None:
    """The data's spec: its own, the one saved with the run, or one inferred from a foreign module's first batch."""
    spec = getattr(data, "spec", None)
    if isinstance(spec, DataSpec):
        return spec
    if folder is not None and (folder / "spec.json").exists():
        import json

        return DataSpec.from_dict(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    if isinstance(data, Data):
        data.setup()
        return data.spec
    from trainctl.data.foreign import infer_spec

    return infer_spec(data)


def load_weights(task: nn.Module, run: Run) -> None:
    """Put the run's best weights into the task; exact names, shapes and types, or RunError.

    A net that is an artifact takes its own file instead of model.safetensors.
    """
    target = weights_of(task)
    if isinstance(target, Artifact):
        _require(run, target.file)
        target.load(run.verify(target.file).read_bytes())
        return
    state = read_weights(run)
    try:
        if is_estimator(target):
            target.adopt(state)  # type: ignore[operator]  # only its weights tell how large it grew
        tensors.load(target, state)
    except ValueError as error:
        raise RunError(f"weights of `{run.name}` do not fit: {error}") from None


def read_weights(run: Run) -> dict[str, Tensor]:
    """model.safetensors after its checksum was compared; RunError when it is missing or damaged."""
    _require(run, WEIGHTS)
    path = run.verify(WEIGHTS)
    try:
        return sparse.unpack(load_file(path))
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"`{WEIGHTS}` of `{run.name}` is damaged: {str(error).splitlines()[0]}") from None


def _require(run: Run, file: str) -> None:
    """RunError when a run that did not end well lacks its weights; a completed one is told by its manifest."""
    if run.status != "completed" and not (run.path / file).exists():
        way = f"finish it with `trainctl {run.verb} --resume`"
        raise RunError(f"`{run.name}` has no {file} (status {run.status}); {way}")


def weights_of(task: nn.Module) -> nn.Module:
    """What model.safetensors holds: a task's net, or the whole of a foreign LightningModule."""
    net = getattr(task, "net", None)
    return net if isinstance(net, nn.Module) else task


def file_of(net: nn.Module) -> str:
    """The file of its run that ships: an artifact's own, or model.safetensors."""
    return net.file if isinstance(net, Artifact) else WEIGHTS


def save_weights(task: nn.Module, path: Path, run: Run | None = None, packed: bool = False) -> str:
    """Write the weights that will be evaluated and shipped; tied tensors are stored once each.

    Returns the name of the written file: an artifact's own stands beside `path`. `packed`: zeros take no bytes.
    `run`: take them from its best checkpoint, since of a sharded net no rank has the whole.
    """
    target = weights_of(task)
    if isinstance(target, Artifact):
        files.write_atomic(path.with_name(target.file), target.content)
        return target.file
    if run is None:
        whole = target.state_dict()
    else:
        saved = read_checkpoint(checkpoints.find(run.path, best_of(run)).path)["state_dict"]
        whole = {k.removeprefix("net."): v for k, v in saved.items() if k.startswith("net.")}
    files.write_atomic(path, as_file(whole, packed))
    return path.name


def as_file(state: Mapping[str, Tensor], packed: bool = False) -> bytes:
    """The content of model.safetensors for a state; `packed`: zeros take no bytes."""
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.flatten(state).items()}
    return save(sparse.pack(flat) if packed else flat)


def load_best(task: nn.Module, run: Run, average: Any = None) -> str:
    """Put the best checkpoint's weights (averaged ones when there are) into the task; returns its name.

    Falls back to `last` when no epoch was finished.
    """
    found = checkpoints.find(run.path, best_of(run))
    content = read_checkpoint(found.path)
    task.load_state_dict(content["state_dict"])
    if average is not None and "average" in content:
        average.swapped = False
        average.load_state_dict(content["average"])
        average.swap_in()
    return found.name


def best_of(run: Run) -> str | None:
    """`best`, or None (which finds `last`) when no epoch was finished."""
    return "best" if "best" in checkpoints.names(run.path) else None


def start_from(task: nn.Module, source: Run) -> None:
    """Begin from the source's weights; tensors of another shape keep their fresh values and are named in a line.

    RunError when none fits, and for a quantized run; UsageError for an estimator.
    """
    if is_estimator(task):
        kind = type(weights_of(task)).__name__.lower()
        raise UsageError(f"a {kind} is fitted at once and cannot begin from `{source.name}`; leave out `--from`")
    state, target = read_weights(source), weights_of(task)
    own = target.state_dict()
    fits = {k: v for k, v in state.items() if k in own and tensors.takes(own[k], v)}
    if not fits:
        raise RunError(f"no weight of `{source.name}` fits this net: {tensors.mismatch(state, own)}")
    left = sorted(set(own) - set(fits))
    if left:
        log.warning("starting afresh, since `%s` has no fitting weights for: %s", source.name, ", ".join(left))
    target.load_state_dict({**own, **fits})
