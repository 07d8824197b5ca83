"""What a run records about where it ran: process, host, hardware, package versions, git commit.

Cheap on purpose (a few files below /proc, package metadata, one git call); nothing here imports what it reports on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("trainctl", "torch", "pytorch-lightning", "torchmetrics", "numpy", "polars", "hydra-core", "safetensors")


def process() -> dict[str, Any]:
    """Who writes the run: pid, its start time in clock ticks since boot, host, boot id, user."""
    pid = os.getpid()
    return {
        "pid": pid,
        "pid_start": start_ticks(pid),
        "host": host(),
        "boot_id": boot_id(),
        "user": user(),
    }


def host() -> str:
    """This machine's (or container's) name."""
    return socket.gethostname()


def boot_id() -> str:
    """Differs after every boot of this machine; empty where the kernel does not tell."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def user() -> str:
    """Login name, else the number; works without HOME and without an entry in the password file."""
    for name in ("LOGNAME", "USER"):
        if os.environ.get(name):
            return os.environ[name]
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def start_ticks(pid: int) -> int | None:
    """When a process began, so that a reused pid is not taken for the old process; None when it is gone."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def alive(record: dict[str, Any]) -> bool | None:
    """Whether the process that wrote `record` (see `process`) still runs; None when another host's."""
    if record.get("host") != host():
        return None
    if record.get("boot_id") != boot_id():
        return False
    pid = record.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if os.path.isdir("/proc/self"):
        return start_ticks(pid) is not None and start_ticks(pid) == record.get("pid_start")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """Cores this process may use, CPU name, memory in bytes (the container's limit when smaller), GPU names."""
    model = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "cores": allowed_cores(),
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "memory": memory(),
        "gpus": gpu_names(),
    }


def allowed_cores() -> int:
    """Cores this process may use: its affinity, cut by the container's CPU quota (rounded up)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, -(-int(quota) // int(period))))
    return cores


def memory() -> int:
    """Bytes of memory: the machine's, or the container's limit when that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def gpu_names(listed: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """NVIDIA GPUs that the kernel driver lists; empty without the driver."""
    names = []
    for information in sorted(listed.glob("*/information")):
        for line in _read(str(information)).splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def start_git() -> subprocess.Popen[bytes] | None:
    """Begin asking git about the current directory; None without git. Read the answer with `finish_git`."""
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError:
        return None


def finish_git(git: subprocess.Popen[bytes] | None, timeout: float = 1.0) -> dict[str, Any] | None:
    """`{commit, dirty}` of the repository around the current directory, None outside one or after `timeout` seconds."""
    if git is None:
        return None
    try:
        lines = git.communicate(timeout=timeout)[0].decode(errors="replace").splitlines()
    except subprocess.TimeoutExpired:
        git.kill()
        git.communicate()
        return None
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid")]
    if git.returncode or not commits or commits[0] == "(initial)":
        return None
    return {"commit": commits[0], "dirty": any(not line.startswith("#") for line in lines)}


def surroundings(git: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """What a run's figures depend on beside its config; `git` as `start_git` gave it."""
    folder = None
    with contextlib.suppress(FileNotFoundError):
        folder = os.getcwd()
    return {"cwd": folder, "versions": versions(), "hardware": hardware(), "git": finish_git(git)}


@functools.cache
def facts(pid: int) -> dict[str, Any]:
    """`process` and `surroundings`, asked for once by each process (`pid`: its own) that makes many runs."""
    return {**process(), **surroundings(start_git())}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
