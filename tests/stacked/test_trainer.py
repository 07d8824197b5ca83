"""A member of a stack reaches the weights that it reaches alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CASES = {
    "lr": (["optimizer.lr=0.01"], ["optimizer.lr=0.001"], ["optimizer.lr=0.05"]),
    "weight_decay": (["optimizer.weight_decay=0.3"], ["optimizer.weight_decay=0"]),
    "betas": (["optimizer.betas=[0.8,0.95]"], ["optimizer.betas=[0.9,0.999]", "optimizer.eps=1e-6"]),
    "adam": (["optimizer=adam", "optimizer.weight_decay=0.1"], ["optimizer=adam", "optimizer.lr=0.01"]),
    "sgd": (["optimizer=sgd"], ["optimizer=sgd", "optimizer.momentum=0.5"], ["optimizer=sgd", "optimizer.lr=0.2"]),
    "plain_sgd": tuple(["optimizer=sgd", "optimizer.nesterov=false", f"optimizer.momentum={m}"] for m in (0.5, 0, 0.9)),
    "dropout": (["model.dropout=0.1"], ["model.dropout=0.5"], ["model.dropout=0.3"]),
    "no_dropout": ([], ["model.dropout=0.5"], ["model.dropout=0", "optimizer.lr=0.01"]),
    "no_dropout_first": tuple(["model.hidden_dims=[16,8]", "model.norm=layer", f"model.dropout={p}"] for p in (0.4, 0)),
    "same_dropout": (["model.dropout=0.3"], ["model.dropout=0.3", "optimizer.lr=0.01"]),
    "dropout_seeds": (["model.dropout=0.1"], ["model.dropout=0.5", "seed=3", "data.seed=0"], ["model.dropout=0.5"]),
    "seed": (["seed=1", "data.seed=0"], ["seed=2", "data.seed=0"]),
    "split": (["seed=1"], ["seed=2"]),
    "label_smoothing": (["task.label_smoothing=0.2"], ["task.label_smoothing=0"]),
    "class_weights": (["task.class_weights=balanced", "task.label_smoothing=0.1"], ["task.class_weights=[1,3]"], []),
    "l1": (["task.l1=0.01"], ["task.l1=0"]),
    "clip": (["trainer.gradient_clip_val=0.1"], ["trainer.gradient_clip_val=null"]),
    "accumulate": tuple(["trainer.accumulate_grad_batches=4", f"task.l1={v}"] for v in (0.001, 0)),
    "ema": (["ema=0.9"], ["ema=null"], ["ema=0.5"]),
    "cosine": (["scheduler=cosine", "optimizer.lr=0.01"], ["scheduler=cosine", "scheduler.warmup=0.5"]),
    "one_cycle": (["scheduler=one_cycle"], ["scheduler=none"]),
    "step": (["scheduler=step", "scheduler.every=2"], ["scheduler=step", "scheduler.every=1"]),
    "plateau": (["scheduler=plateau", "scheduler.patience=0", "scheduler.min_delta=1"], ["optimizer.lr=0.01"]),
    "torch_scheduler": (["+scheduler.gamma=0.5", "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR",
                         "+scheduler._partial_=true"], []),
    "activation": (["model.activation=gelu", "model.hidden_dims=[16,24]"],
                   ["model.activation=gelu", "model.hidden_dims=[16,24]", "optimizer.lr=0.01"]),
    "batch_norm": (["model.norm=batch", "model.dropout=0.2"], ["model.norm=batch", "model.dropout=0.3"]),
    "batch_norm_last_row": tuple(["model.norm=batch", "data.rows=46", "data.batch_size=31", f"optimizer.lr={lr}"]
                                 for lr in (0.01, 0.02)),
    "layer_norm": (["model.norm=layer"], ["model.norm=layer", "optimizer.lr=0.01"]),
    "resmlp": (["model=resmlp"], ["model=resmlp", "model.dropout=0.3"]),
    "linear": (["model=linear"], ["model=linear", "optimizer.lr=0.1"]),
    "linear_numeric": tuple(["model=linear", "data.categorical=0", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "categorical": tuple(["data.numeric=0", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "number": (["data.target=number"], ["data.target=number", "optimizer.lr=0.01"]),
    "number_split": (["data.target=number", "seed=1", "task.loss=huber"],
                     ["data.target=number", "seed=2", "task.loss=huber"]),
    "classes": (["data.classes=7"], ["data.classes=7", "task.label_smoothing=0.1"]),
    "image": tuple(["data.kind=image", "data.image_shape=[1,8,8]", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "sequence": tuple(["data.kind=sequence", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "cnn": tuple(["model=cnn", "data.kind=image", "data.image_shape=[1,8,8]", "model.dropout=0", "model.channels=[4]",
                  "trainer.max_epochs=2", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "resnet": tuple(["model=resnet", "data.kind=image", "data.image_shape=[3,8,8]", "model.channels=[4]",
                     "trainer.max_epochs=2", f"seed={seed}"] for seed in (1, 2)),
    "transformer": tuple(["model=transformer", "model.dropout=0", "trainer.max_epochs=2", "model.dim=8",
                          f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "freeze": tuple(["freeze=['1.*']", "model.norm=batch", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "frozen_norm": tuple(["freeze=['2.*']", "model.norm=batch", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "limit": tuple(["trainer.limit_batches=3", "data.eval_batch_size=20", f"optimizer.lr={lr}"] for lr in (0.01, 0.02)),
    "drop_last": tuple(["data.drop_last=true", "trainer.reshuffle=false", f"optimizer.lr={lr}"] for lr in (0.1, 0.2)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_member_reaches_the_weights_it_reaches_alone(case: str, pair: Callable[..., Any]) -> None:
    both = pair(*CASES[case])
    assert both.furthest() < 1e-7
    for position, alone in enumerate(both.alone):
        assert both.train[position] == pytest.approx(alone.figures["train/loss"], rel=1e-7)
        assert both.val[position] == pytest.approx(alone.figures["val/loss"], rel=1e-5)


@pytest.mark.parametrize("words", [(), ("model.dropout=0.3", "model.norm=batch"), ("data.target=number",)],
                         ids=" ".join)
def test_in_float32_the_figures_agree_within_rounding(words: tuple[str, ...], pair: Callable[..., Any]) -> None:
    both = pair([*words, "optimizer.lr=0.01"], [*words, "optimizer.lr=0.002"], precision="32-true")
    for position, alone in enumerate(both.alone):
        assert both.train[position] == pytest.approx(alone.figures["train/loss"], rel=1e-3)
        assert both.val[position] == pytest.approx(alone.figures["val/loss"], rel=1e-2)
