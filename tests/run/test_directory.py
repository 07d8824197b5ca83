from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainctl.errors import ResourceError, RunError, UsageError
from trainctl.run import directory
from trainctl.run.run import Run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of two verbs, named by hand so that their order is known."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "train/2026-11-20_12-00-00",
        "train/2026-11-20_12-00-00-2",
        "train/2026-11-20_12-00-00-10",
        "evaluate/2026-11-20_13-00-00",
    ):
        make(tmp_path / "runs" / name)
    return Path("runs")


def make(path: Path, **fields: object) -> Path:
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"verb": path.parent.name, "status": "completed", **fields}))
    return path


def error_of(runs: Path, text: str) -> str:
    with pytest.raises(RunError) as caught:
        directory.resolve(runs, text)
    return str(caught.value)


FORK_FIFTY = """
import os, pathlib, sys, time
from trainctl.run.directory import claim
start = time.time() + 0.3
for _ in range(50):
    if os.fork() == 0:
        time.sleep(max(0, start - time.time()))
        os.write(1, f"{claim(pathlib.Path(sys.argv[1]), 'train')}\\n".encode())
        os._exit(0)
codes = [os.wait()[1] for _ in range(50)]
sys.exit(any(codes))
"""


def test_fifty_processes_at_once_claim_fifty_directories(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK_FIFTY, str(tmp_path)]
    claimed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert len(set(claimed)) == 50
    assert sorted(claimed) == sorted(str(path) for path in (tmp_path / "train").iterdir())


def test_the_name_is_the_time_and_a_number_from_the_second_on(tmp_path: Path) -> None:
    names = [directory.claim(tmp_path, "train").name for _ in range(8)]
    assert len(set(names)) == 8
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-[2-8])?", name) for name in names)
    assert names == [path.name for path in directory._all(tmp_path)]


def test_claim_below_a_file_or_without_permission(
    tmp_path: Path, shared_folder: Path, as_ordinary_user, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("file", "file/runs"):
        with pytest.raises(UsageError) as wrong:
            directory.claim(Path(name), "train")
        assert str(wrong.value) == f"`{name}` is not a directory; pass another one with `--runs-dir`"
    shared_folder.chmod(0o555)
    with as_ordinary_user(), pytest.raises(ResourceError) as caught:
        directory.claim(shared_folder / "runs", "train")
    assert str(caught.value) == f"cannot write `{shared_folder}/runs/train`: permission denied"
    with pytest.raises(UsageError, match="name too long"):
        directory.claim(tmp_path, "x" * 256)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/train/2026-11-20_12-00-00", "train/2026-11-20_12-00-00"),
        ("train/2026-11-20_12-00-00", "train/2026-11-20_12-00-00"),
        ("2026-11-20_12-00-00", "train/2026-11-20_12-00-00"),
        ("2026-11-20_12-00-00-1", "train/2026-11-20_12-00-00-10"),
        ("train/2026-11-20_12-00-00-2/", "train/2026-11-20_12-00-00-2"),
        ("2026-11-20_13", "evaluate/2026-11-20_13-00-00"),
        ("ev", "evaluate/2026-11-20_13-00-00"),
        ("latest", "evaluate/2026-11-20_13-00-00"),
        ("latest:train", "train/2026-11-20_12-00-00-10"),
    ],
)
def test_resolve(runs: Path, text: str, found: str) -> None:
    assert directory.resolve(runs, text) == runs / found


def test_resolve_says_what_it_found_instead(runs: Path) -> None:
    assert error_of(runs, "2026-11-20_12") == (
        "`2026-11-20_12` fits 3 runs: train/2026-11-20_12-00-00, train/2026-11-20_12-00-00-10, "
        "train/2026-11-20_12-00-00-2; type more of the name"
    )
    assert error_of(runs, "2025-11-20_13-00-00") == (
        "no run `2025-11-20_13-00-00` in `runs`; did you mean `2026-11-20_13-00-00`?"
    )
    assert error_of(runs, "lates") == "no run `lates` in `runs`; did you mean `latest`?"
    assert error_of(runs, "x\ny") == (
        "no run `x\\ny` in `runs`; the latest are: train/2026-11-20_12-00-00-2, train/2026-11-20_12-00-00-10, "
        "evaluate/2026-11-20_13-00-00"
    )
    assert error_of(Path("nowhere"), "x") == "no run `x` in `nowhere`; there are no runs yet"
    assert error_of(runs, "") == "the run's name is empty; type a path, a run id, a unique prefix or `latest`"
    assert error_of(runs, "x" * 5000) == (
        f"no run `{'x' * 77}...` in `runs`; the latest are: train/2026-11-20_12-00-00-2, "
        "train/2026-11-20_12-00-00-10, evaluate/2026-11-20_13-00-00"
    )
    assert error_of(runs, "\0").startswith("no run `\\x00`")


def test_latest_without_runs(runs: Path) -> None:
    assert error_of(Path("nowhere"), "latest") == "no run in `nowhere`; `trainctl train` makes one"
    assert error_of(runs, "latest:trian") == "no `trian` run in `runs`; did you mean `train`?"


