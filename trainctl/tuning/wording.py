"""How trials are said in a few characters: values, hyperparameters, sparklines, the line of a finished trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainctl.run.files import shown_text

LINE = 200  # characters of a line about a trial, at most
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.,-~+*#"


def value_text(value: float | None) -> str:
    """A trial's value with four significant digits: `0.8410`, `1250`, `3.214e-06`; `-` for none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000 and value == int(value) and size < 1e12:
        return str(int(value))
    if 1e4 <= size < 1e7:
        return f"{value:.0f}"
    return f"{value:#.4g}".rstrip(".") if size == 0 or 1e-4 <= size < 1e4 else f"{value:.3e}"


def number_text(value: float | int) -> str:
    """A hyperparameter or a bound with four significant digits at most: `0.003`, `1e-4`, `64`."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def setting(name: str, value: Any) -> str:
    """A dimension's value as `optimizer.lr=0.003`; the text of a row that sets several keys stands alone."""
    text = number_text(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return text if name.startswith(("zip(", "@")) else f"{name}={text}"


def settings(params: Mapping[str, Any]) -> str:
    """All that distinguishes a trial."""
    return " ".join(setting(name, value) for name, value in params.items())


def clipped(text: str, width: int) -> str:
    """`text` on one line and in `width` characters, `...` where it was cut."""
    line = shown_text(" ".join(part.strip() for part in text.splitlines()))
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def sparkline(values: Sequence[float], width: int = 12, blocks: str = BLOCKS) -> str:
    """The curve of the last `width` values, from the lowest block to the highest."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in shown)


def named_values(objectives: Sequence[str], values: Sequence[float | None]) -> str:
    """`val/auroc 0.8410  parameters 1250`."""
    return "  ".join(f"{name} {value_text(value)}" for name, value in zip(objectives, values, strict=False))
