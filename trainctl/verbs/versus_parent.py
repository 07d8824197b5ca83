"""A compressed run beside its parent, on the rows that are being evaluated."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from trainctl import build
from trainctl.compression.base import is_compressed, parent_of
from trainctl.data.spec import DataSpec
from trainctl.errors import TrainctlError
from trainctl.metrics import names
from trainctl.metrics.paired import agreement, paired_difference
from trainctl.run import files
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs import restore

log = logging.getLogger("trainctl")


def parent_task(source: Run, config: dict[str, Any], spec: DataSpec, data: Any) -> Task | None:
    """The task of the run that `source` was compressed from; None for another run, or when that one is gone.

    Its net is built from the config of `source`, which is trusted already; only weights are read from the parent.
    """
    if not is_compressed(config["model"]) or source.parent is None:
        return None
    shown = files.shown(source.parent)
    try:
        task = build.task({**config, "model": parent_of(config["model"])}, spec, data)
        restore.load_weights(task, Run.open(source.parent))
    except TrainctlError as error:
        log.info("no comparison with the parent `%s`: %s", shown, error)
        return None
    assert isinstance(task, Task)
    return task.eval()


def compared(
    outputs: tuple[Tensor, Tensor], y: Tensor, spec: DataSpec, resamples: int, seed: int, cut: float | None
) -> dict[str, Any]:
    """Agreement and, by metric, the difference to the parent with its paired 95 % interval.

    outputs: of the parent and of the child, probabilities [N, C] or values [N], on the same rows.
    """
    differences = {}
    for name in names.CLASS if spec.target == "class" else names.NUMBER:
        value, interval = paired_difference(name, *outputs, y, spec, resamples, seed, cut)
        differences[name] = {"value": value, "interval": interval}
    return {"agreement": agreement(*outputs, spec, cut), "difference": differences}


def told(versus: dict[str, Any], spec: DataSpec) -> str:
    """`beside its parent: 99.1 % of predictions agree; accuracy -0.0010 [-0.0030, 0.0010]`."""
    name = "accuracy" if spec.target == "class" else "rmse"
    part, same = versus["difference"][name], versus["agreement"]
    shown = "undefined" if part["value"] is None else f"{part['value']:+.4f}"
    if part["interval"] is not None:
        shown += f" [{part['interval'][0]:+.4f}, {part['interval'][1]:+.4f}]"
    agreeing = "no" if same is None else f"{100 * same:.2f} % of"
    return f"beside its parent: {agreeing} predictions agree; {name} {shown}"
