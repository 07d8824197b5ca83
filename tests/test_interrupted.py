"""Runs that are stopped or killed at random moments end well and resume to the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from trainctl.errors import Interrupted, raise_swallowed
from trainctl.launch import signals_raise

# everything that has state: dropout, a schedule by steps, accumulation, averaged weights, patience
WORK = [
    "train", "data=synthetic", "data.rows=3000", "data.batch_size=32", "trainer.max_epochs=10", "model.dropout=0.2",
    "ema=0.99", "scheduler=cosine", "trainer.accumulate_grad_batches=2", "trainer.threads=1",
    "task.label_smoothing=0.1", "trainer.gradient_clip_val=1.0",
]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def rows(run: Path) -> list[dict[str, Any]]:
    """The epochs' figures; how long they took may differ."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "train").iterdir()
    return run


@pytest.fixture(scope="module")
def undisturbed(forked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = forked.run(*WORK, cwd=folder)
    assert done.code == 0, done.err
    return only_run(folder)


def interrupted_until_done(forked, folder: Path, signum: int, moments: random.Random, limit: int) -> list[int]:
    """Exit codes of a run that is sent `signum` at up to `limit` random moments and resumed each time."""
    codes = []
    for attempt in range(limit + 1):
        words = WORK if not codes else ["train", "--resume", "latest"]
        started = forked.start(*words, cwd=folder, env={"TMPDIR": "/dev/shm"})
        started.wait_for("epoch" if codes else "data:")  # "resuming ...", or killed after its end: "already complete"
        if attempt < limit:
            time.sleep(moments.uniform(0.0, 0.9))
            # the process may have ended meanwhile; it is not reaped yet, so the number is still its own
            started.send(signum)
        done = started.wait()
        codes.append(done.code)
        if done.code == 0:
            break
        assert done.code in (-signum, 128 + signum), done.err
        if not list((only_run(folder) / "checkpoints").glob("*.ckpt")):  # killed before its first: begin again
            os.rename(folder / "runs", folder / f"gone-{attempt}")
            codes.clear()
    return codes


def check_kills(forked, folder: Path, undisturbed: Path, signum: int, total: int, seed: int) -> None:
    moments, count, number = random.Random(seed), 0, 0
    while count < total:
        number += 1
        place = folder / f"run-{number}"
        place.mkdir()
        codes = interrupted_until_done(forked, place, signum, moments, limit=5)
        count += len(codes)
        assert codes[-1] == 0, codes
        run = only_run(place)
        assert weights(run) == weights(undisturbed), f"run {number}, codes {codes}"
        assert rows(run) == rows(undisturbed)
        assert not [p.name for p in run.rglob("*") if p.name.startswith(".tmp")]


@pytest.mark.slow
def test_killed_with_9_at_random_moments_it_resumes_to_the_same_bits(forked, tmp_path, undisturbed):
    check_kills(forked, tmp_path, undisturbed, signal.SIGKILL, total=20, seed=0)


@pytest.mark.slow
def test_terminated_at_random_moments_it_resumes_to_the_same_bits(forked, tmp_path, undisturbed):
    check_kills(forked, tmp_path, undisturbed, signal.SIGTERM, total=8, seed=1)


@pytest.mark.torture
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_two_hundred_interruptions(forked, tmp_path, undisturbed, signum):
    check_kills(forked, tmp_path, undisturbed, signum, total=200, seed=2)


def test_the_same_command_twice_gives_the_same_bits(forked, tmp_path, undisturbed):
    done = forked.run(*WORK, cwd=tmp_path)
    assert done.code == 0, done.err
    assert weights(only_run(tmp_path)) == weights(undisturbed)
    assert rows(only_run(tmp_path)) == rows(undisturbed)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_keeps_the_place_and_says_how_to_go_on(forked, tmp_path, signum, code):
    started = forked.start(*WORK, "trainer.max_epochs=2000", cwd=tmp_path)
    started.wait_for("epoch 2/")
    started.send(signum)
    done = started.wait()
    run = only_run(tmp_path)
    assert done.code == code
    last = done.err.splitlines()[-1]
    name = signal.Signals(signum).name
    assert last.startswith(f"trainctl: error: stopped by {name} at epoch ")
    assert last.endswith(f"; resume with `trainctl train --resume runs/train/{run.name}`")
    assert "Traceback" not in done.err
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["stopped_by"]) == ("stopped", name)


