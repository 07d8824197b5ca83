"""Which trials may be trained together as one stacked model, said from their configs alone.

Trials of one signature differ only in values that leave every tensor's shape as it is. What is known only once the
net is built, the worker finds out: it trains such a group one by one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from trainctl import launch

Content = Mapping[str, Any]

FREE = {
    "data": ("seed",),  # follows the trial's seed: another split, in as many rows
    "model": ("dropout",),
    "optimizer": ("lr", "weight_decay", "momentum", "betas", "eps"),
    "task": ("label_smoothing", "l1", "class_weights"),
    "trainer": ("gradient_clip_val",),
}
FREE_NODES = ("seed", "ema", "scheduler", "callbacks")  # each member has its own schedule and its own patience
OWN = ("trainctl.",)
COMPONENTS = {"data": OWN, "model": OWN, "task": OWN}
OPTIMIZERS = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD")
DROPPING = ("trainctl.models.mlp.MLP", "trainctl.models.resmlp.ResMLP")  # nets whose dropout has a stacked form
EARLY_STOPPING = "trainctl.callbacks.EarlyStopping"
PRECISIONS = ("32-true", "64-true", "32", "64")
REFUSED = ("compile", "train.folds", "train.seeds", "trainer.max_time", "trainer.profiler", "trainer.deterministic")


def signature(content: Content) -> Hashable:
    """What must be equal for two trials to be stacked."""
    kept: dict[str, Any] = {}
    for name, node in content.items():
        if name in FREE_NODES:
            continue
        free = FREE.get(name, ()) if isinstance(node, Mapping) else ()
        kept[name] = {key: value for key, value in node.items() if key not in free} if free else node
    return json.dumps(kept, default=str)


def why_not(content: Content) -> str | None:
    """A short reason why a trial cannot be part of a stack, such as `optimizer=muon cannot be stacked`; else None."""
    found = _unstackable(content)
    return None if found is None else f"{found} cannot be stacked"


def groups(contents: Sequence[Content], stack: int) -> list[list[int]]:
    """Positions of trials to train together, at most `stack` in each group; alone those that cannot be stacked.

    A signature of too many trials is divided evenly.
    """
    alike: dict[Hashable, list[int]] = {}
    for position, content in enumerate(contents):
        key = position if _unstackable(content) else signature(content)
        alike.setdefault(key, []).append(position)
    return [part for positions in alike.values() for part in _divided(positions, stack)]


def remark(contents: Sequence[Content]) -> str | None:
    """The line for a user about the trials that are not stacked, and the most frequent reason; None without any."""
    reasons = Counter(reason for reason in map(why_not, contents) if reason is not None)
    if not reasons:
        return None
    count = sum(reasons.values())
    which = f"{count} of {len(contents)} trials run" if count < len(contents) else "all trials run"
    return f"vectorized: {which} on the pool: {reasons.most_common(1)[0][0]}"


def _divided(positions: list[int], stack: int) -> list[list[int]]:
    parts = math.ceil(len(positions) / max(1, stack))
    bounds = [len(positions) * part // parts for part in range(parts + 1)]
    return [positions[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


def _unstackable(content: Content) -> str | None:
    """What stands in the way, as the user would type it."""
    for name, own in COMPONENTS.items():
        target = str(content[name].get("_target_"))
        if not target.startswith(own):
            return f"`{target}`"
    target = str(content["optimizer"].get("_target_"))
    if target not in OPTIMIZERS:
        return f"optimizer={target.rpartition('.')[2].lower()}" if target.startswith(OWN) else f"`{target}`"
    model = content["model"]
    if model.get("dropout") and model["_target_"] not in DROPPING:
        return f"the dropout of model={str(model['_target_']).split('.')[-2]}"
    return _setting(content)


def _setting(content: Content) -> str | None:
    for key in REFUSED:
        node, _, name = key.rpartition(".")
        value = (content.get(node) or {} if node else content).get(name)
        if value:
            return _typed(key, value)
    if content["optimizer"].get("lr") == "auto":
        return "optimizer.lr=auto"
    trainer = content["trainer"]
    if launch.processes(dict(content)) > 1:
        return _typed("trainer.devices", trainer["devices"])
    if str(trainer["precision"]) not in PRECISIONS:
        return _typed("trainer.precision", trainer["precision"])
    if not isinstance(trainer.get("max_epochs"), int) or trainer["max_epochs"] < 1:
        return _typed("trainer.max_epochs", trainer.get("max_epochs"))
    augment = content["data"].get("augment")
    if isinstance(augment, Mapping) and any(augment.values()):
        return "data.augment"
    if content.get("logger"):
        return "a logger"
    for name, node in (content.get("callbacks") or {}).items():
        if isinstance(node, Mapping) and node.get("_target_") not in (None, EARLY_STOPPING):
            return f"callbacks.{name}"
    return None


def _typed(key: str, value: Any) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
