"""What each training option does to the weights, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from trainctl.errors import UsageError

ONE_STEP = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0",
            "optimizer.lr=0.1", "trainer.limit_batches=1")
STEPS = (*ONE_STEP[:-1], "trainer.limit_batches=4")


class Watch(pl.Callback):
    """Calls `look(module)` after each trip of the loop."""

    def __init__(self, look: Any) -> None:
        self.look = look

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.look(pl_module)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([(one[name] - other[name]).square().sum() for name in one]).sum().sqrt())


def test_l1_moves_weights_by_the_sign_and_leaves_biases(fit):
    plain, with_l1 = fit(*ONE_STEP), fit(*ONE_STEP, "task.l1=0.05")
    for name, start in plain.before.items():
        sign = start.sign() if start.ndim > 1 else torch.zeros_like(start)
        torch.testing.assert_close(with_l1.after[name], plain.after[name] - 0.1 * 0.05 * sign)


def test_l1_makes_weights_small_and_stays_out_of_the_reported_loss(fit):
    plain, with_l1 = fit("trainer.max_epochs=3"), fit("trainer.max_epochs=3", "task.l1=0.01")
    assert with_l1.task.penalty() < 0.8 * plain.task.penalty()
    zero = fit(*ONE_STEP, "task.l1=100", "optimizer.lr=1e-9")
    torch.testing.assert_close(zero.trainer.callback_metrics["train/loss"],
                               fit(*ONE_STEP, "optimizer.lr=1e-9").trainer.callback_metrics["train/loss"])


def test_weight_decay_shrinks_matrices_but_no_bias_norm_or_embedding(fit):
    words = (*ONE_STEP, "model.norm=layer")
    plain, decayed = fit(*words), fit(*words, "optimizer.weight_decay=0.5")
    shrunk = {"weight": 1 - 0.1 * 0.5, "rest": 1.0}
    modules = dict(plain.task.net.named_modules())
    seen = set()
    for name, start in plain.before.items():
        dense = isinstance(modules[name.rpartition(".")[0]], nn.Linear) and name.endswith("weight")
        factor = shrunk["weight" if dense else "rest"]
        seen.add(factor)
        torch.testing.assert_close(decayed.after[name], plain.after[name] - (1 - factor) * start)
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["adamw", "adam", "muon"])
def test_weight_decay_of_every_optimizer_spares_biases(fit, name):
    words = (f"optimizer={name}", "trainer.limit_batches=1", "optimizer.lr=0.01")
    plain, decayed = fit(*words, "optimizer.weight_decay=0"), fit(*words, "optimizer.weight_decay=0.3")
    same = {key for key, value in plain.after.items() if torch.equal(value, decayed.after[key])}
    assert same == {key for key, value in plain.after.items() if value.ndim < 2 or "embed" in key}


def test_accumulated_gradients_equal_one_larger_batch(fit):
    small = fit(*STEPS[:-1], "trainer.limit_batches=8", "trainer.accumulate_grad_batches=4", chunk=3)
    large = fit(*STEPS[:-1], "trainer.limit_batches=2", "data.batch_size=128")
    assert (small.task.progress.step, large.task.progress.step) == (2, 2)
    for name, value in large.after.items():
        torch.testing.assert_close(small.after[name], value)


def test_a_last_incomplete_group_of_batches_is_a_step_too(fit):
    done = fit(*STEPS[:-1], "trainer.limit_batches=5", "trainer.accumulate_grad_batches=2")
    assert done.task.progress.step == 3


def test_clipping_bounds_the_step(fit):
    free, clipped = fit(*ONE_STEP), fit(*ONE_STEP, "trainer.gradient_clip_val=0.01")
    assert distance(clipped.before, clipped.after) == pytest.approx(0.1 * 0.01, rel=1e-4)
    assert distance(free.before, free.after) > 0.1 * 0.011
    unclipped = fit(*ONE_STEP, "trainer.gradient_clip_val=1000")
    assert distance(unclipped.after, free.after) == 0


def test_dropout_acts_in_training_only(fit):
    shares: dict[bool, list[float]] = {True: [], False: []}

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        added = float((output == 0).float().mean() - (inputs[0] == 0).float().mean())
        shares[module.training].append(added)

    class Hook(pl.Callback):
        def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
            layers = [m for m in pl_module.net.modules() if isinstance(m, nn.Dropout)]
            assert layers and all(layer.p == 0.4 for layer in layers)
            for layer in layers:
                layer.register_forward_hook(count)

    fit("model.dropout=0.4", "model.activation=silu", callbacks=(Hook(),))
    assert sum(shares[True]) / len(shares[True]) == pytest.approx(0.4, abs=0.02)
    assert set(shares[False]) == {0.0}


def test_average_of_the_weights_is_what_is_evaluated(fit):
    steps: list[dict[str, torch.Tensor]] = []
    evaluated: list[dict[str, torch.Tensor]] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            steps.append({k: p.detach().clone() for k, p in pl_module.net.named_parameters()})

        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            evaluated.append({k: p.detach().clone() for k, p in pl_module.net.named_parameters()})

    done = fit("ema=0.9", callbacks=(Look(),), chunk=1)
    average = done.before
    for n, weights in enumerate(steps, start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        average = {k: decay * value + (1 - decay) * weights[k] for k, value in average.items()}
    assert evaluated and len(steps) == 22
    for name, value in average.items():
        torch.testing.assert_close(evaluated[-1][name], value)
        torch.testing.assert_close(done.after[name], steps[-1][name])  # training goes on with the live weights
    assert distance(average, done.after) > 0.01


def test_bf16_mixed_computes_in_bfloat16_and_keeps_float32_weights(fit):
    kinds = set()

    class Hook(pl.Callback):
        def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
            for layer in (m for m in pl_module.net.modules() if isinstance(m, nn.Linear)):
                layer.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))

    done = fit("trainer.precision=bf16-mixed", "trainer.max_epochs=2", callbacks=(Hook(),))
    full = fit("trainer.max_epochs=2")
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in done.after.values()} == {torch.float32}
    loss, exact = (float(d.trainer.callback_metrics["val/loss"]) for d in (done, full))
    assert loss != exact and loss == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(("pattern", "frozen"), [
    ("*embed*", {"0.embed.weight"}), ("*.bias", {"1.bias", "3.bias", "5.bias"}), ("3", {"3.weight", "3.bias"}),
    ("3.*", {"3.weight", "3.bias"}), ("5.weight", {"5.weight"}),
])
def test_frozen_parameters_stay(fit, pattern, frozen):
    done = fit("trainer.limit_batches=3", f"freeze=['{pattern}']", "optimizer.weight_decay=0.5")
    assert {name for name, start in done.before.items() if torch.equal(start, done.after[name])} == frozen


def test_a_frozen_batch_norm_keeps_its_statistics(fit):
    words = ("model.norm=batch", "trainer.limit_batches=3")
    norms = [name for name, m in fit(*words).task.net.named_modules() if isinstance(m, nn.BatchNorm1d)]
    done = fit(*words, f"freeze=['{norms[0]}']")
    kept, moved = (done.task.net.get_submodule(name) for name in norms[:2])
    assert kept.running_mean.eq(0).all() and kept.running_var.eq(1).all() and kept.weight.eq(1).all()
    assert not moved.running_mean.eq(0).all()


def test_deterministic_algorithms_are_on_while_training(fit):
    seen = []
    watch = Watch(lambda module: seen.append(torch.are_deterministic_algorithms_enabled()))
    fit("trainer.deterministic=true", "trainer.limit_batches=1", callbacks=(watch,))
    fit("trainer.limit_batches=1", callbacks=(watch,))
    assert seen == [True, False]


def test_limit_batches_limits_every_split(fit):
    done = fit("trainer.limit_batches=3", "data.eval_batch_size=10")
    assert done.task.progress.step == 3
    assert [len(part) for part in (done.data.loader("val"), done.data.loader("test"))] == [3, 3]


def test_a_last_batch_of_one_row_does_not_stop_batch_norm(fit):
    done = fit("data.rows=1000", "data.batch_size=233", "model.norm=batch", "trainer.max_epochs=2")
    assert len(done.data.split("train")) == 3 * 233 + 1
    assert done.task.progress.step == 8  # the last one of each epoch changes nothing
    assert done.trainer.callback_metrics["train/loss"].isfinite()


def test_batches_of_one_row_are_too_small_for_batch_norm(fit):
    with pytest.raises(UsageError) as raised:
        fit("data.batch_size=1", "model.norm=batch")
    assert str(raised.value) == (
        "batch norm needs 2 rows or more in a training batch; set `data.batch_size=2` or more"
    )