def test_a_signal_before_training_leaves_with_its_code(forked, tmp_path):
    started = forked.start("train", "data=synthetic", "data.rows=3000000", cwd=tmp_path)
    while not (tmp_path / "runs").exists():
        time.sleep(0.01)
    started.send(signal.SIGTERM)
    done = started.wait()
    assert done.code == 143
    assert done.err.splitlines()[-1] == "trainctl: error: stopped by SIGTERM"


THEIRS = """import os, signal, torch
class Trap:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        [None for _ in range(1000)]
class Net(torch.nn.Linear):
    def __init__(self, spec):
        super().__init__(spec.num_features, spec.num_outputs)
        Trap()
"""


def test_a_signal_whose_exception_a_library_swallows_ends_the_run_all_the_same(forked, tmp_path):
    (tmp_path / "their.py").write_text(THEIRS, encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "trap.yaml").write_text("_target_: their.Net\n", encoding="utf-8")
    done = forked.run("train", "data=synthetic", "data.categorical=0", "model=trap", "trainer.threads=1", cwd=tmp_path)
    assert "Exception ignored in: <function Trap.__del__" in done.err
    assert (done.code, done.err.splitlines()[-1]) == (130, "trainctl: error: stopped by SIGINT")
    record = json.loads((only_run(tmp_path) / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["stopped_by"]) == ("stopped", "SIGINT")


def test_a_signal_that_a_library_makes_another_error_of_is_still_a_signal():
    with pytest.raises(Interrupted) as raised, signals_raise():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise RuntimeError("panicked") from error
    assert raised.value.signum == signal.SIGTERM
    with pytest.raises(RuntimeError, match="^without a signal$"), signals_raise():
        raise RuntimeError("without a signal")


def test_a_signal_that_was_obeyed_stops_nothing_later():
    with pytest.raises(Interrupted), signals_raise():
        signal.raise_signal(signal.SIGTERM)
    raise_swallowed()
    with pytest.raises(Interrupted), signals_raise():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        raise_swallowed()
    raise_swallowed()


def test_a_crashed_run_is_shown_as_crashed_and_resumed(forked, tmp_path, undisturbed):
    started = forked.start(*WORK, cwd=tmp_path)
    started.wait_for("epoch 3/")
    started.send(signal.SIGKILL)
    assert started.wait().code == -9
    listed = forked.run("runs", "--json", cwd=tmp_path).json["runs"]
    assert [run["status"] for run in listed] == ["crashed"]
    assert forked.run("train", "--resume", "latest", cwd=tmp_path).code == 0
    assert weights(only_run(tmp_path)) == weights(undisturbed)


def test_early_stopping_resumes_with_its_patience(forked, tmp_path):
    words = ["train", "data=synthetic", "data.rows=600", "data.batch_size=32", "trainer.max_epochs=60",
             "callbacks.early_stopping.patience=3", "optimizer.lr=0.02", "trainer.threads=1"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert forked.run(*words, cwd=tmp_path / "a").code == 0
    started = forked.start(*words, cwd=tmp_path / "b")
    started.wait_for("epoch 3/")
    started.send(signal.SIGTERM)
    assert started.wait().code in (0, 143)
    assert forked.run("train", "--resume", "latest", cwd=tmp_path / "b").code == 0
    one, other = only_run(tmp_path / "a"), only_run(tmp_path / "b")
    assert rows(one) == rows(other)
    assert len(rows(one)) < 60
    assert weights(one) == weights(other)
