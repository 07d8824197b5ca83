"""`--from RUN` begins from another run's weights; `--resume RUN` goes on with the same one."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import torch
from safetensors.torch import load_file

TABLE = ("data=tabular", "data.target=y", "trainer.threads=1", "trainer.max_epochs=2", "data.batch_size=32")


def table(path, rows, seed=0, labels=("no", "yes"), shift=0.0):
    """x (normal around `shift`), colour, y: the label follows from x."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        x = draw.gauss(0, 1)
        label = labels[min(len(labels) - 1, int(max(0.0, x + 1) / 2 * len(labels)))]
        lines.append(f"{x + shift:.4f},{draw.choice(['red', 'green'])},{label}")
    path.write_text("\n".join(["x,colour,y", *lines]) + "\n", encoding="utf-8")
    return str(path)


def weights(run):
    return load_file(run.path / "model.safetensors")


def digest(run):
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


def figures(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics_log()]


@pytest.fixture
def source(lab):
    return lab.run("train", *TABLE, f"data.path={table(lab.folder / 'old.csv', 400)}")


def test_it_begins_from_the_weights_of_the_source(lab, source):
    tuned = lab.run("train", "--from", str(source.path), "optimizer.lr=1e-9", "trainer.max_epochs=1", "seed=5",
                    "trainer.threads=1")
    assert tuned.path != source.path and tuned.parent == source.path.absolute()
    for name, value in weights(source).items():
        torch.testing.assert_close(weights(tuned)[name], value, rtol=0, atol=1e-6)


def test_a_new_file_is_seen_through_the_preprocessing_of_the_source(lab, source):
    new = table(lab.folder / "new.csv", 300, seed=1, shift=5.0)
    tuned = lab.run("train", "--from", str(source.path), f"data.path={new}", "trainer.max_epochs=1")
    for name in ("table.json", "scaling.safetensors", "spec.json"):
        kept, before = (run.path / "preprocessing" / name for run in (tuned, source))
        assert kept.read_bytes() == before.read_bytes()
    assert tuned.config["data"]["path"] == new
    assert tuned.record["data"]["splits"] != source.record["data"]["splits"]


def test_other_classes_get_a_fresh_head_and_keep_the_rest(lab, source):
    new = table(lab.folder / "new.csv", 300, seed=1, labels=("low", "middle", "high"))
    done = lab("train", "--from", str(source.path), f"data.path={new}", "trainer.max_epochs=1", "optimizer.lr=1e-9",
               "--json")
    assert done.code == 0, done.err
    assert f"`{new}` has other classes than the source run, so the head is new: high, low, middle" in done.err
    assert f"starting afresh, since `{source.name}` has no fitting weights for: 5.bias, 5.weight" in done.err
    from trainctl.run.run import Run

    tuned = Run.open(lab.folder / done.json["run"])
    assert weights(tuned)["5.weight"].shape == (3, 128)
    for name in ("1.weight", "3.weight"):
        torch.testing.assert_close(weights(tuned)[name], weights(source)[name], rtol=0, atol=1e-6)
    assert json.loads((tuned.path / "preprocessing" / "spec.json").read_text())["classes"] == ["high", "low", "middle"]
    assert (tuned.path / "preprocessing" / "table.json").read_bytes() == (
        source.path / "preprocessing" / "table.json").read_bytes()


def test_frozen_weights_of_the_source_stay_and_the_rest_moves(lab, source):
    tuned = lab.run("train", "--from", str(source.path), "freeze=['1','3']", "trainer.max_epochs=2")
    same = {name for name, value in weights(source).items() if torch.equal(value, weights(tuned)[name])}
    assert same == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_a_pattern_that_matches_nothing_is_refused(lab, source):
    said = lab.sentence(2, "train", "--from", str(source.path), "freeze=['encoder*']")
    assert said == (
        "`freeze` pattern 'encoder*' matches no parameter; there are: 0.embed.weight, 1.weight, 1.bias, 3.weight, "
        "3.bias, 5.weight, 5.bias"
    )


