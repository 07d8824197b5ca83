"""The command line under bad conditions, in a folder of the test's own, and runs to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainctl.cli.app import run as command_line

QUICK = ("data=synthetic", "data.rows=300", "data.batch_size=32", "trainer.threads=1", "trainer.max_epochs=3")
START = "trainctl: error: "


class Shell:
    """Real commands in one folder; `shell(...)` runs one, `shell.error(code, ...)` one that must fail."""

    quick = ("train", *QUICK)

    def __init__(self, forked: Any, folder: Path) -> None:
        self.forked, self.folder = forked, folder

    def start(self, *words: object, **options: Any) -> Any:
        """Begin a command, on a machine without a GPU."""
        env = {"CUDA_VISIBLE_DEVICES": "", **options.pop("env", {})}
        return self.forked.start(*map(str, words), cwd=self.folder, env=env, **options)

    def __call__(self, *words: object, **options: Any) -> Any:
        """Run a command to its end; no traceback is ever shown unasked."""
        done = self.start(*words, **options).wait()
        assert "Traceback" not in done.err or "--traceback" in words, done.err
        return done

    def train(self, *words: object, **options: Any) -> Any:
        """A quick training changed by `words`."""
        return self("train", *QUICK, *words, **options)

    def error(self, code: int, *words: object, **options: Any) -> str:
        """The sentence of a command that must end with `code`: one line, the last one, and nothing on stdout."""
        done = self(*words, **options)
        lines = done.err.splitlines()
        assert done.code == code, (done.code, done.err)
        assert done.out == ""
        assert [line.startswith(START) for line in lines].index(True) == len(lines) - 1, done.err
        return str(lines[-1].removeprefix(START))

    def refused(self, code: int, *words: object, **options: Any) -> str:
        """As `error`; the command has created nothing, changed nothing and taken nothing away."""
        before = content(self.folder)
        sentence = self.error(code, *words, **options)
        assert content(self.folder) == before
        return sentence

    def run(self, verb: str = "train") -> Path:
        """The latest run directory of a verb."""
        return max((self.folder / "runs" / verb).iterdir())


class Here(Shell):
    """The same inside this process: faster, for what ends before torch is needed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *words: object, **options: Any) -> Any:
        """Run a command to its end."""
        code = command_line([*map(str, words)])
        out, err = self.capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder` with its bytes; lock files only say who looked last."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


@pytest.fixture
def shell(forked: Any, tmp_path: Path) -> Shell:
    """Commands in an empty folder."""
    return Shell(forked, tmp_path)


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Commands in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Here(tmp_path, capsys)


@pytest.fixture(scope="session")
def trained(forked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run; copy it before you spoil it."""
    shell = Shell(forked, tmp_path_factory.mktemp("trained"))
    assert shell.train().code == 0
    return shell.folder


@pytest.fixture
def spoiled(shell: Shell, trained: Path) -> Iterator[Shell]:
    """Commands in a folder that holds a copy of a finished run, to be spoiled by the test."""
    shutil.copytree(trained, shell.folder, dirs_exist_ok=True)
    yield shell


@pytest.fixture
def spoiled_here(here: Here, trained: Path) -> Here:
    """As `spoiled`, in this process."""
    shutil.copytree(trained, here.folder, dirs_exist_ok=True)
    return here
