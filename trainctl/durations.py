"""Durations as users write them (`trainer.max_time`, `tune.timeout`) and as they are shown."""

from __future__ import annotations

import re

from trainctl.errors import UsageError


def seconds(text: str | int | float | None, key: str = "trainer.max_time") -> float | None:
    """A duration as seconds: 90, 10m, 1h30m, 45s or Lightning's DD:HH:MM:SS; None stays None; else UsageError."""
    if text is None or isinstance(text, int | float):
        return text
    if re.fullmatch(r"\d+(:\d+){1,3}", text):
        parts = [int(p) for p in text.split(":")]
        return float(sum(p * w for p, w in zip(reversed(parts), (1, 60, 3600, 86400), strict=False)))
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.replace(" ", ""))
    if not found or not text.strip():
        raise UsageError(f"`{key}` must be a duration such as 10m, 1h30m or 00:01:30:00, got '{text}'")
    return sum(float(p or 0) * w for p, w in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def duration(value: float | None) -> str:
    """Seconds as `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`; `-` when unknown."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"
