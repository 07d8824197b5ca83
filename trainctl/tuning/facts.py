"""What a study knows before its first trial: the data's splits, the task's figures, and what one epoch takes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEASURED_S = 0.3  # of training steps, at most
STEPS = 20
FILES_BYTES = 60_000  # config, records, metrics and report of a run
LATENCY_ROUNDS = 50


@dataclass(frozen=True)
class Facts:
    """The first trial's: None where someone else's task does not say.

    produced: names of its figures; epoch_s: seconds of one epoch; run_bytes: disk that its run will take; rows of each
    split; not_stackable: why the net cannot be part of a stack; stacking_helps: a stack takes less than the nets alone;
    at_once: an estimator, whose fit has no epochs.
    """

    target: str | None = None
    produced: tuple[str, ...] = ()
    epoch_s: float | None = None
    step_s: float | None = None
    parameters: int | None = None
    run_bytes: int | None = None
    rows: Mapping[str, int] | None = None
    stacking_helps: bool = False
    not_stackable: str | None = None
    at_once: bool = False


def measure(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """The fields of `Facts` for a config and its data, set up; a few real steps are taken on a net of their own."""
    import torch

    from trainctl import build, metrics
    from trainctl.data.base import Data
    from trainctl.stacked import members
    from trainctl.tasks.base import Task
    from trainctl.tasks.estimator import is_estimator
    from trainctl.verbs import first_rows, restore
    from trainctl.verbs.train import monitored

    spec = restore.spec_of(data)
    task = build.task(config, spec, data, fit=True)
    if not isinstance(task, Task) or not isinstance(data, Data):
        return {"target": spec.target if spec is not None else None, "parameters": parameters(task)}
    first_rows.show(task, data.split("train").x[:2], config)
    monitored(config, task)
    step_s = _step_seconds(task, data, config)
    whole = sum(p.numel() * p.element_size() for p in task.parameters())
    epoch_s = None if step_s is None else step_s * _batches(data, config) + _evaluation_seconds(task, data)
    stacked = members.why_not(task, data, config)
    slower = stacked or members.not_faster(task, data, config, torch.device("cpu" if step_s is not None else "cuda"))
    return {
        "target": task.spec.target,
        "produced": ["train/loss", *(f"val/{name}" for name in metrics.names.produced(task.spec.target))],
        "epoch_s": epoch_s,
        "step_s": step_s,
        "parameters": parameters(task),
        # the weights, and best, last and prev with an optimizer's two moments each
        "run_bytes": None if is_estimator(task) else FILES_BYTES + whole * (1 + 3 * 3),
        "rows": {name: len(data.split(name)) for name in ("train", "val", "test")},
        "not_stackable": stacked,
        "stacking_helps": slower is None,
        "at_once": is_estimator(task),
    }


def _batches(data: Any, config: dict[str, Any]) -> int:
    limit = config["trainer"].get("limit_batches")
    count: int = math.ceil(len(data.split("train")) / data.batch_size)
    return max(1, count if limit is None else min(count, int(limit)))


def _step_seconds(task: Any, data: Any, config: dict[str, Any]) -> float | None:
    """Seconds of a training step on the CPU; None for a task on a GPU, whose steps are another machine's, and for an
    estimator, which makes none."""
    from trainctl import build
    from trainctl.check import machine
    from trainctl.tasks.estimator import is_estimator

    if is_estimator(task.net):
        return None
    accelerator = config["trainer"].get("accelerator", "auto")
    if accelerator not in ("cpu", "auto") or (accelerator == "auto" and machine.gpus()):
        return None
    trial, split = copy.deepcopy(task), data.split("train")
    lr = 1e-3 if config["optimizer"].get("lr") == "auto" else None
    optimizer = build.optimizer(config["optimizer"], trial.net, lr)
    x, y = trial.inputs(split.x[: data.batch_size]), split.y[: data.batch_size]
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < STEPS and (len(times) < 2 or time.perf_counter() - began < MEASURED_S):
        started = time.perf_counter()
        if len(x) > 1:
            trial.loss(trial.net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    warm = sorted(times[1:])  # a first step can take a hundred times as long
    return warm[len(warm) // 2]


def _evaluation_seconds(task: Any, data: Any) -> float:
    """Seconds of a pass over the validation rows, from one batch of them."""
    import torch

    split = data.split("val")
    if not len(split):
        return 0.0
    x = split.x[: min(len(split), 1024)]
    with torch.no_grad():
        task.eval()
        task(x[:2])
        started = time.perf_counter()
        task(x)
    task.train()
    return (time.perf_counter() - started) * len(split) / len(x)


def parameters(task: Any) -> int:
    """Weights of the net, or of a whole foreign module; thresholds and values of leaves of trees."""
    from trainctl.compression.trees import is_tree, num_numbers
    from trainctl.verbs.restore import weights_of

    if is_tree(weights_of(task)):
        return num_numbers(weights_of(task))
    return sum(p.numel() for p in weights_of(task).parameters())


def latency_ms(task: Any, data: Any) -> float | None:
    """Median milliseconds for one row, where the task is; None for someone else's data."""
    import torch

    from trainctl.data.base import Data

    if not isinstance(data, Data):
        return None
    x = data.split("val").x[:1].to(task.device)
    times = []
    with torch.no_grad():
        task.eval()
        for _ in range(LATENCY_ROUNDS):
            started = time.perf_counter()
            task(x)
            if x.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return round(1000 * sorted(times)[len(times) // 2], 4)
