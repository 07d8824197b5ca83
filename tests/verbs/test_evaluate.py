from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn import metrics as sk

from trainctl.run.run import Run


def read(run: Run, name: str) -> Any:
    return json.loads((run.path / name).read_text(encoding="utf-8"))


def error(result: tuple[int, str, str]) -> tuple[int, str]:
    """Exit code and the last line of stderr without its prefix."""
    return result[0], result[2].strip().splitlines()[-1].removeprefix("trainctl: error: ")


def test_figures_are_those_of_training_with_intervals(folder, classes: Run) -> None:
    run = folder.done("evaluate", classes.path)
    tested = {name: value for name, value in classes.metrics.items() if name.startswith("test/")}
    assert run.metrics == tested and tested["test/accuracy"] > 0.6
    for name, interval in run.record["intervals"].items():
        assert interval[0] <= interval[1], name
        if name != "test/ece":  # the bootstrap of a binned gap lies above it
            assert interval[0] <= run.metrics[name] <= interval[1]
    assert run.record["rows"] == classes.record["data"]["splits"]["test"]["rows"] == 90


def test_predictions_are_kept_and_give_the_figures_again(folder, classes: Run) -> None:
    run = folder.done("evaluate", classes.path, "evaluate.bootstrap=0")
    table = pl.read_parquet(run.path / "predictions.parquet")
    assert table.columns == ["row", "target", "prediction", "probability_no", "probability_yes"]
    source = pl.read_csv(folder.path / "table.csv")
    assert table["target"].to_list() == source[table["row"].to_list(), "rich"].to_list()
    assert (table["target"] == table["prediction"]).mean() == run.metrics["test/accuracy"]
    assert sk.roc_auc_score(table["target"] == "yes", table["probability_yes"]) == pytest.approx(
        run.metrics["test/auroc"]
    )
    assert run.record["intervals"] == {}
    confusion = read(run, "confusion.json")
    assert confusion["classes"] == ["no", "yes"]
    assert confusion["counts"] == sk.confusion_matrix(table["target"], table["prediction"]).tolist()
    assert sum(row["count"] for row in read(run, "calibration.json")) == 90


def test_looks_at_the_test_split_are_counted_and_shown(folder, classes: Run) -> None:
    before = classes.test_looks()
    run = folder.done("evaluate", classes.path, "evaluate.bootstrap=0")
    assert classes.test_looks() == before + 1 == run.record["test_looks"]
    assert f"The test split was looked at {before + 1} times" in (run.path / "report.html").read_text(encoding="utf-8")
    folder.done("evaluate", classes.path, "split=val", "evaluate.bootstrap=0")
    folder.done("evaluate", classes.path, "data.path=new.csv", "evaluate.bootstrap=0")
    assert classes.test_looks() == before + 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_another_split(folder, classes: Run, split: str) -> None:
    run = folder.done("evaluate", classes.path, f"split={split}", "evaluate.bootstrap=0")
    assert run.record["rows"] == classes.record["data"]["splits"][split]["rows"]
    if split == "val":
        assert run.metrics["val/accuracy"] == pytest.approx(classes.metrics["val/accuracy"])
    assert {name.partition("/")[0] for name in run.metrics} == {split}


def test_a_new_file_is_evaluated_whole_and_by_column_name(folder, classes: Run) -> None:
    table = pl.read_csv(folder.path / "new.csv")
    table.select(reversed(table.columns)).write_csv(folder.path / "turned.csv")
    plain = folder.done("evaluate", classes.path, "data.path=new.csv", "evaluate.bootstrap=0")
    turned = folder.done("evaluate", classes.path, "data.path=turned.csv", "evaluate.bootstrap=0")
    assert plain.record["rows"] == 90
    assert plain.metrics == turned.metrics and plain.metrics["test/accuracy"] > 0.6
    assert pl.read_parquet(plain.path / "predictions.parquet")["row"].to_list() == list(range(90))
    assert error(folder("evaluate", classes.path, "data.path=new.csv", "split=val")) == (
        2,
        "`data.path` names a new file, which is evaluated whole; leave `split` out",
    )