def test_freezing_all_is_refused(lab, source):
    said = lab.sentence(2, "train", "--from", str(source.path), "freeze=['*']")
    assert said == "`freeze` leaves nothing to train; free at least one parameter"


def test_a_net_that_shares_no_weight_is_refused(lab, source):
    said = lab.sentence(4, "train", "--from", str(source.path), "model=linear")
    assert said.startswith(f"no weight of `{source.name}` fits this net: ")


def test_other_data_altogether_is_prepared_afresh(lab, source):
    tuned = lab.run("train", "--from", str(source.path), "data=synthetic", "data.rows=300", "trainer.max_epochs=1")
    assert not (tuned.path / "preprocessing" / "table.json").exists()
    assert tuned.metrics["test/accuracy"] is not None


# Resuming


@pytest.mark.parametrize("words", [(), ("ema=0.9", "model.dropout=0.2", "trainer.accumulate_grad_batches=3")])
def test_an_extended_run_equals_a_longer_one(lab, words):
    short, long = lab.train(*words), lab.train(*words, "trainer.max_epochs=5")
    extended = lab.run("train", "--resume", str(short.path), "trainer.max_epochs=5")
    assert extended.path == short.path and extended.config["trainer"]["max_epochs"] == 5
    assert digest(extended) == digest(long) and figures(extended) == figures(long)
    assert extended.metrics == long.metrics


def test_more_patience_goes_on_where_early_stopping_ended(lab):
    words = ("trainer.max_epochs=40", "optimizer.lr=0.05", "callbacks.early_stopping.patience=2")
    stopped = lab.train(*words)
    epochs = stopped.record["epochs"]
    assert epochs < 40
    longer = lab.run("train", "--resume", str(stopped.path), "callbacks.early_stopping.patience=5")
    straight = lab.train(*words[:2], "callbacks.early_stopping.patience=5")
    assert longer.record["epochs"] == straight.record["epochs"] > epochs
    assert digest(longer) == digest(straight) and figures(longer) == figures(straight)


def test_a_complete_run_is_left_as_it_is(lab):
    run = lab.train()
    before = (run.path / "run.json").read_bytes()
    done = lab("train", "--resume", str(run.path))
    assert done.code == 0
    assert "run is already complete (epoch 3 of 3); use trainer.max_epochs= to extend" in done.err
    assert (run.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("change", ["optimizer.lr=0.1", "model=linear", "seed=3"])
def test_any_other_change_is_refused(lab, change):
    run = lab.train()
    said = lab.sentence(2, "train", "--resume", str(run.path), change)
    assert said == (
        "a resumed run keeps its config; only trainer.max_epochs, trainer.max_time, callbacks.early_stopping.patience, "
        f"trainer.threads may change, got `{change}`; start a new run with `trainctl train --from RUN` instead"
    )


# Other targets


def test_another_target_of_the_same_columns(lab, source):
    lines = (lab.folder / "old.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{line},{10 + 2 * float(line.split(',')[0])}" for line in lines[1:]]
    (lab.folder / "priced.csv").write_text("\n".join([lines[0] + ",price", *rows]) + "\n", encoding="utf-8")
    tuned = lab.run("train", "--from", str(source.path), "data.path=priced.csv", "data.target=price",
                    "trainer.max_epochs=30", "optimizer.lr=0.01")
    spec = json.loads((tuned.path / "preprocessing" / "spec.json").read_text(encoding="utf-8"))
    assert (spec["target"], spec["target_name"], spec["classes"]) == ("number", "price", [])
    assert spec["target_mean"] == pytest.approx(10, abs=0.3) and spec["target_std"] == pytest.approx(2, abs=0.3)
    assert tuned.metrics["test/rmse"] < 0.5
    assert "test/rmse" in lab.run("evaluate", str(tuned.path)).metrics


def test_a_target_that_the_source_learned_from_is_refused(lab, source):
    said = lab.sentence(2, "train", "--from", str(source.path), "data.target=colour")
    assert said == "`data.target=colour` is a column that the source run learned from; train without `--from`"
