"""Two ranks are stopped, killed and interrupted in every way, and go on to the same bits."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.ddp.commands import LONG, WORK, gone, only_run, record, rows, send, weights, workers


def interrupted(forked, folder: Path, begin: list[str], moments: list[tuple[str, str, int]]) -> None:
    """A run that is interrupted in the ways of `moments` (a line to wait for, what is sent, the exit code)."""
    for number, (line, how, code) in enumerate(moments):
        words = ["train", "--resume", "latest"] if number else begin
        started = forked.start(*words, cwd=folder)
        ranks = workers(started.pid)
        started.wait_for(line)
        sent = time.monotonic()
        send(started.pid, ranks, how)
        done = started.wait()
        assert time.monotonic() - sent < 8, how  # 5 seconds and a batch, on machines that are busy
        assert done.code == code, (how, done.err)
        assert gone(ranks, within=5), how
        last = done.err.splitlines()[-1]
        if code in (130, 143):
            assert last.startswith(f"trainctl: error: stopped by {how.split()[0]} at epoch "), (how, done.err)
            resume = f"; resume with `trainctl train --resume runs/train/{only_run(folder).name}`"
            assert last.endswith(resume) and last.count(resume) == 1
            assert record(only_run(folder))["status"] == "stopped"
        elif code == 1:
            assert last == "trainctl: error: rank 1 ended with signal 9; see `rank1.log` of the run"
        assert "Traceback" not in done.err


def check_resumed(forked, folder: Path, reference: Path) -> None:
    done = forked.run("train", "--resume", "latest", cwd=folder)
    assert done.code == 0, done.err
    run = only_run(folder)
    assert weights(run) == weights(reference)
    assert rows(run) == rows(reference)
    assert record(run)["status"] == "completed"
    assert not [path.name for path in run.rglob("*") if path.name.startswith(".tmp")]


@pytest.mark.slow
def test_interrupted_in_many_ways_it_resumes_to_the_same_bits(forked, tmp_path, undisturbed) -> None:
    moments = [
        ("epoch 2/12", "SIGTERM everyone", 143),
        ("epoch 5/12", "SIGINT parent", 130),
        ("epoch 8/12", "SIGKILL rank 1", 1),
    ]
    interrupted(forked, tmp_path, WORK, moments)
    check_resumed(forked, tmp_path, only_run(undisturbed[0]))


@pytest.mark.slow
def test_interrupted_in_the_other_ways_it_resumes_to_the_same_bits(forked, tmp_path, undisturbed) -> None:
    moments = [
        ("epoch 2/12", "SIGTERM parent", 143),
        ("epoch 4/12", "SIGINT everyone", 130),
        ("epoch 6/12", "SIGINT rank 1", 130),
        ("epoch 7/12", "SIGTERM rank 1", 143),
        ("epoch 9/12", "SIGKILL parent", -9),
    ]
    interrupted(forked, tmp_path, WORK, moments)
    check_resumed(forked, tmp_path, only_run(undisturbed[0]))


@pytest.mark.parametrize("how", ["SIGTERM parent", "SIGTERM rank 1"])
def test_a_signal_while_workers_start(forked, tmp_path, how) -> None:
    started = forked.start(*LONG, cwd=tmp_path)
    ranks = workers(started.pid)
    time.sleep(0.5)  # importing
    sent = time.monotonic()
    send(started.pid, ranks, how)
    done = started.wait()
    assert (done.code, done.err.splitlines()) == (143, ["trainctl: error: stopped by SIGTERM"])
    assert time.monotonic() - sent < 6
    assert gone(ranks, within=1)
    assert record(only_run(tmp_path))["status"] == "stopped"


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(forked, tmp_path) -> None:
    started = forked.start(*LONG, cwd=tmp_path)
    ranks = workers(started.pid)
    started.wait_for("data:")
    os.kill(ranks[0], signal.SIGSTOP)  # a rank that does not answer
    send(started.pid, ranks, "SIGINT parent")
    time.sleep(0.5)
    again = time.monotonic()
    send(started.pid, ranks, "SIGINT parent")
    done = started.wait()
    assert time.monotonic() - again < 2
    assert done.code == 130 and done.err.splitlines()[-1].startswith("trainctl: error: stopped by SIGINT")
    assert gone(ranks, within=1)


@pytest.mark.torture
@pytest.mark.parametrize("chain", range(10))
def test_signals_at_random_moments(forked, tmp_path, undisturbed, chain) -> None:
    draw = random.Random(chain)
    words = WORK
    for _ in range(10):
        started = forked.start(*words, cwd=tmp_path)
        ranks = workers(started.pid)
        started.wait_for("resuming" if words is not WORK else "epoch 1/")
        time.sleep(draw.uniform(0, 1.5))
        how = f"{draw.choice(['SIGTERM', 'SIGINT'])} {draw.choice(['parent', 'everyone', 'rank 1'])}"
        try:
            send(started.pid, ranks, how)
        except ProcessLookupError:  # it is done
            pass
        sent = time.monotonic()
        done = started.wait()
        assert time.monotonic() - sent < 10 and gone(ranks, within=5), how
        assert done.code in (0, 143 if how.startswith("SIGTERM") else 130), (how, done.err)
        if done.code == 0:
            break
        words = ["train", "--resume", "latest"]
    check_resumed(forked, tmp_path, only_run(undisturbed[0]))
