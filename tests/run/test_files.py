from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainctl.errors import ResourceError, RunError, UsageError
from trainctl.run import files


def test_write_atomic_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_atomic(target, "one\n")
    files.write_atomic(target, b"two\n")
    assert target.read_bytes() == b"two\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_the_old_file_and_removes_its_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    files.write_atomic(target, "old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", _raise(errno.ENOSPC))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: _Usage())
    with pytest.raises(ResourceError) as caught:
        files.write_atomic(target, b"x" * 12_000_000)
    assert str(caught.value) == "disk full writing 12 MB (6 MB free) to `a.txt`"
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_longer_than_files_may_be_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", _raise(errno.EFBIG))
    with pytest.raises(ResourceError) as caught:
        files.write_atomic(tmp_path / "a.txt", b"x" * 12_000)
    assert str(caught.value) == "the limit on file sizes (ulimit -f) is reached writing 12 kB to `a.txt`"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_an_input_output_error_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, call, _raise(errno.EIO))
    with pytest.raises(ResourceError) as caught:
        files.write_atomic(tmp_path / "a.txt", "new")
    assert str(caught.value) == "cannot write `a.txt`: input/output error"
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_directory_is_a_resource_error(shared_folder: Path, as_ordinary_user, monkeypatch) -> None:
    folder = shared_folder / "run"
    folder.mkdir()
    folder.chmod(0o555)
    monkeypatch.chdir(shared_folder)
    with as_ordinary_user(), pytest.raises(ResourceError) as caught:
        files.write_atomic(folder / "x", "text")
    assert str(caught.value) == "cannot write `run/x`: permission denied"


def test_names_over_255_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        files.write_atomic(tmp_path / ("é" * 128), "text")
    assert str(caught.value) == f"name too long: `{'é' * 40}...` has 256 bytes, at most 255 fit"
    files.write_atomic(tmp_path / ("é" * 127), "text")


def test_a_directory_that_is_gone_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as caught:
        files.write_atomic(tmp_path / "gone" / "x", "text")
    assert str(caught.value) == "cannot write `gone/x`: its directory is gone"


def test_sweep_removes_only_temporary_files_of_dead_processes(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".tmp-last.ckpt-{dead.pid}-0123abcd").touch()
    (tmp_path / f".tmp-a\nb-{dead.pid}-0123abcd").touch()
    kept = {f".tmp-last.ckpt-{os.getpid()}-0123abcd", ".tmp-1-1-0123abcd", "last.ckpt", ".tmp-mine"}
    for name in kept:
        (tmp_path / name).touch()
    assert len(files.sweep_temps(tmp_path)) == 2
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert files.sweep_temps(tmp_path / "no such folder") == []


def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert zombie.stdout is not None and zombie.stdout.read() == b""  # its end, and not yet waited for
    left = tmp_path / f".tmp-last.ckpt-{zombie.pid}-0123abcd"
    left.touch()
    deadline = time.monotonic() + 10
    while not files.sweep_temps(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left.exists()
    zombie.wait()
    zombie.stdout.close()


def test_temp_names_fit_beside_the_longest_name(tmp_path: Path) -> None:
    assert len(os.fsencode(files.temp_path(tmp_path / ("x" * 255)).name)) <= 255


def test_shown_paths_are_short_and_stay_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.shown(tmp_path / "a" / "ü b=c") == "a/ü b=c"
    assert files.shown("/x\ny\x1b[31m") == "/x\\ny\\x1b[31m"
    assert files.shown(tmp_path.parent) == str(tmp_path.parent)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (900, "900 B"), (1500, "1.5 kB"), (12_000_000, "12 MB"), (7.4e13, "74000 GB")]
)
def test_megabytes(size: float, text: str) -> None:
    assert files.megabytes(size) == text


def test_read_json_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, sentence in {
        "none.json": "no such file: `none.json`",
        "bad.json": "`bad.json` is damaged: it is not JSON",
        "deep.json": "`deep.json` is damaged: it is not JSON",
        ".": "cannot read `" + str(tmp_path) + "`: is a directory",
    }.items():
        with pytest.raises(RunError) as caught:
            files.read_json(tmp_path / name)
        assert str(caught.value) == sentence


def test_file_systems_without_directory_fsync_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _raise(errno.EINVAL))
    files.sync_directory(tmp_path)


class _Usage:
    free = 6_000_000


def _raise(number: int):
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        7,
        "ünï\n",
        {"a": {}, "b": [], "c": None, "d": [1, [2.5, {"e": True}], ()], "f": {"g": "h\t\"", "i": {"j": -0.0}}},
        {1: {2: "x", None: 1e-30}, "long": list(range(9000)), "deep": {"k": [{"l": [[]]}]}},
        [{"a": 1}, {"a": [None, False]}],
    ],
)
def test_json_is_indented_as_the_library_does_it(content: object) -> None:
    for _ in range(2):
        assert files.to_json(content) == json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def test_json_without_a_number_is_refused() -> None:
    for content in (float("nan"), {"a": float("inf")}, {"a": {"b": [float("nan")]}}):
        with pytest.raises(ValueError):
            files.to_json(content)
