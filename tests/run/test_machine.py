from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from trainctl.run import machine


def test_git_commit_and_dirty_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], check=True)
    assert machine.finish_git(machine.start_git()) is None
    Path("file").write_text("1")
    subprocess.run(["git", "add", "file"], check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "x"], check=True)
    clean = machine.finish_git(machine.start_git())
    assert clean is not None and re.fullmatch("[0-9a-f]{40}", clean["commit"]) and clean["dirty"] is False
    Path("file").write_text("2")
    assert machine.finish_git(machine.start_git()) == {**clean, "dirty": True}


def test_a_machine_without_git_and_a_slow_git_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.finish_git(machine.start_git(), timeout=0.1) is None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert machine.start_git() is None and machine.finish_git(None) is None


def pretend(monkeypatch: pytest.MonkeyPatch, **told: str) -> None:
    """What the kernel's files say, by the last part of their name (`cpu.max` as `cpu_max`)."""
    real = machine._read
    names = {name.replace("_", "."): text for name, text in told.items()}
    monkeypatch.setattr(machine, "_read", lambda path: names.get(Path(path).name, "") or real(path))


def test_cores_and_memory_obey_the_containers_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for quota, cores in {"max 100000": 8, "150000 100000": 2, "10000 100000": 1, "9900000 100000": 8}.items():
        pretend(monkeypatch, cpu_max=quota)
        assert machine.allowed_cores() == cores
    pretend(monkeypatch, memory_max="1000000\n")
    assert machine.memory() == 1_000_000
    pretend(monkeypatch, memory_max="max\n")
    assert machine.memory() > 10**8


def test_gpus_are_those_the_driver_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "information").write_text("Model: \t NVIDIA H200\nIRQ: 3\n")
    assert machine.gpu_names(tmp_path) == ["NVIDIA H200", "NVIDIA H200"]
    assert machine.gpu_names(tmp_path / "none") == []


def test_the_user_is_known_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    assert machine.user() == "ada"
    monkeypatch.delenv("LOGNAME")
    monkeypatch.delenv("USER", raising=False)
    assert machine.user() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert machine.user() == "4000000"


def test_a_process_is_known_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    me = machine.process()
    assert machine.alive(me) is True
    assert machine.alive({**me, "pid_start": me["pid_start"] - 1}) is False
    assert machine.alive({**me, "host": "elsewhere"}) is None
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert machine.alive({**me, "pid_start": None}) is True, "without /proc the pid alone must do"
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert machine.alive({**me, "pid": gone.pid}) is False


def test_the_processes_of_others_are_alive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    monkeypatch.setattr(os, "kill", refuse)
    assert machine.alive({**machine.process(), "pid": 1}) is True
