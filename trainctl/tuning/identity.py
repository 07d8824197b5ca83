"""What makes two commands ask for the same study, and the sentence for two that do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainctl.errors import UsageError

if TYPE_CHECKING:
    from trainctl.tuning.dimensions import Dimension
    from trainctl.tuning.joining import Asked
    from trainctl.tuning.space import Space

ATTRIBUTE = "trainctl"  # of the Optuna study
_LISTED = 12  # choices that are written out
_PARTS = {"sampler": "sampler.", "stopper": "stopper.", "space": "", "fixed": ""}


def of(settings: Asked, space: Space) -> dict[str, Any]:
    """Everything that decides what the study's trials are, as JSON: not its budget, workers or storage."""
    fixed = (word.partition("=") for word in space.fixed)
    return {
        "objectives": list(settings.objectives),
        "directions": list(settings.directions),
        "seed": settings.seed,
        "sampler": dict(settings.sampler),
        "stopper": dict(settings.stopper),
        "space": {dimension.name: shown(dimension) for dimension in space.dimensions},
        "order": list(space.order) or [dimension.name for dimension in space.dimensions],
        "fixed": {key: value for key, _, value in fixed},
    }


def name(identity: Mapping[str, Any]) -> str:
    """The name of a study that was given none: the same for the same identity."""
    text = json.dumps(identity, sort_keys=True)
    return f"trainctl-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def shown(dimension: Dimension) -> str:
    """A dimension's values in a few words: `in [0.0001, 0.1] (log)`, `one of mlp, resmlp`."""
    if dimension.kind == "choice":
        if len(dimension.choices) > _LISTED:
            digest = hashlib.sha256("\n".join(dimension.choices).encode()).hexdigest()[:8]
            return f"one of {len(dimension.choices)} values (sha256 {digest})"
        return f"one of {', '.join(dimension.choices)}"
    how = [
        part for part in ("log" if dimension.log else "", f"step {dimension.step}" if dimension.step else "") if part
    ]
    return f"in [{dimension.low!r}, {dimension.high!r}]" + (f" ({', '.join(how)})" if how else "")


def refuse_difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UsageError naming the first difference between a study's identity and this command's."""
    for part, value in now.items():
        before = stored.get(part)
        if before == value:
            continue
        if not isinstance(value, Mapping) or not isinstance(before, Mapping):
            _refuse(part, before, value)
        assert isinstance(value, Mapping) and isinstance(before, Mapping)
        for key in [*before, *(key for key in value if key not in before)]:
            if before.get(key) != value.get(key):
                _refuse(_PARTS[part] + key, before.get(key), value.get(key))


def _refuse(key: str, before: Any, now: Any) -> None:
    raise UsageError(
        f"the study has {_said(key, before)}, this command {_said(key, now)}; use the same words, or another "
        "`tune.study=`"
    )


def _said(key: str, value: Any) -> str:
    if value is None:
        return f"no {key}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{key} {text}" if text.startswith(("in [", "one of ")) else f"{key}={text}"
