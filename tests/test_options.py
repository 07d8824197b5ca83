"""Options of `train` through the command line: their effect on the run and on its files."""

from __future__ import annotations

import csv
import json
import math
import random
import time

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

FLAT = ("callbacks=none",)


def curve(run, name: str = "lr") -> list[float]:
    return [row[name] for row in run.metrics_log()]


# How long to train


def test_early_stopping_ends_after_its_patience(lab):
    run = lab.train("trainer.max_epochs=40", "callbacks.early_stopping.patience=2", "optimizer.lr=0.05")
    losses = curve(run, "val/loss")
    best = losses.index(min(losses)) + 1
    assert (run.record["best_epoch"], run.record["epochs"]) == (best, best + 2)
    assert run.metrics["val/loss"] == min(losses)


def test_without_callbacks_all_epochs_are_trained_and_the_best_kept(lab):
    run = lab.train("trainer.max_epochs=25", "optimizer.lr=0.05", *FLAT)
    losses = curve(run, "val/loss")
    assert len(losses) == 25
    assert run.record["best_epoch"] == losses.index(min(losses)) + 1 < 25


def test_min_delta_counts_small_gains_as_none(lab):
    run = lab.train("callbacks.early_stopping.min_delta=10", "callbacks.early_stopping.patience=1")
    assert run.record["epochs"] == 2


def test_max_time_stops_midway_tests_the_best_and_can_be_extended(lab):
    begun = time.monotonic()
    run = lab.train("trainer.max_epochs=100000", "trainer.max_time=1s", "data.rows=40000", "data.batch_size=8", *FLAT)
    took = time.monotonic() - begun
    assert run.status == "completed" and "test/accuracy" in run.metrics
    assert run.record["timing"]["fit_s"] == pytest.approx(1.0, abs=0.6), took
    epochs = run.record["epochs"]
    place = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)["place"]
    again = lab.run("train", "--resume", str(run.path), "trainer.max_time=2s")
    assert again.path == run.path
    after = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)["place"]
    assert after["step"] > place["step"] and again.record["epochs"] >= epochs


def test_no_epoch_in_max_time_uses_the_weights_reached(lab):
    run = lab.train("trainer.max_time=0.05", "data.rows=200000", "data.batch_size=8", "trainer.max_epochs=5")
    assert run.metrics_log() == [] and run.metrics["test/accuracy"] is not None
    assert (run.record["best_epoch"], run.record["epochs"]) == (None, 0)


# What is monitored


def test_another_monitor_picks_another_best_epoch(lab):
    words = ("trainer.max_epochs=15", "optimizer.lr=0.03", "data.noise=1.0", *FLAT)
    run, other = lab.train(*words), lab.train(*words, "train.monitor=val/accuracy")
    losses, accuracies = curve(other, "val/loss"), curve(other, "val/accuracy")
    assert run.record["best_epoch"] == losses.index(min(losses)) + 1
    assert other.record["best_epoch"] == accuracies.index(max(accuracies)) + 1 != run.record["best_epoch"]
    assert (other.record["monitor"], other.record["mode"]) == ("val/accuracy", "max")


def test_a_run_without_test_never_looks_at_it(lab):
    run = lab.train("train.test=false")
    assert not [name for name in run.metrics if name.startswith("test/")] and run.test_looks() == 0
    assert run.metrics["val/loss"] is not None


def test_bootstrap_gives_the_test_figures_intervals(lab):
    run = lab.train("train.bootstrap=200")
    low, high = run.record["intervals"]["test/accuracy"]
    assert low < run.metrics["test/accuracy"] < high
    assert lab.train().record["intervals"] == {}


# Weights


def test_averaged_weights_are_kept_and_evaluated(lab):
    run = lab.train("ema=0.95", "trainer.max_epochs=4")
    kept = load_file(run.path / "model.safetensors")
    best = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)
    live = {name.removeprefix("net."): value for name, value in best["state_dict"].items()}
    for name, average in zip(live, best["average"]["average"], strict=True):
        assert torch.equal(kept[name], average)
    assert any(not torch.equal(kept[name], live[name]) for name in kept)
    evaluated = lab.run("evaluate", str(run.path), "split=val", "evaluate.bootstrap=0")
    assert evaluated.metrics["val/loss"] == pytest.approx(run.metrics["val/loss"], rel=1e-5)


