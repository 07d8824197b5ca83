"""Runs that other stacks end with FINISHED and exit code 0 although nothing useful happened: none of them does here.

The list is the one measured on Lightning alone; what a signal and a full disk do is also in test_interrupted.py and
test_resources.py.
"""

from __future__ import annotations

import re
import signal

import pytest

from trainctl.run import checkpoints
from trainctl.run.run import Run

TABLE = "a,b,y\n" + "".join(f"{i * 1.5},{i * i % 17}.25,{i * 0.7}\n" for i in range(60))
FILE = ("train", "data.path=x.csv", "data.target=y", "data.batch_size=8", "trainer.max_epochs=2", "trainer.threads=1")
THEIRS = """
import torch
import pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset


def loader(rows, x=1.0, **more):
    data = TensorDataset(torch.full((rows, 3), x), torch.arange(rows) % 2)
    return DataLoader(data, batch_size=8, **more)


class Data(pl.LightningDataModule):
    num_classes = 2
    def train_dataloader(self): return loader(32)
    def val_dataloader(self): return loader(16)
    def test_dataloader(self): return loader(16)


class EmptyTrain(Data):
    def train_dataloader(self): return loader(0)


class Dropped(Data):
    def train_dataloader(self): return loader(7, drop_last=True)


class EmptyVal(Data):
    def val_dataloader(self): return loader(0)


class NanRows(Data):
    def train_dataloader(self): return loader(32, float("nan"))


class NoTest(Data):
    test_dataloader = pl.LightningDataModule.test_dataloader


class NanModule(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1]) * float("nan")
    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
"""


@pytest.fixture
def theirs(shell):
    """A folder with someone else's data modules and modules, each as an option of `data` or `task`."""
    (shell.folder / "their.py").write_text(THEIRS, encoding="utf-8")
    for group, names in (("data", "Data EmptyTrain Dropped EmptyVal NanRows NoTest"), ("task", "NanModule")):
        folder = shell.folder / "conf" / group
        folder.mkdir(parents=True)
        for name in names.split():
            (folder / f"{name}.yaml").write_text(f"_target_: their.{name}\n", encoding="utf-8")
    return shell


def test_an_empty_training_set(shell):
    (shell.folder / "x.csv").write_text("a,b,y\n", encoding="utf-8")
    sentence = "`x.csv` has no data rows; it must hold at least one row below its header"
    assert shell.refused(3, *FILE) == sentence


@pytest.mark.parametrize("name", ["EmptyTrain", "Dropped"])
def test_an_empty_training_set_of_someone_elses(theirs, name):
    said = f"the training loader of {name} gives no batch; it must give pairs (x, y)"
    assert theirs.error(3, "train", f"data={name}", "trainer.max_epochs=2") == said
    assert not (theirs.folder / "runs").exists()


def test_a_batch_larger_than_the_data_that_is_dropped(shell):
    said = "210 rows make no full batch of 500; set `data.batch_size=210` or less, or `data.drop_last=false`"
    assert shell.refused(3, *shell.quick, "data.batch_size=500", "data.drop_last=true") == said


def test_nan_among_the_features(shell):
    (shell.folder / "x.csv").write_text(TABLE.replace("1.5,1.25", "1.5,nan"), encoding="utf-8")
    assert shell.refused(3, *FILE) == (
        "column `b` has 1 non-finite value (line 3); set `data.missing=impute` to treat NaN and infinity as missing"
    )


def test_nan_among_the_features_of_someone_elses_data(theirs):
    assert theirs.error(6, "train", "data=NanRows", "trainer.max_epochs=2", "trainer.threads=1") == (
        "loss is nan at epoch 1 step 1 (lr 0.001); there is no finite checkpoint yet"
    )


def test_a_loss_that_is_nan(shell, theirs):
    said = shell.error(6, *shell.quick, "optimizer=sgd", "optimizer.lr=1e30")
    assert re.fullmatch(r"loss is nan at epoch 1 step \d+ \(lr 1e\+30\); there is no finite checkpoint yet", said)
    said = theirs.error(6, "train", "data=Data", "task=NanModule", "trainer.max_epochs=2", "trainer.threads=1")
    assert said == "val_loss is nan at epoch 1; there is no finite checkpoint yet"


