"""Fixtures for run directories: a folder that other users may enter, and a spell without root's rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trainctl
from trainctl.run.run import Run

NOBODY = 65534


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="trainctl-test-"))
    folder.chmod(0o755)
    yield folder
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)
    shutil.rmtree(folder)


@pytest.fixture
def as_ordinary_user() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Root obeys no permission bits, so tests about them run as nobody when root runs the tests."""

    @contextlib.contextmanager
    def spell() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if user == 0:
                os.seteuid(0)

    return spell


@pytest.fixture(autouse=True)
def _importable_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that tests start run in other directories, perhaps from a checkout that is not installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(trainctl.__file__).parents[1]))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "train" / "2026-11-20_12-00-00"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def run(path: Path) -> Run:
    return Run.create(path, "train", {"seed": 0, "model": {"_target_": "m.MLP"}}, ["model=mlp"])