def test_balanced_class_weights_find_the_rare_class(lab):
    draw = random.Random(0)
    labels = [i % 20 == 0 for i in range(2000)]
    rows = [f"{draw.gauss(2.0 if rare else 0.0, 1):.3f},{'rare' if rare else 'usual'}" for rare in labels]
    (lab.folder / "rare.csv").write_text("\n".join(["x,y", *rows]), encoding="utf-8")
    words = ("data=tabular", "data.path=rare.csv", "data.target=y", "model=linear", "trainer.max_epochs=8",
             "trainer.threads=1", "optimizer.lr=0.02")
    plain, balanced = lab.run("train", *words), lab.run("train", *words, "task.class_weights=balanced")
    listed = lab.run("train", *words, "task.class_weights=[10,0.5]")
    assert plain.metrics["test/balanced_accuracy"] < 0.7
    assert balanced.metrics["test/balanced_accuracy"] > 0.75
    assert listed.metrics["test/balanced_accuracy"] > 0.75


# Threads and debugging


def test_threads_are_recorded_and_restored(lab):
    run = lab.train("trainer.threads=2")
    assert run.record["threads"] == 2
    auto = lab.train("trainer.threads=auto")
    assert auto.record["threads"] >= 1
    lab.run("train", "--resume", str(auto.path), "trainer.max_epochs=4")
    place = torch.load(auto.path / "checkpoints" / "last.ckpt", weights_only=True)["place"]
    assert place["threads"] == auto.record["threads"]


def test_debug_fast_is_one_batch_of_each_split(lab):
    run = lab.run("train", "data=synthetic", "debug=fast", "data.eval_batch_size=10")
    assert curve(run, "step") == [1] and len(run.metrics_log()) == 1
    assert len(pl.read_parquet(run.path / "predictions.parquet")) == 10


def test_debug_overfit_learns_two_batches_by_heart(lab):
    run = lab.run("train", "data=synthetic", "data.batch_size=64", "debug=overfit", "data.noise=1.0",
                  "optimizer.lr=0.01", "trainer.max_epochs=60")
    losses = curve(run, "train/loss")
    assert curve(run, "step")[-1] == 120
    assert losses[0] > 0.6 and losses[-1] < 0.01
    assert run.record["monitor"] == "train/loss"


def test_debug_profile_leaves_a_report(lab):
    run = lab.train("debug=profile")
    (report,) = run.path.glob("*profile*.txt")
    assert "run_training_epoch" in report.read_text(encoding="utf-8")


# Compiling


@pytest.mark.slow
def test_a_compiled_net_gives_the_same_figures_and_ordinary_weights(lab):
    words = ("model.dropout=0.1", "data.batch_size=128")
    plain, compiled = lab.train(*words), lab.train(*words, "compile=true")
    assert compiled.metrics["test/loss"] == pytest.approx(plain.metrics["test/loss"], rel=0.05)
    assert set(load_file(compiled.path / "model.safetensors")) == set(load_file(plain.path / "model.safetensors"))
    longer = lab.run("train", "--resume", str(compiled.path), "trainer.max_epochs=4")
    assert longer.record["epochs"] == 4
    assert lab.run("evaluate", str(compiled.path)).metrics["test/loss"] == pytest.approx(longer.metrics["test/loss"])


# Loggers


def test_csv_rows_stay_when_the_run_is_resumed(lab):
    first = lab.train("logger=csv")
    run = lab.run("train", "--resume", str(first.path), "trainer.max_epochs=5")
    with open(run.path / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/loss"):
        logged = [float(row[name]) for row in rows if row[name]]
        assert logged == pytest.approx(curve(run, name))
    assert [int(row["step"]) for row in rows] == curve(run, "step")
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]


def test_tensorboard_files_appear_and_the_run_resumes(lab):
    run = lab.train("logger=tensorboard")
    first = list((run.path / "tensorboard").glob("events.out.tfevents.*"))
    assert first
    lab.run("train", "--resume", str(run.path), "trainer.max_epochs=5")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    seen = {event.step: event.value for event in events.Scalars("val/loss")}
    assert list(seen) == curve(run, "step")
    assert list(seen.values()) == pytest.approx(curve(run, "val/loss"))


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_named_with_the_command(lab, name):
    assert lab.sentence(2, "train", *lab.quick, f"logger={name}") == (
        f"logger={name} needs {name}; install it with `pip install 'trainctl[{name}]'`"
    )
    assert not (lab.folder / "runs").exists()


@pytest.mark.slow
def test_lr_auto_keeps_its_curve_and_its_rate(lab):
    run = lab.run("train", "data=digits", "model=mlp", "optimizer.lr=auto", "trainer.max_epochs=8", "trainer.threads=1")
    found = json.loads((run.path / "lr_range.json").read_text(encoding="utf-8"))
    assert run.record["lr"] == found["lr"] and len(found["rates"]) == len(found["losses"]) > 20
    assert 1e-4 < found["lr"] < 3e-2 and all(math.isfinite(loss) for loss in found["losses"])
    assert curve(run) == [found["lr"]] * 8 and run.metrics["test/accuracy"] > 0.9
    longer = lab.run("train", "--resume", str(run.path), "trainer.max_epochs=9")
    assert longer.record["lr"] == found["lr"] and curve(longer)[-1] == found["lr"]
