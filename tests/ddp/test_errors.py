"""What a rank has to complain of reaches the user as one sentence."""

from __future__ import annotations

import os
import socket

import pytest

from tests.ddp.commands import only_run, record
from trainctl import launch, supervisor
from trainctl.run import directory

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


@pytest.mark.slow
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


@pytest.mark.slow
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
