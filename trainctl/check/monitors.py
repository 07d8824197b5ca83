"""Whether the metrics that a config watches are ones its task produces, for our own tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainctl.errors import did_you_mean
from trainctl.metrics import names
from trainctl.metrics.names import Kind

KINDS: dict[str, tuple[Kind, ...]] = {
    "trainctl.tasks.auto.auto": ("class", "number"),
    "trainctl.tasks.classification.Classification": ("class",),
    "trainctl.tasks.regression.Regression": ("number",),
}


def produced(config: Mapping[str, Any]) -> list[str]:
    """Names that may be monitored, `val/loss` first; [] when the task is not ours, so nothing is known."""
    task = config.get("task")
    kinds = KINDS.get(str(task.get("_target_")), ()) if isinstance(task, Mapping) else ()
    base = dict.fromkeys(name for kind in kinds for name in names.produced(kind))
    return [f"val/{name}" for name in base] + (["train/loss"] if base else [])


def monitor_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on `train.monitor` and the `monitor` of each callback."""
    have = produced(config)
    for monitor in _monitors(config) if have else ():
        if monitor not in have:
            yield f"monitor `{monitor}` is not produced; have: {', '.join(have)}{did_you_mean(str(monitor), have)}"


def _monitors(config: Mapping[str, Any]) -> Iterator[Any]:
    train, callbacks = config.get("train"), config.get("callbacks")
    if isinstance(train, Mapping) and train.get("monitor", "auto") != "auto":
        yield train["monitor"]
    for callback in callbacks.values() if isinstance(callbacks, Mapping) else ():
        if isinstance(callback, Mapping) and callback.get("monitor") is not None:
            yield callback["monitor"]
