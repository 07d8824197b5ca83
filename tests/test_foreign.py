"""Someone's Lightning code works unchanged by `_target_`: it trains, resumes, is evaluated, and stops on signals."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

CONF = {
    "task/theirs": "_target_: my_pkg.Classifier\nwidth: 8\nlr: 0.01\n",
    "task/silent": "_target_: my_pkg.Silent\n",
    "data/blobs": "_target_: my_pkg.Blobs\nrows: 240\nbatch: 16\n",
    "model/wide": "_target_: my_pkg.Wide\ninputs: 14\noutputs: 2\nwidth: 32\n",
    "optimizer/signed": "_target_: my_pkg.Signed\n_partial_: true\nlr: 0.005\n",
    "scheduler/exponential": "_target_: torch.optim.lr_scheduler.ExponentialLR\n_partial_: true\ngamma: 0.5\n",
    "callbacks/say": "say:\n  _target_: my_pkg.Say\n  path: said.txt\n",
    "logger/lines": "lines:\n  _target_: my_pkg.Lines\n  path: lines.txt\n",
}
THEIRS = ("task=theirs", "data=blobs", "trainer.threads=1", "callbacks=none")
OURS = ("data=synthetic", "data.rows=600", "data.batch_size=64", "trainer.threads=1", "trainer.max_epochs=3")


@pytest.fixture
def place(lab):
    """A lab whose folder has my_pkg.py and their/conf."""
    shutil.copy(Path(__file__).with_name("foreign.py"), lab.folder / "my_pkg.py")
    for name, text in CONF.items():
        path = lab.folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return lab


def digest(run):
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


def rows(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics_log()]


def test_module_and_data_train_and_are_evaluated(place):
    run = place.run("train", *THEIRS, "trainer.max_epochs=5")
    assert (run.record["monitor"], run.record["mode"]) == ("val_loss", "min")
    assert {"val_loss", "val_acc", "train_loss"} <= set(run.metrics_log()[0])
    assert [row["step"] for row in run.metrics_log()] == [8, 16, 24, 32, 40]
    assert run.metrics["test_acc"] > 0.75 and run.metrics["val_acc"] > 0.75
    assert set(load_file(run.path / "model.safetensors")) == {
        "body.0.weight", "body.0.bias", "body.3.weight", "body.3.bias"}
    name = f"runs/train/{run.path.name}"
    evaluated = place.run("evaluate", name, "--trust", "my_pkg")
    assert evaluated.metrics["test_acc"] == pytest.approx(run.metrics["test_acc"])


def test_a_run_of_their_code_is_not_evaluated_without_trust(place):
    run = place.run("train", *THEIRS, "trainer.max_epochs=1")
    for words in (["evaluate", f"runs/train/{run.path.name}"], ["train", "--resume", f"runs/train/{run.path.name}"]):
        assert place.sentence(4, *words).endswith(
            "which is not on the list of trusted components; pass `--trust my_pkg` if you trust that package and where "
            "the run comes from"
        )


def test_the_config_folder_may_be_elsewhere(place):
    shutil.move(place.folder / "conf", place.folder / "theirs")
    (place.folder / "theirs").rename(place.folder / "settings")
    run = place.run("train", *THEIRS, "trainer.max_epochs=1", "--config-dir", "settings")
    assert run.status == "completed"


def test_it_resumes_at_epoch_ends_to_the_same_bits(place):
    short = place.run("train", *THEIRS, "trainer.max_epochs=3")
    place.run("train", "--resume", f"runs/train/{short.path.name}", "trainer.max_epochs=6", "--trust", "my_pkg")
    long = place.run("train", *THEIRS, "trainer.max_epochs=6")
    from trainctl.run.run import Run

    extended = Run.open(short.path)
    assert rows(extended) == rows(long)
    assert digest(extended) == digest(long)


@pytest.mark.slow
def test_a_signal_keeps_the_last_epoch_and_the_resumed_run_is_the_same(place):
    words = ("train", *THEIRS, "trainer.max_epochs=60")
    started = place.start(*words)
    started.wait_for("epoch 3/")
    started.send(signal.SIGTERM)
    done = started.wait()
    (path,) = (place.folder / "runs" / "train").iterdir()
    assert done.code == 143
    said = done.err.splitlines()[-1]
    assert said == f"trainctl: error: stopped by SIGTERM; resume with `trainctl train --resume runs/train/{path.name}`"
    assert json.loads((path / "run.json").read_text(encoding="utf-8"))["status"] == "stopped"
    resumed = place.run("train", "--resume", "latest", "--trust", "my_pkg")
    straight = place.run(*words)
    assert resumed.path.name == path.name and len(rows(resumed)) == 60
    assert rows(resumed) == rows(straight) and digest(resumed) == digest(straight)


def test_early_stopping_and_the_best_epoch_follow_their_metric(place):
    run = place.run("train", "task=theirs", "data=blobs", "trainer.threads=1", "trainer.max_epochs=50",
                    "train.monitor=val_acc", "train.mode=max", "callbacks.early_stopping.patience=2")
    best = max(range(run.record["epochs"]), key=lambda k: run.metrics_log()[k]["val_acc"]) + 1
    assert (run.record["best_epoch"], run.record["epochs"]) == (best, best + 2)
    assert (run.record["monitor"], run.record["mode"]) == ("val_acc", "max")


@pytest.mark.parametrize(("words", "name", "have"), [
    (("train.monitor=val_los",), "val_los", "train_loss, val_acc, val_loss; did you mean `val_loss`?"),
    (("task=silent",), "val_loss", "train_loss; did you mean `train_loss`?"),
])
@pytest.mark.parametrize("callbacks", ["default", "none"])
def test_a_monitor_that_it_does_not_log_is_named(place, words, name, have, callbacks):
    said = place.sentence(2, "train", *THEIRS[:3], f"callbacks={callbacks}", "trainer.max_epochs=3", *words)
    assert said == f"monitor `{name}` is not logged; have: {have}"


@pytest.mark.slow
def test_time_may_run_out_before_their_first_epoch_ends(place):
    words = ("data.rows=30000", "data.batch=2", "trainer.max_time=0.3", "trainer.max_epochs=3")
    run = place.run("train", *THEIRS, *words)
    assert run.status == "completed" and run.metrics_log() == []
    assert 0 <= run.metrics["test_acc"] <= 1


@pytest.mark.parametrize("kind", ["Wide", "Lazy"])
def test_their_net_under_our_task_and_data(place, kind):
    (place.folder / "conf/model/wide.yaml").write_text(CONF["model/wide"].replace("Wide", kind), encoding="utf-8")
    run = place.run("train", *OURS, "model=wide", "model.width=12")
    assert load_file(run.path / "model.safetensors")["first.weight"].shape == (12, 14)
    name = f"runs/train/{run.path.name}"
    evaluated = place.run("evaluate", name, "--trust", "my_pkg", "split=val", "evaluate.bootstrap=0")
    assert evaluated.metrics["val/loss"] == pytest.approx(run.metrics["val/loss"], rel=1e-5)
    resumed = place.run("train", "--resume", name, "trainer.max_epochs=4", "--trust", "my_pkg")
    straight = place.run("train", *OURS, "model=wide", "model.width=12", "trainer.max_epochs=4")
    assert digest(resumed) == digest(straight)


def test_our_net_and_task_on_their_data(place):
    words = ("train", "data=blobs", "trainer.threads=1", "trainer.max_epochs=4")
    run = place.run(*words, "model.dropout=0.2")
    assert run.metrics["test/accuracy"] > 0.8
    name = f"runs/train/{run.path.name}"
    evaluated = place.run("evaluate", name, "--trust", "my_pkg")
    assert evaluated.metrics["test/accuracy"] == run.metrics["test/accuracy"]
    assert "test/accuracy" in evaluated.record["intervals"]
    place.run("train", "--resume", name, "trainer.max_epochs=6", "--trust", "my_pkg")
    straight = place.run(*words, "model.dropout=0.2", "trainer.max_epochs=6")
    from trainctl.run.run import Run

    assert rows(Run.open(run.path)) == rows(straight)
    assert digest(run) == digest(straight)


def test_their_data_cannot_be_predicted_from_a_file(place):
    run = place.run("train", "data=blobs", "trainer.threads=1", "trainer.max_epochs=1")
    (place.folder / "rows.csv").write_text("a,b,c,d\n1,2,3,4\n", encoding="utf-8")
    name = f"runs/train/{run.path.name}"
    said = place.sentence(2, "predict", name, "rows.csv", "-o", "out.csv", "--trust", "my_pkg")
    assert said == "Blobs is not of trainctl; `predict` needs a built-in task and data module"
    assert not (place.folder / "out.csv").exists()


def test_their_optimizer_scheduler_callback_and_logger(place):
    run = place.run("train", *OURS, "optimizer=signed", "scheduler=exponential", "callbacks=say", "logger=lines")
    assert [row["lr"] for row in run.metrics_log()] == pytest.approx([0.005, 0.0025, 0.00125])
    assert run.metrics["test/accuracy"] > 0.5
    assert (place.folder / "said.txt").read_text(encoding="utf-8") == "0\n1\n2\n"
    lines = (place.folder / "lines.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["7", "14", "21"] and "val/loss" in lines[0]
    name = f"runs/train/{run.path.name}"
    resumed = place.run("train", "--resume", name, "trainer.max_epochs=5", "--trust", "my_pkg")
    straight = place.run("train", *OURS, "optimizer=signed", "scheduler=exponential", "trainer.max_epochs=5")
    assert digest(resumed) == digest(straight)


def test_their_module_on_our_data(place):
    words = ("train", "task=theirs", "trainer.threads=1", "callbacks=none", "data=synthetic", "data.rows=600",
             "data.numeric=4", "data.categorical=0", "data.batch_size=32")
    run = place.run(*words, "trainer.max_epochs=3")
    assert run.metrics["test_acc"] > 0.5 and run.record["data"]["splits"]["train"]["rows"] == 420
    name = f"runs/train/{run.path.name}"
    assert place.run("evaluate", name, "--trust", "my_pkg").metrics["test_acc"] == pytest.approx(
        run.metrics["test_acc"])
    place.run("train", "--resume", name, "trainer.max_epochs=5", "--trust", "my_pkg")
    straight = place.run(*words, "trainer.max_epochs=5")
    from trainctl.run.run import Run

    assert rows(Run.open(run.path)) == rows(straight) and digest(run) == digest(straight)


def test_the_seed_decides_their_weights_and_order(place):
    one, same, other = (place.run("train", *THEIRS, "trainer.max_epochs=1", f"seed={seed}") for seed in (1, 1, 2))
    assert digest(one) == digest(same) != digest(other)


@pytest.mark.parametrize(("widths", "said"), [
    ((10, 2), "`my_pkg.Wide` cannot take this table, x [2, 14]: mat1 and mat2 shapes cannot be multiplied (2x14 and "
              "10x32); let it take `spec` first to fit any data"),
    ((14, 3), "`my_pkg.Wide` gives [2, 3] for 2 rows, but `target` needs [2, 2]; let it take `spec` first and end in "
              "`spec.num_outputs`"),
])
def test_a_net_of_another_width_is_refused_before_it_trains(place, widths, said):
    words = [f"model.inputs={widths[0]}", f"model.outputs={widths[1]}"]
    assert place.sentence(2, "train", *OURS, "model=wide", *words) == said
    assert not (place.folder / "runs").exists()
