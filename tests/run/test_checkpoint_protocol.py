"""Kills, failing system calls and their order: whatever happens, a whole checkpoint is there."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainctl.errors import ResourceError
from trainctl.run import checkpoints, files

ZIP = b"PK\x03\x04"

# Commits epoch after epoch from where it finds itself, and says so after each.
LOOP = """
import os, pathlib, sys
from trainctl.run import checkpoints
run = pathlib.Path(sys.argv[1])
epoch = checkpoints.find(run).epoch if checkpoints.names(run) else -1
while True:
    epoch += 1
    temp = checkpoints.temp_path(run)
    temp.write_bytes(b"PK\\x03\\x04" + epoch.to_bytes(8, "little") * 20_000)
    checkpoints.commit(run, temp, best=epoch % 3 == 0, info={"epoch": epoch})
    os.write(1, f"{epoch}\\n".encode())
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    path.mkdir()
    return path


def save(run: Path, epoch: int, best: bool = False, size: int = 1000, keep_last: bool = True) -> str:
    temp = checkpoints.temp_path(run)
    temp.write_bytes(ZIP + bytes([epoch]) * (size - 4))
    return checkpoints.commit(run, temp, best=best, keep_last=keep_last, info={"epoch": epoch, "step": epoch * 7})


def test_the_order_of_system_calls(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content before digest, digest before names, every rename of a synced file: what survives a power cut."""
    save(run, 0)
    calls: list[str] = []

    def record(call: str, name: Callable[..., str]) -> None:
        real = getattr(os, call)

        def said(*arguments: object, **options: object) -> object:
            calls.append(f"{call} {name(*arguments)}")
            return real(*arguments, **options)

        monkeypatch.setattr(os, call, said)

    record("fsync", lambda descriptor: short(os.readlink(f"/proc/self/fd/{descriptor}")))
    record("replace", lambda source, target: f"{short(source)} -> {short(target)}")
    record("link", lambda source, target: f"{short(source)} -> {short(target)}")
    save(run, 1, best=True)
    assert calls == [
        "fsync temp of last.ckpt",
        "fsync temp of manifest.json",
        "replace temp of manifest.json -> manifest.json",
        "link temp of last.ckpt -> temp of best.ckpt",
        "replace temp of best.ckpt -> best.ckpt",
        "link last.ckpt -> temp of prev.ckpt",
        "replace temp of prev.ckpt -> prev.ckpt",
        "replace temp of last.ckpt -> last.ckpt",
        "fsync checkpoints",
    ]


def short(path: str | Path) -> str:
    return re.sub(r"^\.tmp-(.*)-\d+-[0-9a-f]{8}$", r"temp of \1", Path(path).name)


@pytest.mark.parametrize("call", ["replace", "fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_of_any_system_call_keeps_a_good_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    save(run, 0, best=True)
    real = getattr(os, call)
    failures = 0
    for turn in range(8):
        count = 0

        def fail_once(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == turn + 1:  # noqa: B023
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail_once)
            try:
                save(run, turn + 1, best=True)
            except ResourceError as error:
                failures += 1
                assert str(error).startswith(("disk full writing", "cannot write `run/"))
        assert checkpoints.find(run).epoch is not None
        assert checkpoints.find(run, "best").epoch is not None
    assert failures >= 2 or call == "link"


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_checkpoint_at_most_one_commit_old(run: Path) -> None:
    chance = random.Random(0)
    reached = -1
    for _ in range(30):
        process = subprocess.Popen([sys.executable, "-c", LOOP, str(run)], stdout=subprocess.PIPE, bufsize=0)
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(chance.random() * 0.02)
        process.kill()
        said += process.stdout.read()
        process.stdout.close()
        process.wait()
        acknowledged = int(said.decode().split()[-1])
        found = checkpoints.find(run)
        assert found.name == "last" and found.warning is None and found.epoch is not None
        assert acknowledged <= found.epoch <= acknowledged + 1
        assert acknowledged > reached, "each process goes on where the one before was killed"
        assert checkpoints.find(run, "best").epoch is not None
        assert found.epoch < 2 or checkpoints.find(run, "prev").epoch is not None
        reached = found.epoch
    files.sweep_temps(run / "checkpoints")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "prev.ckpt"]


def test_a_commit_is_cheap(run: Path) -> None:
    costs = []
    for epoch in range(10):
        temp = checkpoints.temp_path(run)
        temp.write_bytes(ZIP + bytes([epoch]) * 100_000)
        begin = time.process_time()
        checkpoints.commit(run, temp, best=True, info={"epoch": epoch})
        costs.append(time.process_time() - begin)
    assert min(costs) < 0.005
