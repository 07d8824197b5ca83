"""`trainer=ddp_sim`: two processes over gloo through the real command line, and groups of ranks for the arithmetic.

Every rank of a command imports torch itself (three CPU seconds), so most tests share runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

# everything that has state: dropout, a schedule by steps, accumulation, averaged weights, patience
WORK = [
    "train", "data=synthetic", "data.rows=1501", "data.batch_size=16", "trainer=ddp_sim", "trainer.max_epochs=12",
    "model.dropout=0.2", "ema=0.99", "scheduler=cosine", "trainer.accumulate_grad_batches=2",
    "task.label_smoothing=0.1", "trainer.gradient_clip_val=1.0",
]
SMALL = ["data=synthetic", "data.rows=303", "trainer.max_epochs=2"]
LONG = ["train", "data=synthetic", "data.rows=60000", "trainer=ddp_sim", "trainer.max_epochs=300", "callbacks=none"]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def rows(run: Path) -> list[dict[str, Any]]:
    """The epochs' figures; how long they took may differ."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def record(run: Path) -> dict[str, Any]:
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def only_run(folder: Path, verb: str = "train") -> Path:
    (run,) = (folder / "runs" / verb).iterdir()
    return run


def workers(pid: int) -> list[int]:
    """The ranks of a command, in order, once both have started."""
    for _ in range(2000):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        ranks = [int(child) for child in children if b"trainctl.worker" in read(f"/proc/{child}/cmdline")]
        if len(ranks) == 2:
            return ranks
        time.sleep(0.005)
    raise AssertionError("no two workers")


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def gone(pids: list[int], within: float) -> bool:
    """Whether none of the processes is left after so many seconds; zombies count as gone."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(read(f"/proc/{pid}/cmdline") for pid in pids):
            return True
        time.sleep(0.02)
    return False


def send(pid: int, ranks: list[int], how: str) -> None:
    """`SIGTERM parent`, `SIGINT everyone`, `SIGKILL rank 1`."""
    name, _, whom = how.partition(" ")
    for target in {"parent": [pid], "everyone": [pid, *ranks], "rank 1": ranks[1:]}[whom]:
        os.kill(target, signal.Signals[name])


@pytest.fixture(scope="module")
def undisturbed(forked, tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = forked.run(*WORK, cwd=folder)
    assert done.code == 0, done.err
    return folder, done


# Train, evaluate, predict


def test_one_directory_and_nothing_but_the_runs_own_lines(undisturbed) -> None:
    folder, done = undisturbed
    run = only_run(folder)
    assert record(run)["status"] == "completed"
    assert not [path.name for path in run.iterdir() if path.name.startswith((".tmp", "rank"))]
    epochs = [f"epoch {k}/12  train/loss " for k in range(1, 13)]
    first = ["data: train 1051, val 225, test 225 rows", *epochs, "best: "]
    lines = done.err.splitlines()
    assert len(lines) == len(first) and all(map(str.startswith, lines, first)), done.err
    assert (run / "train.log").read_text(encoding="utf-8").count("epoch 3/12") == 1


def test_predictions_are_in_file_order_with_every_row_once(undisturbed) -> None:
    run = only_run(undisturbed[0])
    kept = pl.read_parquet(run / "predictions.parquet")["row"].to_list()
    assert len(kept) == 225 and kept == sorted(set(kept))
    assert record(run)["data"]["splits"]["test"]["rows"] == 225


def test_evaluate_equals_one_process(undisturbed, forked) -> None:
    folder = undisturbed[0]
    words = ["evaluate", "latest:train", "evaluate.bootstrap=50", "--json"]
    shared = forked.run(*words, "trainer=ddp_sim", cwd=folder)
    alone = forked.run(*words, cwd=folder)
    assert (shared.code, alone.code) == (0, 0), shared.err + alone.err
    assert shared.json["metrics"] == pytest.approx(alone.json["metrics"], abs=1e-6)
    assert shared.json["intervals"].keys() == alone.json["intervals"].keys()
    kept = [pl.read_parquet(folder / done.json["run"] / "predictions.parquet") for done in (shared, alone)]
    assert kept[0]["row"].to_list() == kept[1]["row"].to_list()
    assert len(list((folder / "runs" / "evaluate").iterdir())) == 2


def test_the_same_command_again_gives_the_same_bits_and_one_json_object(undisturbed, forked, tmp_path) -> None:
    done = forked.run(*WORK, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    one, other = only_run(undisturbed[0]), only_run(tmp_path)
    assert weights(one) == weights(other)
    assert rows(one) == rows(other)
    assert record(one)["threads"] == record(other)["threads"] == 1  # two cores at most, two ranks
    assert done.json["status"] == "completed" and done.json["run"] == f"runs/train/{other.name}"
    assert done.json["timing"]["steps_per_s"] > 0


def test_any_number_of_rows_on_one_to_three_ranks(tmp_path) -> None:
    """1 to 40 rows through `trainer.test`, and a fit in which ranks have different numbers of validation rows."""
    script = Path(__file__).with_name("ranks.py")
    command = [sys.executable, script, tmp_path, "1", "2", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")}
    assert sorted(found) == ["1-0", "2-0", "2-1", "3-0", "3-1", "3-2"]
    alone = found["1-0"]["evaluated"]
    assert [alone[str(n)]["rows"] for n in range(1, 41)] == list(range(1, 41))
    for name, rank in found.items():
        assert rank["evaluated"].keys() == alone.keys()
        for count, figures in rank["evaluated"].items():
            assert figures == pytest.approx(alone[count], abs=1e-6), (name, count)
        assert rank["fitted"] == found[f"{name[0]}-0"]["fitted"]


# Signals


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


# Errors

NOISY = """
import os, sys, warnings
import torch

