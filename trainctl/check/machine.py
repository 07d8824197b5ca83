"""Whether this machine can do what the trainer section asks for, asked without torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """How many GPUs are visible: NVIDIA device files that CUDA_VISIBLE_DEVICES admits, or one on an Apple machine."""
    if sys.platform == "darwin":
        return 1
    numbers = [file.name for file in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(numbers)
    return min(len(numbers), len([part for part in visible.split(",") if part.strip() not in ("", "-1")]))


def machine_problems(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on accelerator, strategy and number of processes; values of a wrong kind are left to the rules."""
    accelerator, strategy = trainer.get("accelerator", "auto"), trainer.get("strategy", "auto")
    available = gpus()
    sharded = isinstance(strategy, str) and strategy.startswith("fsdp")
    if accelerator in ("gpu", "cuda") and not available:
        if sharded:
            yield f"`trainer.strategy={strategy}` needs a GPU and none is visible; on the CPU use `trainer=ddp`"
            return
        yield f"no GPU is visible for `trainer.accelerator={accelerator}`; use `trainer.accelerator=cpu` or `auto`"
        return
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not available)
    if on_cpu and sharded:
        yield f"`trainer.strategy={strategy}` needs a GPU; on the CPU use `trainer.strategy=ddp`"
    if on_cpu and trainer.get("precision") in ("16-mixed", "16-true"):
        yield f"`trainer.precision={trainer['precision']}` needs a GPU; on the CPU use `trainer.precision=bf16-mixed`"
    processes = trainer.get("devices", 1)
    if isinstance(processes, bool) or not isinstance(processes, int):
        return
    if on_cpu and processes > cores() and trainer.get("oversubscribe") is not True:
        yield f"{processes} processes on {_plural(cores(), 'core')}; pass `trainer.oversubscribe=true` to insist"
    if not on_cpu and accelerator != "tpu" and processes > available:
        yield f"{processes} processes on {_plural(available, 'GPU')}; set `trainer.devices={available}` or less"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
