"""Folds, sweeps, slices and other options on two ranks."""

from __future__ import annotations

import signal

import polars as pl
import pytest

from tests.ddp.commands import SMALL, only_run, weights, workers


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


FOREIGN = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

class Numbers(pl.LightningDataModule):
    def setup(self, stage=None):
        x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        self.part = {}
        for name, first, last in (("train", 0, 200), ("val", 200, 251), ("test", 251, 300)):
            self.part[name] = TensorDataset(x[first:last], (x[first:last, 0] > 0).long())

    def train_dataloader(self):
        return DataLoader(self.part["train"], batch_size=20, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.part["val"], batch_size=7)

    def test_dataloader(self):
        return DataLoader(self.part["test"], batch_size=7)
"""


@pytest.mark.slow
def test_rows_of_foreign_data_are_counted_once(forked, tmp_path) -> None:
    (tmp_path / "numbers_of_mine.py").write_text(FOREIGN, encoding="utf-8")
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("_target_: numbers_of_mine.Numbers\n", encoding="utf-8")
    trust = ["--trust", "numbers_of_mine"]
    done = forked.run("train", "data=mine", "trainer=ddp_sim", "trainer.max_epochs=2", *trust, cwd=tmp_path)
    assert done.code == 0, done.err
    words = ["evaluate", "latest:train", "evaluate.bootstrap=0", "--json", *trust]
    shared, alone = (forked.run(*words, *more, cwd=tmp_path) for more in (["trainer=ddp_sim"], []))
    assert shared.json["metrics"] == pytest.approx(alone.json["metrics"], abs=1e-6)
    assert len(pl.read_parquet(tmp_path / shared.json["run"] / "predictions.parquet")) == 49