class Net(torch.nn.Linear):
    def __init__(self, spec):
        super().__init__(spec.num_inputs if hasattr(spec, "num_inputs") else len(spec.numeric), spec.num_outputs)
        warnings.warn("noise from a library")
        print("noise on stdout")
        os.write(2, b"noise on stderr\\n")

    def forward(self, x):
        if self.training and os.environ["LOCAL_RANK"] == "1":
            raise ValueError("a mistake\\nin two lines")
        return super().forward(x)
"""


def test_an_internal_error_of_a_rank_keeps_its_traceback_and_noise_stays_in_the_logs(forked, tmp_path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "noisy.yaml").write_text("_target_: noisy.Net\n", encoding="utf-8")
    words = ["train", "data=synthetic", "data.rows=300", "data.categorical=0", "model=noisy", "trainer=ddp_sim"]
    done = forked.run(*words, "--trust", "noisy", "--json", cwd=tmp_path)
    sentence = "internal error in rank 1: ValueError: a mistake (see error.txt of the run)"
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == ["data: train 210, val 45, test 45 rows", f"trainctl: error: {sentence}"]
    run = only_run(tmp_path)
    told = (run / "error.txt").read_text(encoding="utf-8")
    assert 'raise ValueError("a mistake' in told and "In rank 1:" in told
    assert record(run)["error"] == {"kind": "TrainctlError", "message": sentence, "code": 1}
    for rank in range(2):
        noise = (run / f"rank{rank}.log").read_text(encoding="utf-8")
        assert all(f"noise {where}" in noise for where in ("from a library", "on stdout", "on stderr"))


def test_a_users_error_in_a_rank_is_the_commands_own(forked, tmp_path) -> None:
    words = ["train", "data=synthetic", "data.rows=300", "trainer=ddp_sim", "optimizer=sgd", "optimizer.lr=1e30"]
    done = forked.run(*words, cwd=tmp_path)
    assert done.code == 6 and "Traceback" not in done.err
    assert done.err.count("trainctl: error: ") == 1
    assert "finite" in done.err.splitlines()[-1]
    assert record(only_run(tmp_path))["error"]["code"] == 6


@pytest.mark.slow
def test_unfit_data_is_told_once_and_leaves_nothing(forked, tmp_path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("a,b\n", encoding="utf-8")
    done = forked.run("train", "data=tabular", f"data.path={empty}", "data.target=b", "trainer=ddp_sim", cwd=tmp_path)
    sentence = f"`{empty}` has no data rows; it must hold at least one row below its header"
    assert (done.code, done.err.splitlines()) == (3, [f"trainctl: error: {sentence}"])
    assert not list(tmp_path.glob("runs/train/*"))


@pytest.mark.slow
def test_a_taken_port_is_replaced_by_another(tmp_path, monkeypatch) -> None:
    import socket

    from trainctl import launch, supervisor
    from trainctl.run import directory

    free, offered = supervisor._free_port, []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def port() -> int:
            offered.append(free() if offered else taken.getsockname()[1])
            return offered[-1]

        monkeypatch.setattr(supervisor, "_free_port", port)
        monkeypatch.chdir(tmp_path)
        words = ["data=synthetic", "data.rows=200", "trainer=ddp_sim", "trainer.max_epochs=1", "trainer.threads=1"]
        launch.start("train", words, launch.Options(quiet=True))
    assert len(offered) == 2
    assert record(directory.resolve(tmp_path / "runs", "latest"))["status"] == "completed"


def test_more_processes_than_cores_and_fsdp_without_a_gpu_are_refused(forked, tmp_path) -> None:
    cores = len(os.sched_getaffinity(0))
    fsdp = "`trainer.strategy=fsdp` needs a GPU; on the CPU use `trainer.strategy=ddp`"
    refused = {
        ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=99"): (
            f"99 processes on {cores} core{'s' * (cores > 1)}; pass `trainer.oversubscribe=true` to insist"
        ),
        ("trainer=fsdp",): "`trainer.strategy=fsdp` needs a GPU and none is visible; on the CPU use `trainer=ddp`",
        ("trainer=fsdp", "trainer.accelerator=cpu"): fsdp,
    }
    for words, sentence in refused.items():
        done = forked.run("train", "data=synthetic", *words, cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
        assert (done.code, done.err) == (2, f"trainctl: error: {sentence}\n")
    assert not list(tmp_path.iterdir())


# Runs of several runs


@pytest.mark.slow
def test_folds_are_interrupted_and_resumed(forked, tmp_path) -> None:
    words = ["train", "data=synthetic", "data.rows=301", "trainer=ddp_sim", "train.folds=2", "trainer.max_epochs=3"]
    (tmp_path / "whole").mkdir()
    done = forked.run(*words, "--json", cwd=tmp_path / "whole")
    assert done.code == 0, done.err
    whole = only_run(tmp_path / "whole")
    assert sorted(path.name for path in (whole / "folds").iterdir()) == ["0", "1"]
    assert pl.read_parquet(whole / "predictions.parquet")["row"].to_list() == list(range(301))
    started = forked.start(*words, cwd=tmp_path)
    started.wait_for("fold 2 of 2")
    workers(started.pid)
    started.send(signal.SIGTERM)
    assert started.wait().code == 143
    done = forked.run("train", "--resume", "latest", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [weights(only_run(tmp_path) / "folds" / k) for k in "01"] == [weights(whole / "folds" / k) for k in "01"]


@pytest.mark.slow
def test_a_sweep_starts_workers_for_each_job_and_no_sweep_in_a_sweep(forked, tmp_path) -> None:
    words = ["train", "-m", "seed=1,2", "data=synthetic", "data.rows=300", "trainer=ddp_sim", "trainer.max_epochs=2"]
    done = forked.run(*words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [row["status"] for row in done.json["jobs"]] == ["completed", "completed"]
    assert sorted(path.name for path in only_run(tmp_path).iterdir() if path.is_dir()) == ["0", "1"]


@pytest.mark.slow
def test_slices_and_a_new_file_on_two_ranks(forked, tmp_path) -> None:
    lines = [f"{i % 7},{'fm'[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(211)]
    for name, part in (("a.csv", lines), ("b.csv", lines[:33])):
        (tmp_path / name).write_text("x,sex,y\n" + "\n".join(part) + "\n", encoding="utf-8")
    words = ["data=tabular", "data.path=a.csv", "data.target=y", "trainer=ddp_sim", "trainer.max_epochs=2"]
    assert forked.run("train", *words, cwd=tmp_path).code == 0
    for words in (["evaluate.slices=[sex]"], ["data.path=b.csv", "evaluate.slices=[sex]"], ["evaluate.threshold=f1"]):
        both = [
            forked.run("evaluate", "latest:train", *words, "evaluate.bootstrap=0", *trainer, "--json", cwd=tmp_path)
            for trainer in (["trainer=ddp_sim"], [])
        ]
        assert [done.code for done in both] == [0, 0], both[0].err + both[1].err
        assert both[0].json["metrics"] == pytest.approx(both[1].json["metrics"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    [*SMALL, "trainer.max_time=2s", "trainer.max_epochs=100000"], [*SMALL, "optimizer.lr=auto"],
    [*SMALL, "scheduler=plateau", "ema=0.9"], [*SMALL, "trainer.precision=bf16-mixed"],
    ["data=digits", "trainer.max_epochs=2", "model=cnn", "data.eval_batch_size=7"],
])
def test_options_on_two_ranks(forked, tmp_path, words) -> None:
    done = forked.run("train", "trainer=ddp_sim", *words, cwd=tmp_path)
    assert done.code == 0, done.err


@pytest.mark.torture
@pytest.mark.parametrize("chain", range(10))
def test_signals_at_random_moments(forked, tmp_path, undisturbed, chain) -> None:
    import random

    draw = random.Random(chain)
    codes: Callable[[str], int] = {"SIGTERM": 143, "SIGINT": 130}.__getitem__
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
        assert done.code in (0, codes(how.split()[0])), (how, done.err)
        if done.code == 0:
            break
        words = ["train", "--resume", "latest"]
    check_resumed(forked, tmp_path, only_run(undisturbed[0]))


@pytest.mark.torture
@pytest.mark.parametrize("turn", range(20))
def test_twenty_runs_end_well(forked, tmp_path, turn) -> None:
    words = ["train", "data=synthetic", "data.rows=300", "trainer=ddp_sim", "trainer.max_epochs=2"]
    done = forked.run(*words, cwd=tmp_path)
    assert (done.code, "terminate" in done.err) == (0, False), done.err
