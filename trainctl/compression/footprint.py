"""Load time, and memory at the peak of loading and running a net: measured in a process of its own.

The process is forked from this one, which has torch and ONNX Runtime imported, so what counts is the net's alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch

Load = Callable[[], Callable[[Any], Any]]

ROUNDS = 5
PATIENCE_S = 120.0
M_MMAP_THRESHOLD = -3  # of glibc: larger tensors are mapped each for itself, so that what is freed is given back


class Footprint(TypedDict):
    """MB (10^6 bytes) at the peak over what was there before, and the ms of the fastest load; None: not measurable."""

    peak_memory_mb: float | None
    load_ms: float | None


def footprint(load: Load, x: Any, rounds: int = ROUNDS, patience: float = PATIENCE_S) -> Footprint:
    """What `load()` (which reads the artifact and gives a callable) and one call for `x` [B, ...] take, on one thread.

    A first round does not count: it brings the libraries' own code into memory. Both are None where that process fails
    or is not done after `patience` seconds; where none can be forked, only the load is timed, in this one.
    """
    nothing: Footprint = {"peak_memory_mb": None, "load_ms": None}
    if sys.platform != "linux":  # elsewhere frameworks do not survive a fork, and the peak cannot be set back
        return _measured(load, x, rounds)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads that a fork leaves behind; the child uses none
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _in_the_child(writing, load, x, rounds)
    os.close(writing)
    try:
        answer = _read(reading, time.monotonic() + patience)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return json.loads(answer) if answer.endswith(b"}") else nothing


def _in_the_child(writing: int, load: Load, x: Any, rounds: int) -> None:
    """Measure, answer and leave without any of the parent's exit handlers."""
    code = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        torch.set_num_threads(1)
        _be_quiet()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
        gc.freeze()  # what the parent left is not looked through again, which would copy its pages
        gc.disable()  # when it would collect cycles is chance: each round keeps its garbage to the end
        os.write(writing, json.dumps(_measured(load, x, rounds)).encode())
        code = 0
    finally:
        os._exit(code)


def _measured(load: Load, x: Any, rounds: int) -> Footprint:
    """As `footprint`, in this process."""
    with torch.inference_mode():
        load()(x)
        times, peaks = [], []
        for _ in range(rounds):
            _give_back_memory()
            before = _reset_peak()
            started = time.perf_counter()
            loaded = load()
            times.append(time.perf_counter() - started)
            loaded(x)
            peaks.append(None if before is None else max(0.0, (_status("VmHWM") - before) * 1024 / 1e6))
            del loaded
    known = sorted(peak for peak in peaks if peak is not None)
    return {
        "peak_memory_mb": round(known[len(known) // 2], 2) if known else None,
        "load_ms": round(min(times) * 1e3, 3),
    }


def _be_quiet() -> None:
    """What libraries say while they load was said in the parent already."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)


def _reset_peak() -> int | None:
    """Make now the peak; kB in memory now, or None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, ValueError, StopIteration):
        return None


def _status(name: str) -> int:
    """A figure of this process in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _give_back_memory() -> None:
    """What is free in the heap goes back to the system, or the next round would not need to ask for it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read(reading: int, deadline: float) -> bytes:
    """All that comes before the deadline."""
    parts: list[bytes] = []
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 65536)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)
