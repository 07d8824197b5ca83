from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from trainctl import doctor as module
from trainctl.doctor import Check, doctor
from trainctl.run import machine


def by_name(runs_dir: Path = Path("runs")) -> dict[str, Check]:
    return {check.name: check for check in doctor(runs_dir)}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINCTL_DATA", raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Installed versions as a broken environment would have them; the real one is healthy."""
    real = module._version
    told = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(module, "_version", lambda name: told[name] if name in told else real(name))


def test_nothing_fails_here_and_every_sentence_is_one_line() -> None:
    checks = doctor()
    assert [check for check in checks if check.grade == "fail"] == []
    assert all(check.sentence and "\n" not in check.sentence for check in checks)
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"python", "torch", "pytorch-lightning", "cores", "memory", "runs", "disk", "temporary", "gpu"} <= set(names)


def test_torch_is_not_imported() -> None:
    code = "import sys; from trainctl.doctor import doctor; doctor(); assert 'torch' not in sys.modules"
    root = str(Path(module.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})


def test_harmful_releases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, pytorch_lightning="2.6.3", lightning="2.6.2")
    found = {(check.name, check.sentence) for check in doctor() if check.grade == "fail"}
    cure = "was published by an attacker; remove it, change your passwords and keys, and install 2.6.6"
    assert ("pytorch-lightning", f"pytorch-lightning 2.6.3 {cure}") in found
    assert ("lightning", f"lightning 2.6.2 {cure}") in found


def test_packages_that_are_missing_or_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, polars=None, omegaconf="2.9")
    checks = by_name()
    ranges = {item.name: item.specifier for item in map(Requirement, importlib.metadata.requires("trainctl") or [])}
    assert checks["polars"] == (
        "polars", "fail", f"polars is not installed; run `pip install 'polars{ranges['polars']}'`"
    )  # fmt: skip
    wanted = ranges["omegaconf"]
    assert checks["omegaconf"].sentence == (
        f"omegaconf 2.9 is not in the range that works ({wanted}); run `pip install 'omegaconf{wanted}'`"
    )


def test_extras_name_the_command_that_adds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, mlflow=None, tensorboard="2.20")
    checks = by_name()
    assert checks["mlflow"] == (
        "mlflow", "ok", "extra mlflow is not installed (mlflow); `pip install 'trainctl[mlflow]'` adds it"
    )  # fmt: skip
    assert checks["tensorboard"].sentence == "extra tensorboard is installed"
    assert "dev" not in checks


def test_a_source_tree_without_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert by_name()["trainctl"].sentence == (
        "trainctl is run from its source without being installed; run `pip install .`"
    )


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: [])
    assert by_name()["gpu"].sentence == "no NVIDIA GPU visible; runs use the CPU"
    monkeypatch.setattr(machine, "gpu_names", lambda: ["H200"])
    pretend(monkeypatch, torch="2.13.0+cpu")
    assert by_name()["gpu"] == (
        "gpu", "warn", "H200 is there, but torch is its CPU build; install a CUDA build to use it"
    )  # fmt: skip
    pretend(monkeypatch, torch="2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert by_name()["gpu"] == ("gpu", "ok", "H200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert by_name()["gpu"].sentence == "H200 is hidden by CUDA_VISIBLE_DEVICES=''"


def test_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert by_name()["cores"] == ("cores", "ok", "2 of 8 cores may be used; OMP_NUM_THREADS=1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    assert by_name()["cores"] == ("cores", "warn", "2 of 8 cores may be used, and the load is 9.0")
    monkeypatch.setattr(machine, "memory", lambda: 10**9)
    assert by_name()["memory"].sentence == "1 GB of memory is little; torch alone takes about 0.5 GB"


def test_where_runs_go(tmp_path: Path) -> None:
    assert by_name()["runs"].sentence == "runs go to `runs`"
    assert re.fullmatch(r"[\d.]+ [kMG]?B free where `runs/deep` is", by_name(Path("runs/deep"))["disk"].sentence)
    (tmp_path / "file").touch()
    assert by_name(Path("file/runs"))["runs"].sentence == (
        "`file` is not a directory; pass another one with `--runs-dir`"
    )


def test_a_runs_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the answer of access(2) is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    checks = by_name()
    assert checks["runs"].sentence == ("cannot write `runs`: permission denied; pass another one with `--runs-dir`")
    assert checks["temporary"] == (
        "temporary", "warn", f"`{tmp_path}` (TMPDIR) cannot be written; some libraries need it"
    )  # fmt: skip


def test_a_temporary_directory_elsewhere_is_no_danger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    assert by_name()["temporary"].sentence == (
        "`/dev/shm` is on another file system than the runs; checkpoints are safe: "
        "they are written inside the run directory"
    )
    monkeypatch.setenv("TMPDIR", ".")
    assert by_name()["temporary"].sentence.endswith("holds temporary files")


def test_named_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name()["data"].sentence == (
        "no `data` directory; set TRAINCTL_DATA to read named data sets from elsewhere"
    )
    monkeypatch.setenv("TRAINCTL_DATA", "sets")
    assert by_name()["data"].sentence == "TRAINCTL_DATA is `sets`, which is not a directory"
    (tmp_path / "sets").mkdir()
    assert by_name()["data"].sentence == "`sets` has none of the named data sets"
    (tmp_path / "sets" / "california_housing").mkdir()
    assert by_name()["data"].sentence.startswith("`sets` has california_housing; not there: ")


def test_the_probe_asks_torch_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in interpreter: importing the real torch takes seconds and is tried by every other test."""
    fake = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(fake))
    fake.write_text("#!/bin/sh\necho 2.13.0+cpu False 2\n")
    fake.chmod(0o755)
    assert doctor(probe_torch=True)[-1] == (
        "torch import", "ok", "torch 2.13.0+cpu imports, sees no GPU, 2 threads by default"
    )  # fmt: skip
    fake.write_text("#!/bin/sh\necho 'ImportError: libc10.so' >&2; exit 1\n")
    assert doctor(probe_torch=True)[-1].sentence == "torch cannot be imported: ImportError: libc10.so"
    fake.unlink()
    assert doctor(probe_torch=True)[-1].grade == "fail"
