"""Which trials go into one stack, from their configs alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trainctl.config.compose import compose, plain
from trainctl.tuning import groups


def content(*words: str) -> dict[str, Any]:
    """The config of `trainctl train data=synthetic WORDS...`."""
    return plain(compose("train", ["data=synthetic", *words]))


@pytest.mark.parametrize("words", [
    ["optimizer.lr=0.1"], ["optimizer.weight_decay=0"], ["optimizer.betas=[0.8,0.9]"], ["optimizer.eps=1e-6"],
    ["model.dropout=0.5"], ["task.label_smoothing=0.1"], ["task.l1=0.1"], ["task.class_weights=balanced"], ["seed=7"],
    ["data.seed=7"], ["trainer.gradient_clip_val=1"], ["ema=0.9"], ["scheduler=cosine"],
    ["callbacks.early_stopping.patience=2"], ["callbacks=none"],
], ids=" ".join)  # fmt: skip
def test_values_that_change_no_shape_are_stacked(words: list[str]) -> None:
    pair = [content(), content(*words)]
    assert groups.signature(pair[0]) == groups.signature(pair[1])
    assert groups.groups(pair, 32) == [[0, 1]]


@pytest.mark.parametrize("words", [
    ["model.hidden_dims=[64]"], ["model=resmlp"], ["optimizer=sgd"], ["data.batch_size=64"], ["data.rows=500"],
    ["trainer.max_epochs=3"], ["trainer.precision=64-true"], ["data.split.val=0.2"], ["train.monitor=val/accuracy"],
    ["task=classification"], ["optimizer.fused=false"], ["trainer.accumulate_grad_batches=2"],
], ids=" ".join)  # fmt: skip
def test_other_values_are_not(words: list[str]) -> None:
    pair = [content(), content(*words)]
    assert groups.signature(pair[0]) != groups.signature(pair[1])
    assert groups.groups(pair, 32) == [[0], [1]]


@pytest.mark.parametrize(("words", "reason"), [
    (["optimizer=muon"], "optimizer=muon cannot be stacked"),
    (["optimizer._target_=torch.optim.Adagrad"], "`torch.optim.Adagrad` cannot be stacked"),
    (["model._target_=my_pkg.Net"], "`my_pkg.Net` cannot be stacked"),
    (["task._target_=my_pkg.Task"], "`my_pkg.Task` cannot be stacked"),
    (["data._target_=my_pkg.Data"], "`my_pkg.Data` cannot be stacked"),
    (["model=transformer"], "the dropout of model=transformer cannot be stacked"),
    (["compile=true"], "compile=true cannot be stacked"),
    (["train.folds=5"], "train.folds=5 cannot be stacked"),
    (["train.seeds=3"], "train.seeds=3 cannot be stacked"),
    (["optimizer.lr=auto"], "optimizer.lr=auto cannot be stacked"),
    (["trainer.devices=2"], "trainer.devices=2 cannot be stacked"),
    (["trainer.precision=bf16-mixed"], "trainer.precision=bf16-mixed cannot be stacked"),
    (["trainer.max_time=10m"], "trainer.max_time=10m cannot be stacked"),
    (["trainer.max_epochs=-1"], "trainer.max_epochs=-1 cannot be stacked"),
    (["trainer.profiler=simple"], "trainer.profiler=simple cannot be stacked"),
    (["trainer.deterministic=true"], "trainer.deterministic=true cannot be stacked"),
    (["data.augment.flip=true"], "data.augment cannot be stacked"),
    (["logger=csv"], "a logger cannot be stacked"),
    (["+callbacks.mine._target_=my_pkg.Callback"], "callbacks.mine cannot be stacked"),
], ids=str)  # fmt: skip
def test_what_cannot_be_stacked_says_why_and_runs_alone(words: list[str], reason: str) -> None:
    config = content(*words)
    assert groups.why_not(config) == reason
    assert groups.groups([config, content(), config], 32) == [[0], [1], [2]]


def test_what_is_shipped_is_stackable() -> None:
    for model in ("mlp", "resmlp", "linear"):
        assert groups.why_not(content(f"model={model}")) is None
    assert groups.why_not(content("model=transformer", "model.dropout=0")) is None


def test_a_large_group_is_divided_evenly() -> None:
    trials = [content(f"seed={seed}") for seed in range(7)]
    assert groups.groups(trials, 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert groups.groups(trials, 1) == [[k] for k in range(7)]


def test_groups_keep_the_order_of_their_first_trial() -> None:
    trials = [content(f"model.hidden_dims=[{width}]", f"seed={seed}") for seed in (1, 2) for width in (8, 4)]
    assert groups.groups(trials, 32) == [[0, 2], [1, 3]]


def test_the_remark_counts_trials_and_names_the_usual_reason() -> None:
    muon = content("optimizer=muon")
    assert groups.remark([content(), content()]) is None
    assert groups.remark([muon, content(), content("compile=true"), muon]) == (
        "vectorized: 3 of 4 trials run on the pool: optimizer=muon cannot be stacked"
    )
    assert groups.remark([muon]) == "vectorized: all trials run on the pool: optimizer=muon cannot be stacked"


def test_grouping_leaves_torch_alone() -> None:
    script = "import sys, trainctl.tuning.groups; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
