"""What a command and everything it starts costs: CPU and wall seconds, and where the memory and CPU go meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PYTHON = sys.executable
TRAINCTL = [str(Path(PYTHON).with_name("trainctl"))]
_PR_SET_CHILD_SUBREAPER = 36
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def adopt() -> None:
    """Processes that a command leaves behind (Ray's) become ours, so that their CPU is counted too."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cost(command: Sequence[str], cwd: Path, watch: Callable[[int], None] | None = None) -> tuple[float, float]:
    """CPU and wall seconds of a command with all its processes; `watch(pid)` is called every 50 ms while it runs."""
    before, begun = _children(), time.perf_counter()
    with open(cwd / "output.txt", "wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=ENV, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        while watch is not None and process.poll() is None:
            watch(process.pid)
            time.sleep(0.05)
        code = process.wait()
    wall = time.perf_counter() - begun
    _reap()
    if code:
        text = (cwd / "output.txt").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{text[-3000:]}")
    return _children() - before, wall


class Sampled:
    """CPU seconds of processes whose parent does not wait for them, as Ray's: what was last seen of each."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def __call__(self, pid: int) -> None:
        for found in [pid, *_descendants(pid)]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.seen[found] = sum(map(int, _stat(found)[11:13])) / _TICK


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap() -> None:
    """Wait for what a command left behind; after ten seconds end it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            for orphan in _descendants(os.getpid()) if time.monotonic() > deadline else []:
                os.kill(orphan, signal.SIGKILL)
            time.sleep(0.02)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (field 3 of proc(5) is index 0)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _descendants(pid: int) -> list[int]:
    """What a process has started, and what that has started, without those that have ended."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = children.get(pid, [])
    for child in found:  # grows meanwhile
        found += children.get(child, [])
    return found


def cpu_of_tree(pid: int) -> float:
    """CPU seconds so far of a process and all that it started, ended ones included (10 ms steps)."""
    total = 0
    for found in [pid, *_descendants(pid)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += sum(map(int, _stat(found)[11:15]))
    return total / _TICK


def memory(pid: int) -> float:
    """Resident memory of a process in MB, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE / 1e6
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers with three digits."""
    lines = [head, ["---"] * len(head), *rows]
    texts = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def machine() -> str:
    """One line about where this was measured."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    load = ", ".join(f"{v:.1f}" for v in os.getloadavg())
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load at the end {load}, commit {commit}"
