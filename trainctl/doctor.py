"""`trainctl doctor`: what this machine offers a run and what is missing, one sentence a check.

Package ranges and extras are those of trainctl's own metadata; torch is not imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from trainctl.run import files, machine

Grade = Literal["ok", "warn", "fail"]
# Releases that an attacker published.
HARMFUL = {"pytorch-lightning": ("2.6.2", "2.6.3"), "lightning": ("2.6.2", "2.6.3")}
DATASETS = (
    "bike_sharing", "california_housing", "fashion_mnist", "fraud_handbook", "house_16h", "sms_spam", "trec",
    "wine_quality",
)  # fmt: skip
LOW_DISK, LOW_MEMORY = 5 * 10**9, 2 * 10**9


class Check(NamedTuple):
    """One line of the doctor's report."""

    name: str
    grade: Grade
    sentence: str


def doctor(runs_dir: Path = Path("runs"), probe_torch: bool = False) -> list[Check]:
    """All checks. `probe_torch` starts one Python process that imports torch and asks it about GPUs (seconds)."""
    declared = _declared()
    checks = [_python(), *_packages(declared), *_extras(declared), _gpu(), _cores(), _memory()]
    checks += [*_disk(runs_dir), _temporary(runs_dir)]
    checks += _data()
    return [*checks, _torch_probe()] if probe_torch else checks


def _python() -> Check:
    return Check("python", "ok", f"Python {platform.python_version()} in `{files.shown(sys.prefix)}`")


def _declared() -> list[Requirement]:
    try:
        return [Requirement(text) for text in importlib.metadata.requires("trainctl") or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def _packages(declared: list[Requirement]) -> Iterator[Check]:
    for package, releases in HARMFUL.items():
        if _version(package) in releases:
            text = f"{package} {_version(package)} was published by an attacker"
            yield Check(package, "fail", f"{text}; remove it, change your passwords and keys, and install 2.6.6")
    if not declared:
        yield Check("trainctl", "fail", "trainctl is run from its source without being installed; run `pip install .`")
    for requirement in declared:
        if requirement.marker is None:
            yield _package(requirement)


def _package(requirement: Requirement) -> Check:
    name, version = requirement.name, _version(requirement.name)
    install = f"run `pip install '{name}{requirement.specifier}'`"
    if version is None:
        return Check(name, "fail", f"{name} is not installed; {install}")
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(
            name, "fail", f"{name} {version} is not in the range that works ({requirement.specifier}); {install}"
        )
    return Check(name, "ok", f"{name} {version}")


def _extras(declared: list[Requirement]) -> Iterator[Check]:
    for extra in (importlib.metadata.metadata("trainctl").get_all("Provides-Extra") or []) if declared else []:
        if extra != "dev":
            parts = [item for item in declared if item.marker is not None and item.marker.evaluate({"extra": extra})]
            missing = [item.name for item in parts if _version(item.name) is None]
            add = f"`pip install 'trainctl[{extra}]'` adds it"
            text = (
                f"extra {extra} is not installed ({', '.join(missing)}); {add}"
                if missing
                else f"extra {extra} is installed"
            )
            yield Check(extra, "ok", text)


def _cores() -> Check:
    allowed, present = machine.allowed_cores(), os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    note = f"; OMP_NUM_THREADS={threads}" if threads else ""
    busy = os.getloadavg()[0]
    if busy > 0.8 * present:
        return Check("cores", "warn", f"{allowed} of {present} cores may be used, and the load is {busy:.1f}{note}")
    return Check("cores", "ok", f"{allowed} of {present} cores may be used{note}")


def _memory() -> Check:
    size = machine.memory()
    if size < LOW_MEMORY:
        return Check("memory", "warn", f"{files.megabytes(size)} of memory is little; torch alone takes about 0.5 GB")
    return Check("memory", "ok", f"{files.megabytes(size)} of memory")


def _disk(runs_dir: Path) -> Iterator[Check]:
    place = _existing(runs_dir)
    shown = files.shown(runs_dir)
    if not place.is_dir():
        yield Check("runs", "fail", f"`{files.shown(place)}` is not a directory; pass another one with `--runs-dir`")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        yield Check("runs", "fail", f"cannot write `{shown}`: permission denied; pass another one with `--runs-dir`")
    else:
        yield Check("runs", "ok", f"runs go to `{shown}`")
    free = shutil.disk_usage(place).free
    grade: Grade = "ok" if free >= LOW_DISK else "warn"
    yield Check("disk", grade, f"{files.megabytes(free)} free where `{shown}` is")


def _temporary(runs_dir: Path) -> Check:
    # Asking tempfile would write a file to find out.
    folder = Path(os.environ.get("TMPDIR") or "/tmp")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("temporary", "warn", f"`{files.shown(folder)}` (TMPDIR) cannot be written; some libraries need it")
    place = _existing(runs_dir)
    if folder.stat().st_dev != place.stat().st_dev:
        same = "checkpoints are safe: they are written inside the run directory"
        return Check("temporary", "ok", f"`{files.shown(folder)}` is on another file system than the runs; {same}")
    return Check("temporary", "ok", f"`{files.shown(folder)}` holds temporary files")


def _gpu() -> Check:
    names = machine.gpu_names()
    build = (_version("torch") or "").partition("+")[2]
    if not names:
        return Check("gpu", "ok", "no NVIDIA GPU visible; runs use the CPU")
    if build == "cpu":
        return Check(
            "gpu", "warn", f"{', '.join(names)} is there, but torch is its CPU build; install a CUDA build to use it"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Check("gpu", "warn", f"{', '.join(names)} is hidden by CUDA_VISIBLE_DEVICES={hidden!r}")
    return Check("gpu", "ok", f"{', '.join(names)}")


def _data() -> Iterator[Check]:
    folder = Path(os.environ.get("TRAINCTL_DATA") or "data")
    shown = files.shown(folder)
    if not folder.is_dir():
        if "TRAINCTL_DATA" in os.environ:
            yield Check("data", "warn", f"TRAINCTL_DATA is `{shown}`, which is not a directory")
        else:
            yield Check(
                "data", "ok", f"no `{shown}` directory; set TRAINCTL_DATA to read named data sets from elsewhere"
            )
        return
    found = [name for name in DATASETS if (folder / name).is_dir()]
    missing = [name for name in DATASETS if name not in found]
    text = f"`{shown}` has {', '.join(found) or 'none of the named data sets'}"
    yield Check("data", "ok", f"{text}; not there: {', '.join(missing)}" if found and missing else text)


def _torch_probe() -> Check:
    code = "import torch; print(torch.__version__, torch.cuda.is_available(), torch.get_num_threads())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("torch import", "fail", f"torch could not be imported: {error}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("torch import", "fail", f"torch cannot be imported: {last}")
    version, cuda, threads = done.stdout.split()
    gpu = "sees a GPU" if cuda == "True" else "sees no GPU"
    return Check("torch import", "ok", f"torch {version} imports, {gpu}, {threads} threads by default")


def _existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
