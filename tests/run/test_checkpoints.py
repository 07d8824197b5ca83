from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from trainctl.errors import ResourceError, RunError
from trainctl.run import checkpoints

ZIP = b"PK\x03\x04"


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


def epochs(run: Path) -> dict[str, int | None]:
    return {name: checkpoints.find(run, name).epoch for name in checkpoints.names(run)}


def sentence(call, *arguments: object) -> str:
    with pytest.raises(RunError) as caught:
        call(*arguments)
    return str(caught.value)


def known(run: Path) -> dict[str, dict]:
    return json.loads((run / "manifest.json").read_text())["checkpoints"]


def test_names_move_on_with_each_commit(run: Path) -> None:
    save(run, 0, best=True)
    assert epochs(run) == {"last": 0, "best": 0}
    save(run, 1)
    assert epochs(run) == {"last": 1, "prev": 0, "best": 0}
    save(run, 2)
    save(run, 3, best=True)
    assert epochs(run) == {"last": 3, "prev": 2, "best": 3}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "prev.ckpt"]
    found = checkpoints.find(run)
    assert (found.name, found.epoch, found.step, found.warning) == ("last", 3, 21, None)
    assert found.path == run / "checkpoints" / "last.ckpt"


def test_only_digests_in_use_are_kept(run: Path) -> None:
    for epoch in range(20):
        save(run, epoch, best=epoch == 2)
    assert sorted(entry["epoch"] for entry in known(run).values()) == [2, 17, 18, 19]


def test_best_alone_leaves_last_as_it_is(run: Path) -> None:
    save(run, 0)
    save(run, 1, best=True, keep_last=False)
    assert epochs(run) == {"last": 0, "best": 1}
    assert not list((run / "checkpoints").glob(".tmp-*"))


def test_committing_the_same_content_twice(run: Path) -> None:
    assert save(run, 0, best=True) == save(run, 0, best=True)
    assert epochs(run) == {"last": 0, "prev": 0, "best": 0}
    assert len(list((run / "checkpoints").iterdir())) == 3


def test_other_parts_of_the_manifest_survive(run: Path) -> None:
    (run / "manifest.json").write_text('{"files": {"config.yaml": {"size": 1, "sha256": "x"}}}')
    save(run, 0)
    assert json.loads((run / "manifest.json").read_text())["files"] == {"config.yaml": {"size": 1, "sha256": "x"}}


def test_a_copied_run_goes_on(run: Path) -> None:
    for epoch in range(3):
        save(run, epoch, best=epoch == 0)
    other = run.parent / "copy"
    shutil.copytree(run, other)
    save(other, 3)
    save(other, 4)
    assert epochs(other) == {"last": 4, "prev": 3, "best": 0}


