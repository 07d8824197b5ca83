"""Eight bits or seven: an x86 CPU without VNNI adds pairs of 8-bit products in 16 bits, where they may overflow."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trainctl.compression.base import Context

log = logging.getLogger("trainctl")

TOP = {8: 127, 7: 64}  # the largest code of a weight, as in ONNX Runtime; 2 * 255 * 64 still fits into 16 bits
NO_VNNI = "weights have 7 bits here, since this CPU adds products of 8 bits in 16 bits (no VNNI), which would overflow"
AT_RISK = (
    "weights of 8 bits may overflow on this CPU (no VNNI), so outputs can differ from those of the machine that made "
    "them; quantize with `compressor.reduce_range=true` for all machines"
)


@cache
def has_vnni() -> bool:
    """Whether 8-bit products are added in 32 bits: every ARM CPU here, and an x86 CPU with VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def bits_of(context: Context, reduce_range: bool | str) -> int:
    """8, or 7 where asked for; `auto`: 7 with a note on a CPU without VNNI."""
    if isinstance(reduce_range, bool):
        return 7 if reduce_range else 8
    if has_vnni():
        return 8
    context.note(NO_VNNI)
    return 7


def warn_of(plan: Mapping[str, Any]) -> None:
    """Say when what was made with 8 bits elsewhere is run on a CPU on which it may overflow."""
    if plan.get("bits") == 8 and not has_vnni():
        log.warning("%s", AT_RISK)