def test_a_monitored_metric_that_is_never_defined(shell):
    """R2 of a validation split whose target is constant."""
    (shell.folder / "x.csv").write_text(TABLE, encoding="utf-8")
    (shell.folder / "v.csv").write_text("a,b,y\n" + "1.5,2.25,3.5\n" * 9, encoding="utf-8")
    assert shell.error(6, *FILE, "data.val_path=v.csv", "train.monitor=val/r2") == (
        "val/r2 is undefined in every epoch, so none is the best; choose another `train.monitor=`"
    )
    assert Run.open(shell.run()).status == "failed"
    assert not (shell.run() / "model.safetensors").exists()


def test_an_empty_validation_set(shell, theirs):
    assert shell.refused(2, *shell.quick, "data.split.val=0.0001") == (
        "the split gives val 0 of 300 rows; change `data.split.val` and `data.split.test`, or bring more rows"
    )
    assert theirs.error(2, "train", "data=EmptyVal", "trainer.max_epochs=2", "trainer.threads=1") == (
        "monitor `val/loss` is not logged; have: train/loss; did you mean `train/loss`?"
    )


def test_a_test_that_cannot_be_made(theirs):
    said = theirs.error(2, "train", "data=NoTest", "trainer.max_epochs=2", "trainer.threads=1")
    assert said == "`test_dataloader` must be implemented to be used with the Lightning Trainer"
    assert theirs("train", "data=NoTest", "trainer.max_epochs=2", "trainer.threads=1", "train.test=false").code == 0


def test_no_epochs(here):
    said = "`trainer.max_epochs` must be a whole number ≥ 1, got 0"
    assert here.refused(2, *here.quick, "trainer.max_epochs=0") == said


def test_a_resume_with_nothing_to_resume_from(spoiled):
    run = spoiled.run()
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    assert spoiled.error(4, "train", "--resume", "latest", "trainer.max_epochs=5") == (
        f"run `runs/train/{run.name}` keeps no checkpoint; begin from its weights with "
        f"`trainctl train --from runs/train/{run.name}`"
    )


def test_a_resume_of_a_complete_run_says_that_it_did_nothing(spoiled):
    done = spoiled("train", "--resume", "latest", "-q")
    assert (done.code, done.err) == (
        0, "warning: run is already complete (epoch 3 of 3); use trainer.max_epochs= to extend\n"
    )


def test_last_is_the_last_epoch_also_when_the_metric_got_worse(shell):
    """`save_last` of Lightning stays at the best epoch when only the best is saved."""
    assert shell.train("optimizer.lr=0.3", "trainer.max_epochs=8", "callbacks=none").code == 0
    run = Run.open(shell.run())
    assert run.record["best_epoch"] < 8
    assert checkpoints.find(run.path, "last").epoch == 8
    assert checkpoints.find(run.path, "prev").epoch == 7
    assert checkpoints.find(run.path, "best").epoch == run.record["best_epoch"]


def test_a_terminated_run_is_not_green(shell):
    started = shell.start(*shell.quick, "trainer.max_epochs=100000", "callbacks=none")
    started.wait_for("epoch 2/")
    started.send(signal.SIGTERM)
    assert started.wait().code == 143


def test_a_save_that_fails_is_not_green(shell):
    started = shell.start(*shell.quick, "trainer.max_epochs=100000", "callbacks=none", bound_by_modes=True)
    started.wait_for("epoch 2/")
    folder = shell.run() / "checkpoints"
    folder.chmod(0o555)
    done = started.wait()
    folder.chmod(0o755)
    assert done.code == 5, done.err
    assert checkpoints.find(shell.run(), "last").epoch >= 1
    assert shell("train", "--resume", "latest", "trainer.max_epochs=6").code in (0, 2)  # 2: it had done more


def test_one_class_and_a_constant_target_give_no_figure(shell):
    """torchmetrics says AUROC 0.0 and R2 0.0."""
    (shell.folder / "x.csv").write_text(TABLE, encoding="utf-8")
    (shell.folder / "t.csv").write_text("a,b,y\n" + "1.5,2.25,3.5\n" * 9, encoding="utf-8")
    done = shell(*FILE, "data.test_path=t.csv", "--json")
    assert done.code == 0, done.err
    assert done.json["metrics"]["test/r2"] is None
    assert "warning: target is constant; R² written as null\n" in done.err