def test_file_systems_without_hard_links_get_copies(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    for epoch in range(3):
        save(run, epoch, best=epoch == 1)
    assert epochs(run) == {"last": 2, "prev": 1, "best": 1}


def test_missing_checkpoints(run: Path) -> None:
    assert sentence(checkpoints.find, run) == "run `run` has no checkpoint: it ended before its first one"
    assert sentence(checkpoints.find, run, "last") == "no checkpoint `last`; the run has: none"
    save(run, 0, best=True)
    (run / "checkpoints" / "mine.ckpt").touch()
    assert sentence(checkpoints.find, run, "x") == "no checkpoint `x`; the run has: last, best, mine"
    assert sentence(checkpoints.find, run, "../last") == (
        "`../last` is not a checkpoint's name; the run has: last, best, mine"
    )
    assert checkpoints.find(run, "best.ckpt").epoch == 0


def test_a_truncated_last_falls_back_to_prev_and_is_set_aside(run: Path) -> None:
    save(run, 6, size=8_000_000)
    save(run, 7, size=8_000_000)
    os.truncate(run / "checkpoints" / "last.ckpt", 4_000_000)
    assert sentence(checkpoints.find, run, "last") == "`last` is damaged (size 4 of 8 MB)"
    found = checkpoints.find(run)
    assert (found.name, found.epoch) == ("prev", 6)
    assert found.warning == "`last` is damaged (size 4 of 8 MB); using `prev` (epoch 6)"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt.damaged", "prev.ckpt"]
    save(run, 7)
    assert epochs(run)["last"] == 7


def test_every_single_bit_flip_is_noticed(run: Path) -> None:
    save(run, 0, best=True, size=5000)
    best = run / "checkpoints" / "best.ckpt"
    clean = best.read_bytes()
    chance = random.Random(0)
    for _ in range(200):
        flipped = bytearray(clean)
        flipped[chance.randrange(len(clean))] ^= 1 << chance.randrange(8)
        best.write_bytes(flipped)
        assert sentence(checkpoints.find, run, "best") == "`best` fails its checksum"
    best.write_bytes(clean)
    assert checkpoints.find(run, "best").epoch == 0


def test_what_is_no_checkpoint(run: Path) -> None:
    save(run, 0, best=True)
    folder = run / "checkpoints"
    (folder / "empty.ckpt").touch()
    (folder / "garbage.ckpt").write_bytes(b"hello")
    (folder / "folder.ckpt").mkdir()
    for name in ("empty", "garbage", "folder"):
        assert sentence(checkpoints.find, run, name) == f"`{name}` is not a checkpoint"
    (folder / "foreign.ckpt").write_bytes(ZIP + b"another run's")
    assert sentence(checkpoints.find, run, "foreign") == "`foreign` fails its checksum"
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").touch()
    assert sentence(checkpoints.find, run, "last") == "`last` is not a checkpoint"
    (folder / "out.ckpt").symlink_to("/etc/passwd")
    assert sentence(checkpoints.find, run, "out") == "manifest of `run` points outside the run dir; refused"


def test_when_prev_is_damaged_too(run: Path) -> None:
    for epoch in range(3):
        save(run, epoch, best=epoch == 0)
    for name in ("last", "prev"):
        os.truncate(run / "checkpoints" / f"{name}.ckpt", 500)
    assert sentence(checkpoints.find, run) == (
        "`last` is damaged (size 0.5 of 1 kB), and `prev` cannot be used either; "
        "`best` is still there: start a new run from it with `--from`"
    )
    assert (run / "checkpoints" / "last.ckpt").exists(), "nothing is set aside when nothing replaces it"
    (run / "checkpoints" / "best.ckpt").unlink()
    assert sentence(checkpoints.find, run) == ("`last` is damaged (size 0.5 of 1 kB), and `prev` cannot be used either")


def test_an_unreadable_checkpoint(shared_folder: Path, as_ordinary_user) -> None:
    save(shared_folder, 0)
    (shared_folder / "checkpoints" / "last.ckpt").chmod(0)
    with as_ordinary_user():
        assert sentence(checkpoints.find, shared_folder, "last") == ("cannot read checkpoint `last`: permission denied")


def test_a_read_only_folder_is_an_error_not_a_stale_last(shared_folder: Path, as_ordinary_user) -> None:
    save(shared_folder, 0)
    folder = shared_folder / "checkpoints"
    temp = checkpoints.temp_path(shared_folder)
    temp.write_bytes(ZIP)
    temp.chmod(0o644)
    shared_folder.chmod(0o555)
    folder.chmod(0o555)
    with as_ordinary_user(), pytest.raises(ResourceError) as caught:
        checkpoints.commit(shared_folder, temp, best=False, info={"epoch": 1})
    assert str(caught.value) == f"cannot write `{shared_folder}/manifest.json`: permission denied"
    empty = shared_folder.parent / f"{shared_folder.name}-empty"
    empty.mkdir(mode=0o555)
    try:
        with as_ordinary_user(), pytest.raises(ResourceError) as caught:
            checkpoints.temp_path(empty)
    finally:
        empty.rmdir()
    assert str(caught.value) == f"cannot write `{empty}/checkpoints`: permission denied"


def test_a_run_that_vanished(run: Path) -> None:
    temp = checkpoints.temp_path(run)
    temp.write_bytes(ZIP)
    shutil.rmtree(run)
    expected = "run dir `run` vanished; stopping"
    assert sentence(checkpoints.temp_path, run) == expected
    with pytest.raises(RunError) as caught:
        checkpoints.commit(run, temp, best=False, info={})
    assert str(caught.value) == expected