def test_latest_skips_a_directory_that_was_only_claimed(runs: Path) -> None:
    (runs / "train" / "2026-11-20_14-00-00").mkdir()
    assert directory.resolve(runs, "latest").name == "2026-11-20_13-00-00"
    assert error_of(runs, "2026-11-20_14") == (
        "`runs/train/2026-11-20_14-00-00` is not a run directory: it has no run.json"
    )
    assert error_of(runs, "runs") == "`runs` is not a run directory: it has no run.json"


def test_a_sweep_is_one_entry_and_its_jobs_are_listed_on_request(runs: Path) -> None:
    sweep = runs / "train" / "2026-11-20_15-00-00"
    for job in (0, 1, 10):
        make(sweep / str(job), verb="train")
    (sweep / "sweep.json").write_text('{"status": "failed"}')
    folds = make(runs / "train" / "2026-11-20_16-00-00", verb="train")
    make(folds / "folds" / "0", verb="train")
    listed = directory.list_runs(runs, verb="train")
    assert [run.path.name for run in listed[-2:]] == [sweep.name, folds.name]
    assert listed[-2].record == {"verb": "train", "status": "failed", "sweep": 3}
    jobs = [run.path for run in directory.list_runs(runs, children=True)][-5:]
    assert jobs == [sweep / "0", sweep / "1", sweep / "10", folds, folds / "folds" / "0"]
    assert error_of(runs, "2026-11-20_15") == (
        "`runs/train/2026-11-20_15-00-00` is a sweep of 3 runs; name one of them, "
        "e.g. `runs/train/2026-11-20_15-00-00/0`"
    )
    assert directory.resolve(runs, "train/2026-11-20_15-00-00/10") == sweep / "10"
    assert directory.resolve(runs, "latest:train") == folds
    (folds / "run.json").unlink()
    (folds / "folds" / "0" / "run.json").unlink()
    assert error_of(runs, "latest") == error_of(runs, "2026-11-20_15")
    (folds / "run.json").write_text('{"verb": "train", "status": "completed"}')
    (folds / "folds" / "0" / "run.json").write_text('{"verb": "train", "status": "completed"}')
    assert [child.name for child in directory.children(Run.open(folds))] == ["2026-11-20_16-00-00/folds/0"]


def test_a_sweep_that_was_killed_reads_as_crashed_after_a_while(runs: Path) -> None:
    sweep = runs / "train" / "2026-11-20_15-00-00"
    make(sweep / "0", verb="train")
    (sweep / "sweep.json").write_text('{"status": "running"}')
    assert directory.read(sweep).status == "running", "the next job may be about to start"
    for file in (sweep / "sweep.json", sweep / "0" / "run.json"):
        os.utime(file, (time.time() - 100,) * 2)
    assert directory.read(sweep).status == "crashed"
    (sweep / "sweep.json").write_text('{"status": "completed"}')
    assert directory.read(sweep).status == "completed"


def test_broken_directories_are_listed_as_damaged(runs: Path) -> None:
    broken = {
        "2026-11-21_00-00-00": "",
        "2026-11-21_00-00-01": "[]",
        "2026-11-21_00-00-02": '{"verb": "train"}',
        "2026-11-21_00-00-03": '{"verb": "train", "status": "completed", "artifacts": {"x": "../../y"}}',
        "2026-11-21_00-00-04": '{"verb": "train", "status": "completed", "artifacts": 3}',
        "2026-11-21_00-00-05": '{"verb": 3, "status": "completed"}',
    }
    for name, text in broken.items():
        (runs / "train" / name).mkdir()
        (runs / "train" / name / "run.json").write_text(text)
    (runs / "train" / "2026-11-21_00-00-06" / "run.json").mkdir(parents=True)
    (runs / "train" / "2026-11-21_00-00-07").mkdir()
    (runs / "train" / "2026-11-21_00-00-07" / "sweep.json").write_text("[]")
    (runs / "train" / "stray file").touch()
    (runs / "stray file").touch()
    damaged = directory.list_runs(runs, status="damaged")
    assert [run.path.name[-1] for run in damaged] == list("01234567")
    assert damaged[3].record["error"]["message"] == (
        "manifest of `runs/train/2026-11-21_00-00-03` points outside the run dir; refused"
    )
    assert len(directory.list_runs(runs)) == 12


def test_a_renamed_run_stays_in_the_list(runs: Path) -> None:
    make(runs / "train" / "my best run")
    assert directory.list_runs(runs)[-1].path.name == "my best run"
    assert directory.resolve(runs, "my best").name == "my best run"


def test_a_thousand_runs_are_listed_fast(tmp_path: Path) -> None:
    for number in range(1000):
        make(tmp_path / "train" / f"2026-11-20_12-00-00-{number + 2}", parent=None, overrides=["a=1"] * 10)
    begin = time.process_time()
    assert len(directory.list_runs(tmp_path)) == 1000
    assert time.process_time() - begin < 1.0
