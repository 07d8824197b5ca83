"""train.folds and train.seeds: one run, a child for each, figures over all of them."""

from __future__ import annotations

import json
import signal
import statistics

import polars as pl
import pytest

from trainctl.run.run import Run


def children(run, kind):
    return [Run.open(path) for path in sorted((run.path / kind).iterdir())]


def check_spread(run, runs):
    names = [name for name in run.metrics if not name.endswith("_sd")]
    assert {"val/loss", "test/accuracy"} <= set(names)
    for name in names:
        values = [child.metrics[name] for child in runs]
        assert run.metrics[name] == pytest.approx(statistics.fmean(values))
        assert run.metrics[f"{name}_sd"] == pytest.approx(statistics.stdev(values))


def test_folds_cover_every_row_once_and_give_mean_and_sd(lab):
    run = lab.train("train.folds=4")
    runs = children(run, "folds")
    assert [child.status for child in runs] == ["completed"] * 4
    check_spread(run, runs)
    frame = pl.read_parquet(run.path / "predictions.parquet")
    assert frame["row"].to_list() == list(range(600))
    assert frame["fold"].value_counts().sort("fold")["count"].to_list() == [150] * 4
    for child in runs:
        own = pl.read_parquet(child.path / "predictions.parquet")
        assert frame.filter(pl.col("fold") == int(child.path.name)).drop("fold").equals(own.sort("row"))
    assert run.record["artifacts"]["predictions"] == "predictions.parquet"
    assert (run.path / "report.html").exists()


def test_seeds_share_the_rows_and_differ_in_training(lab):
    run = lab.train("train.seeds=3", "seed=10")
    runs = children(run, "seeds")
    assert [child.config["seed"] for child in runs] == [10, 11, 12]
    assert len({json.dumps(child.record["data"]["splits"]) for child in runs}) == 1
    assert len({child.metrics["val/loss"] for child in runs}) == 3
    check_spread(run, runs)


def test_a_seed_of_a_repeated_run_is_the_run_that_one_would_start_oneself(lab):
    run = lab.train("train.seeds=2")
    alone = lab.train("seed=1", "data.seed=0")
    assert children(run, "seeds")[1].metrics == alone.metrics


def test_bundled_table_is_folded_without_its_test_file(lab):
    run = lab.run("train", "debug=fast", "train.folds=2", "data.val_path=null")
    assert run.metrics["test/accuracy_sd"] is not None
    assert any("is not used: fold" in sentence for sentence in children(run, "folds")[0].record["warnings"])


def test_folds_of_val_never_touch_the_test_rows(lab):
    run = lab.train("train.folds=3", "data.split.fold_as=val", "train.test=false", "data.rows=200")
    runs = children(run, "folds")
    names = [name for name in run.metrics if not name.endswith("_sd")]
    assert "val/loss" in names and not [name for name in names if name.startswith("test/")]
    unfolded = lab.train("data.rows=200")
    tested = unfolded.record["data"]["splits"]["test"]
    assert [child.record["data"]["splits"]["test"]["rows"] for child in runs] == [tested["rows"]] * 3
    assert sum(child.record["data"]["splits"]["val"]["rows"] for child in runs) == 200 - tested["rows"]
    assert not list(run.path.rglob("predictions.parquet"))


def test_folds_of_val_may_be_tested_and_are_not_taken_for_out_of_fold_predictions(lab):
    run = lab.train("train.folds=2", "data.split.fold_as=val", "data.rows=200")
    frames = [pl.read_parquet(child.path / "predictions.parquet")["row"].sort() for child in children(run, "folds")]
    assert frames[0].equals(frames[1])
    assert run.metrics["test/accuracy_sd"] is not None
    assert not (run.path / "predictions.parquet").exists()


