"""What a compressed net must keep to: how far the objective may fall, how much smaller and faster it must be.

Free of torch, so a command line is judged before anything heavy is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainctl.errors import UsageError, did_you_mean

TARGETS = ("bytes", "latency", "macs", "parameters")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Budget:
    """max_drop: of the objective on val. targets: how many times less of each quantity. max_latency_ms: of a call."""

    max_drop: float | None = None
    targets: Mapping[str, float] | None = None
    max_latency_ms: float | None = None

    def __bool__(self) -> bool:
        return any((self.max_drop is not None, self.targets, self.max_latency_ms is not None))

    @property
    def needs_speed(self) -> bool:
        """Whether a latency must be measured to judge a point."""
        return self.max_latency_ms is not None or "latency" in (self.targets or {})

    @classmethod
    def parse(cls, max_drop: float | None, targets: Sequence[str], max_latency: str | None) -> Budget:
        """From the options `--max-drop 0.01 --target bytes=4x --max-latency 1ms`; UsageError for what they are not."""
        if max_drop is not None and not (math.isfinite(max_drop) and 0 <= max_drop < 1e6):
            raise UsageError(f"`--max-drop` must be a number ≥ 0 such as 0.005, got {max_drop}")
        return cls(max_drop, dict(map(_target, targets)), None if max_latency is None else milliseconds(max_latency))

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins, as worker processes and records need them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Budget:
        """Inverse of `to_dict`."""
        return cls(**(values or {}))

    def misses(self, found: Mapping[str, float]) -> list[str]:
        """What a point fails: `found` has drop, latency_ms, and the ratios (times smaller or faster) of TARGETS."""
        said = []
        drop = found.get("drop")
        if self.max_drop is not None and (drop is None or drop > self.max_drop):
            said.append(f"the drop is {_shown(drop)}, `--max-drop` is {self.max_drop:g}")
        for name, wanted in (self.targets or {}).items():
            ratio = found.get(name)
            if ratio is None or ratio < wanted:
                said.append(f"{name} fell {_shown(ratio)} times, `--target` is {name}={wanted:g}x")
        latency = found.get("latency_ms")
        if self.max_latency_ms is not None and (latency is None or latency > self.max_latency_ms):
            said.append(f"a call takes {_shown(latency)} ms, `--max-latency` is {self.max_latency_ms:g}ms")
        return said


def milliseconds(text: str) -> float:
    """`1ms`, `250us`, `0.5s`: in milliseconds; UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)\s*(us|ms|s)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"`--max-latency` must be a time such as 1ms, 250us or 0.5s, got '{text}'")
    return float(found[1]) * _UNITS[found[2]]


def _target(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in TARGETS:
        raise UsageError(f"`--target` must be one of {', '.join(TARGETS)}, got '{name}'{did_you_mean(name, TARGETS)}")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x?", value.strip())
    if found is None or float(found[1]) < 1:
        raise UsageError(f"`--target {name}=` must be how many times less, such as {name}=4x, got '{value}'")
    return name, float(found[1])


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