@pytest.mark.parametrize("rows", [1, 2, 3, 21])
def test_every_row_counts_once(folder, classes: Run, rows: int) -> None:
    lines = (folder.path / "new.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder.path / "few.csv").write_text("".join(lines[: rows + 1]), encoding="utf-8")
    run = folder.done("evaluate", classes.path, "data.path=few.csv", "evaluate.bootstrap=10")
    assert run.record["rows"] == rows == len(pl.read_parquet(run.path / "predictions.parquet"))


def test_one_class_only_is_null_with_a_warning(folder, classes: Run) -> None:
    lines = (folder.path / "new.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder.path / "one.csv").write_text(
        lines[0] + "".join(line for line in lines if ",yes," in line), encoding="utf-8"
    )
    code, _, err = folder("evaluate", classes.path, "data.path=one.csv")
    assert code == 0
    assert (
        "warning: every row has the class 'yes'; balanced_accuracy, precision, recall, f1, auroc, auprc"
        " undefined with one class; written as null" in err.splitlines()
    )
    run = folder.latest("evaluate")
    assert run.metrics["test/auroc"] is None and run.metrics["test/accuracy"] is not None
    assert run.record["intervals"]["test/auroc"] is None
    assert "undefined with one class" in (run.path / "report.html").read_text(encoding="utf-8")


def test_groups_and_gaps(folder, classes: Run) -> None:
    run = folder.done("evaluate", classes.path, "evaluate.slices=[sex]", "evaluate.bootstrap=20")
    found = read(run, "slices.json")["sex"]
    assert sum(group["rows"] for group in found["groups"].values()) == 90
    table = pl.read_parquet(run.path / "predictions.parquet")
    sex = pl.read_csv(folder.path / "table.csv")[table["row"].to_list(), "sex"]
    for value in ("f", "m"):
        part = table.filter(sex == value)
        assert found["groups"][value]["metrics"]["accuracy"] == (part["target"] == part["prediction"]).mean()
    accuracies = [group["metrics"]["accuracy"] for group in found["groups"].values()]
    assert run.record["gaps"]["sex"]["accuracy"] == max(accuracies) - min(accuracies)
    assert "By sex" in (run.path / "report.html").read_text(encoding="utf-8")
    new = folder.done("evaluate", classes.path, "evaluate.slices=[sex]", "data.path=new.csv", "evaluate.bootstrap=0")
    assert set(read(new, "slices.json")["sex"]["groups"]) == {"f", "m"}


def test_groups_of_a_column_that_is_not_there(folder, classes: Run) -> None:
    assert error(folder("evaluate", classes.path, "evaluate.slices=[sexx]")) == (
        3,
        "no column `sexx` in `table.csv`; did you mean `sex`?",
    )
    assert error(folder("evaluate", classes.path, "evaluate.slices=[sexx]", "data.path=new.csv")) == (
        3,
        "no column `sexx` in `new.csv`; did you mean `sex`?",
    )


@pytest.mark.parametrize("where", [[], ["data.path=new.csv"]])
def test_a_threshold_is_chosen_on_validation_rows(folder, classes: Run, where: list[str]) -> None:
    run = folder.done("evaluate", classes.path, "evaluate.threshold=f1", "evaluate.bootstrap=0", *where)
    on_val = folder.done("evaluate", classes.path, "split=val", "evaluate.threshold=f1", "evaluate.bootstrap=0")
    chosen = run.record["threshold"]
    assert chosen == on_val.record["threshold"] == read(run, "confusion.json")["threshold"]
    val = pl.read_parquet(on_val.path / "predictions.parquet")
    scores = [sk.f1_score(val["target"] == "yes", val["probability_yes"] >= cut) for cut in val["probability_yes"]]
    assert on_val.metrics["val/f1"] == pytest.approx(max(scores))
    table = pl.read_parquet(run.path / "predictions.parquet")
    assert ((table["probability_yes"] >= chosen) == (table["prediction"] == "yes")).all()


def test_a_given_threshold(folder, classes: Run) -> None:
    run = folder.done("evaluate", classes.path, "evaluate.threshold=0.2", "evaluate.bootstrap=0")
    plain = folder.done("evaluate", classes.path, "evaluate.bootstrap=0")
    assert run.metrics["test/recall"] > plain.metrics["test/recall"]
    assert run.metrics["test/auroc"] == plain.metrics["test/auroc"]


def test_a_number_as_target(folder, numbers: Run) -> None:
    run = folder.done("evaluate", numbers.path)
    assert run.metrics == {name: value for name, value in numbers.metrics.items() if name.startswith("test/")}
    table = pl.read_parquet(run.path / "predictions.parquet")
    assert table.columns == ["row", "target", "prediction"]
    assert sk.mean_absolute_error(table["target"], table["prediction"]) == pytest.approx(
        run.metrics["test/mae"], rel=1e-5
    )
    assert sum(read(run, "errors.json")["counts"]) + read(run, "errors.json")["beyond"] == 90
    assert error(folder("evaluate", numbers.path, "evaluate.threshold=0.3")) == (
        2,
        "`evaluate.threshold` is for two classes, this run has a number as target",
    )


def test_a_constant_target_has_no_r2(folder, numbers: Run) -> None:
    table = pl.read_csv(folder.path / "new.csv").with_columns(price=pl.lit(7.0))
    table.write_csv(folder.path / "constant.csv")
    code, _, err = folder("evaluate", numbers.path, "data.path=constant.csv", "evaluate.bootstrap=0")
    assert code == 0 and "warning: target is constant; R² written as null" in err.splitlines()
    assert folder.latest("evaluate").metrics["test/r2"] is None


def test_a_run_without_weights_is_refused(folder, classes: Run) -> None:
    run = folder.done("evaluate", classes.path, "evaluate.bootstrap=0")
    code, sentence = error(folder("evaluate", run.path))
    assert code == 4 and "is a run of `evaluate`" in sentence


def test_a_damaged_weight_file_is_refused(folder, classes: Run, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "train" / classes.path.name
    shutil.copytree(classes.path, copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert error(folder("evaluate", copy)) == (4, "`model.safetensors` fails its checksum")


def test_evaluating_twice_gives_the_same_bytes(folder, classes: Run) -> None:
    first, second = (folder.done("evaluate", classes.path, "evaluate.slices=[sex]") for _ in range(2))
    for name in ("metrics.json", "slices.json", "confusion.json", "calibration.json", "predictions.parquet"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert first.record["intervals"] == second.record["intervals"]


FOREIGN = """
import pytorch_lightning as pl
import torch


class Net(pl.LightningModule):
    monitor = "val_loss"

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, index):
        self.log("test_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


def test_a_foreign_module_measures_itself(folder, train) -> None:
    (folder.path / "foreign_net.py").write_text(FOREIGN, encoding="utf-8")
    conf = folder.path / "conf" / "task"
    conf.mkdir(parents=True)
    (conf / "foreign.yaml").write_text("_target_: foreign_net.Net\n", encoding="utf-8")
    words = ("data.target=rich", "+data.columns.price=drop", "data.scaling=standard", "task=foreign")
    trained = train(*words, "--trust", "foreign_net")
    run = folder.done("evaluate", trained.path, "--trust", "foreign_net")
    assert run.metrics == {"test_accuracy": pytest.approx(trained.metrics["test_accuracy"])}
    code, sentence = error(folder("evaluate", trained.path, "evaluate.threshold=0.3", "--trust", "foreign_net"))
    assert code == 2 and sentence.startswith("Net is not a trainctl task: `data.path`, `evaluate.slices` and ")


@pytest.mark.slow
def test_two_processes_count_each_row_once(folder, train, trainctl) -> None:
    words = ("data.target=rich", "+data.columns.price=drop", "data.split.test=0.145")  # 87 rows: an odd number
    trained = train(*words)
    done = trainctl("evaluate", str(trained.path), "trainer=ddp_sim", "evaluate.bootstrap=0", cwd=folder.path)
    assert done.code == 0, done.err
    run = folder.latest("evaluate")
    alone = folder.done("evaluate", trained.path, "evaluate.bootstrap=0")
    assert run.record["rows"] == alone.record["rows"] == trained.record["data"]["splits"]["test"]["rows"]
    assert run.metrics == pytest.approx(alone.metrics, abs=1e-6)
    kept = [pl.read_parquet(one.path / "predictions.parquet") for one in (run, alone)]
    assert kept[0].select("row", "prediction").equals(kept[1].select("row", "prediction"))


FOREIGN_DATA = '''
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Blobs(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.y = torch.randint(2, (300,), generator=generator)
        self.x = torch.randn(300, 3, generator=generator) + self.y[:, None]

    def part(self, rows, shuffle=False):
        return DataLoader(TensorDataset(self.x[rows], self.y[rows]), batch_size=32, shuffle=shuffle)

    def train_dataloader(self):
        return self.part(slice(0, 200), shuffle=True)

    def val_dataloader(self):
        return self.part(slice(200, 250))

    def test_dataloader(self):
        return self.part(slice(250, 300))
'''


def test_foreign_data_is_measured_by_our_task(folder) -> None:
    (folder.path / "foreign_data.py").write_text(FOREIGN_DATA, encoding="utf-8")
    conf = folder.path / "conf" / "data"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "blobs.yaml").write_text("_target_: foreign_data.Blobs\n", encoding="utf-8")
    trust = ("--trust", "foreign_data")
    trained = folder.done("train", "data=blobs", "model=linear", "trainer.max_epochs=2", "trainer.threads=1", *trust)
    run = folder.done("evaluate", trained.path, *trust)
    assert run.record["rows"] == 50 == len(pl.read_parquet(run.path / "predictions.parquet"))
    assert run.metrics["test/accuracy"] == trained.metrics["test/accuracy"]
    assert error(folder("evaluate", trained.path, "evaluate.slices=[sex]", *trust)) == (
        3,
        "no column `sex`: Blobs has no named columns to slice by",
    )
    code, sentence = error(folder("predict", trained.path, "new.csv", *trust))
    assert (code, sentence) == (2, "Blobs is not of trainctl; `predict` needs a built-in task and data module")
