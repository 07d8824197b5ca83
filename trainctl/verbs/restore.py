"""Weights of a run, back in a net."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trainctl import build
from trainctl.callbacks.checkpoint import read_checkpoint
from trainctl.data.base import Data
from trainctl.data.spec import DataSpec
from trainctl.errors import RunError
from trainctl.run import checkpoints, files
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run

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
    """Put the run's best weights into the task; exact names and shapes, or RunError."""
    state = read_weights(run)
    target = weights_of(task)
    problem = _mismatch(state, target.state_dict())
    if problem:
        raise RunError(f"weights of `{run.name}` do not fit: {problem}")
    target.load_state_dict(state)


def read_weights(run: Run) -> dict[str, Tensor]:
    """model.safetensors after its checksum was compared; RunError when it is missing or damaged."""
    if run.status != "completed" and not (run.path / WEIGHTS).exists():
        raise RunError(f"`{run.name}` has no {WEIGHTS} (status {run.status}); finish it with `trainctl train --resume`")
    path = run.verify(WEIGHTS)
    try:
        return load_file(path)
    except Exception as error:
        raise RunError(f"`{WEIGHTS}` of `{run.name}` is damaged: {str(error).splitlines()[0]}") from None


def weights_of(task: nn.Module) -> nn.Module:
    """What model.safetensors holds: a task's net, or the whole of a foreign LightningModule."""
    net = getattr(task, "net", None)
    return net if isinstance(net, nn.Module) else task


def save_weights(task: nn.Module, path: Path, run: Run | None = None) -> None:
    """Write the weights that will be evaluated and shipped; tied tensors are stored once each.

    `run`: take them from its best checkpoint, since of a sharded net no rank has the whole.
    """
    if run is None:
        whole = weights_of(task).state_dict()
    else:
        saved = read_checkpoint(checkpoints.find(run.path, best_of(run)).path)["state_dict"]
        whole = {k.removeprefix("net."): v for k, v in saved.items() if k.startswith("net.")}
    state = {k: v.detach().cpu().contiguous().clone() for k, v in whole.items()}
    files.write_atomic(path, save(state))


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

    RunError when none fits.
    """
    state, target = read_weights(source), weights_of(task)
    own = target.state_dict()
    fits = {k: v for k, v in state.items() if k in own and _takes(own[k], v)}
    if not fits:
        raise RunError(f"no weight of `{source.name}` fits this net: {_mismatch(state, own)}")
    left = sorted(set(own) - set(fits))
    if left:
        log.warning("starting afresh, since `%s` has no fitting weights for: %s", source.name, ", ".join(left))
    target.load_state_dict({**own, **fits})


def _takes(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor of the net can hold the run's: a lazy layer has no shape before its first weights."""
    return is_lazy(own) or own.shape == given.shape


def _mismatch(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [k for k in own if k in state and not _takes(own[k], state[k])]
    if shapes:
        k = shapes[0]
        return f"`{k}` is {list(state[k].shape)} in the run and {list(own[k].shape)} in the config's net"
    if missing:
        return f"the config's net has `{missing[0]}`, the run has not"
    return f"the run has `{extra[0]}`, the config's net has not" if extra else ""