def test_a_val_file_is_left_out_when_val_is_a_fold(lab):
    rows = ["a,y"] + [f"{i % 7},{'no' if i % 3 else 'yes'}" for i in range(60)]
    for name in ("main.csv", "val.csv"):
        (lab.folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = ("data.path=main.csv", "data.val_path=val.csv", "data.target=y", "data.split.fold_as=val")
    run = lab.run("train", "debug=fast", *words, "train.folds=2")
    assert "`val.csv` is not used: fold 0 is the val split" in children(run, "folds")[0].record["warnings"]


@pytest.mark.slow
def test_a_killed_repetition_goes_on_with_the_missing_children(lab):
    started = lab.start("train", *lab.quick, "train.folds=3", "trainer.max_epochs=8")
    started.wait_for("fold 2 of 3")
    started.wait_for("epoch 8/8")
    started.send(signal.SIGKILL)
    assert started.wait().code == -9
    (parent,) = (lab.folder / "runs" / "train").iterdir()
    first = (parent / "folds" / "0" / "run.json").read_bytes()
    run = lab.run("train", "--resume", "latest")
    assert run.path.name == parent.name and run.status == "completed"
    assert (parent / "folds" / "0" / "run.json").read_bytes() == first
    straight = lab.train("train.folds=3", "trainer.max_epochs=8")
    assert run.metrics == straight.metrics
    assert pl.read_parquet(run.path / "predictions.parquet").equals(
        pl.read_parquet(straight.path / "predictions.parquet"))


def test_a_stopped_repetition_says_how_to_go_on(lab):
    started = lab.start("train", *lab.quick, "train.seeds=2", "trainer.max_epochs=2000")
    started.wait_for("epoch 2/")
    started.send(signal.SIGTERM)
    done = started.wait()
    (parent,) = (lab.folder / "runs" / "train").iterdir()
    assert done.code == 143
    said = done.err.splitlines()[-1]
    assert said.startswith("trainctl: error: stopped by SIGTERM at epoch ")
    assert said.endswith(f"; resume with `trainctl train --resume runs/train/{parent.name}`")
    assert [Run.open(parent).status, Run.open(parent / "seeds" / "0").status] == ["stopped", "stopped"]


def test_a_failing_child_is_named(lab):
    said = lab.sentence(6, "train", *lab.quick, "train.folds=2", "optimizer=sgd", "optimizer.lr=1e30")
    assert said.startswith("fold 0: loss is ")


def test_a_parent_has_no_weights_of_its_own(lab):
    run = lab.train("train.folds=2")
    name = f"runs/train/{run.path.name}"
    for words in (["evaluate", name], ["predict", name, "x.csv", "-o", "y.csv"], ["train", "--from", name]):
        (lab.folder / "x.csv").write_text("a\n1\n", encoding="utf-8")
        assert lab.sentence(4, *words) == f"`{name}` is made of 2 runs; name one of them, e.g. `{name}/folds/0`"
    assert lab.run("evaluate", f"{name}/folds/1").metrics["test/accuracy"] is not None


def test_children_are_listed_and_shown(lab):
    run = lab.train("train.folds=2")
    names = [f"{run.name}/folds/{k}" for k in range(2)]
    listed = lab("runs", "--all", "--json").json["runs"]
    assert [entry["run"].removeprefix("runs/train/") for entry in listed] == [run.name, *names]
    assert len(lab("runs", "--json").json["runs"]) == 1
    shown = lab("show", "latest").out
    assert "folds/0 completed, folds/1 completed" in shown


def test_folds_and_seeds_together_are_refused(lab):
    assert lab.sentence(2, "train", *lab.quick, "train.folds=2", "train.seeds=2") == (
        "`train.folds` and `train.seeds` are both set; choose one of them"
    )
    assert not (lab.folder / "runs").exists()


def test_more_folds_than_rows_are_refused(lab):
    assert lab.sentence(3, "train", *lab.quick, "train.folds=1000", "data.rows=20") == (
        "fold 0: split `test` has 1 row of 20; it needs 2 or more: bring more rows or change `data.split`"
    )
    assert not list(lab.folder.rglob("run.json"))


def test_data_without_splits_of_ours_cannot_be_folded(lab):
    (lab.folder / "given.py").write_text(
        "import pytorch_lightning as pl\n\n\nclass Given(pl.LightningDataModule):\n    pass\n", encoding="utf-8")
    (lab.folder / "conf" / "data").mkdir(parents=True)
    (lab.folder / "conf" / "data" / "given.yaml").write_text("_target_: given.Given\n", encoding="utf-8")
    said = lab.sentence(2, "train", "train.folds=2", "data=given")
    assert said == "`train.folds` needs data with a `split` to set; `given.Given` brings its own splits"
    assert not list(lab.folder.rglob("run.json"))
