"""Trees and forests through the command line: an ordinary run, fitted once, pruned, exported; what is refused."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainctl import build
from trainctl.compression.onnx_net import OnnxNet
from trainctl.models.forest import Forest
from trainctl.run.run import Run
from trainctl.tasks.estimator import FitsEstimators
from trainctl.tuning import facts

CLASSES = ("data=tabular", "data.path=table.csv", "data.target=rich", "+data.columns.price=drop")
NUMBERS = ("data=tabular", "data.path=table.csv", "data.target=price", "+data.columns.rich=drop")
FOREST = ("train", *CLASSES, "model=forest", "model.num_trees=9", "data.batch_size=64", "trainer.threads=1")
QUICK = ("measure.calls=5", "measure.seconds=0.02", "measure.bootstrap=20")


@pytest.fixture(scope="module")
def forest(folder: Any) -> Run:
    """A forest of the target `rich`."""
    run: Run = folder.done(*FOREST)
    return run


def figures(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.metrics.items() if name.startswith("test/")}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


def equal(one: Run, two: Run) -> bool:
    a, b = weights(one), weights(two)
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_a_run_like_any_other(folder: Any, forest: Run) -> None:
    assert forest.record["epochs"] == 1 and forest.metrics["test/accuracy"] > 0.7
    (row,) = forest.metrics_log()
    assert row["step"] == 1 and "lr" not in row and row["train/loss"] < row["val/loss"]
    assert len(weights(forest)["roots"]) == 9
    again = folder.done("evaluate", forest.path, "evaluate.bootstrap=0")
    assert figures(again) == figures(forest)
    predicted = folder.done("predict", forest.path, "new.csv", "-o", "predictions.csv", "--force")
    assert predicted.record["rows"] == 90


def test_values_are_in_the_users_unit(folder: Any) -> None:
    run = folder.done("train", *NUMBERS, "model=tree", "model.min_samples_leaf=5")
    assert run.metrics["test/r2"] > 0.6
    assert figures(folder.done("evaluate", run.path, "evaluate.bootstrap=0")) == figures(run)


def test_the_same_seed_gives_the_same_trees_for_any_batch_size(folder: Any, forest: Run) -> None:
    assert equal(folder.done(*FOREST, "data.batch_size=17", "trainer.threads=2"), forest)
    assert not equal(folder.done(*FOREST, "seed=1"), forest)


@pytest.mark.parametrize("moment", ["before the fit", "in the fit"])
def test_a_stopped_run_is_resumed_to_the_same_trees(
    folder: Any, forest: Run, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    where: Any = FitsEstimators if moment == "before the fit" else Forest
    name = "training_step" if moment == "before the fit" else "fit"
    original: Callable[..., None] = getattr(where, name)

    def signalled(*given: Any, **named: Any) -> None:
        fits.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        original(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, signalled)
        code, _, err = folder(*FOREST)
        assert code == 143 and fits == [1], err
    code, _, err = folder("train", "--resume", "latest")
    assert code == 0, err
    resumed = folder.latest("train")
    assert equal(resumed, forest) and figures(resumed) == figures(forest)


def test_an_extended_run_is_not_fitted_again(folder: Any) -> None:
    run = folder.done(*FOREST)
    before = weights(run)
    code, _, err = folder("train", "--resume", run.path, "trainer.max_epochs=60")
    assert code == 0, err
    again = folder.latest("train")
    assert len(again.metrics_log()) == 1 and all(torch.equal(before[k], v) for k, v in weights(again).items())


def test_a_pruned_forest_is_smaller_and_evaluates_to_what_was_printed(folder: Any, forest: Run) -> None:
    pruned = folder.done("prune", forest.path, "compressor=trees", "compressor.amount=0.6", *QUICK)
    assert len(weights(pruned)["feature"]) < 0.5 * len(weights(forest)["feature"])
    again = folder.done("evaluate", pruned.path, "evaluate.bootstrap=0")
    assert {name: again.metrics[name] for name in figures(pruned)} == figures(pruned)
    twice = folder.done("prune", pruned.path, "compressor=trees", "compressor.alpha=0.01", *QUICK)
    assert len(weights(twice)["feature"]) < len(weights(pruned)["feature"])


def test_an_exported_forest_is_one_operator(folder: Any, forest: Run) -> None:
    folder.done("export", forest.path, "format=onnx", "-o", "forest.onnx")
    content = (folder.path / "forest.onnx").read_bytes()
    assert content.count(b"TreeEnsembleRegressor") == 1
    assert OnnxNet(content)(torch.zeros(2, 5)).shape == (2, 2)  # numbers come twice: as quantiles, too


REFUSED = {
    "ema=0.9": "`ema=0.9` is for nets that are trained step by step; a forest is fitted at once, so leave `ema` out",
    "task.l1=0.1": "`task.l1=0.1` is for nets that are trained step by step; a forest is fitted at once, so leave "
                   "`task.l1` out",
    "task.label_smoothing=0.1": "`task.label_smoothing=0.1` is for nets that are trained step by step; a forest is "
                                "fitted at once, so leave `task.label_smoothing` out",
    "optimizer.lr=auto": "`optimizer.lr=auto` is for nets that are trained step by step; an estimator has no rate",
    "model.num_trees=0": "`model.num_trees` must be a whole number ≥ 1, got 0",
    "model.max_features=3": "`model.max_features` must be > 0 and ≤ 1 or auto or sqrt or log2, got 3",
}  # fmt: skip


@pytest.mark.parametrize("word", REFUSED)
def test_what_an_estimator_has_no_use_for_is_refused(folder: Any, word: str) -> None:
    code, _, err = folder(*FOREST, word)
    assert (code, err.splitlines()[-1]) == (2, f"trainctl: error: {REFUSED[word]}")


def test_it_cannot_begin_from_the_weights_of_a_run(folder: Any, forest: Run) -> None:
    code, _, err = folder("train", "--from", forest.path)
    assert code == 2
    assert err.splitlines()[-1] == (
        f"trainctl: error: a forest is fitted at once and cannot begin from `{forest.name}`; leave out `--from`"
    )


@pytest.mark.parametrize(("verb", "method", "sentence"), [
    ("quantize", "int8_dynamic", "`compressor=int8_dynamic` is for nets, and the run's Forest is an estimator without "
     "weights to quantize; prune it with `trainctl prune RUN compressor=trees`"),
    ("prune", "magnitude", "`compressor=magnitude` is for nets, and the run's Forest is an estimator without weights "
     "to prune; prune it with `trainctl prune RUN compressor=trees`"),
])
def test_methods_for_nets_are_refused(folder: Any, forest: Run, verb: str, method: str, sentence: str) -> None:
    code, _, err = folder(verb, forest.path, f"compressor={method}")
    assert (code, err.splitlines()[-1]) == (2, f"trainctl: error: {sentence}")


def test_a_study_knows_that_it_makes_no_steps_and_cannot_be_stacked(folder: Any, forest: Run) -> None:
    with contextlib.chdir(folder.path):
        data = build.data(forest.config)
        data.setup()
        found = facts.measure(forest.config, data)
    assert found["not_stackable"] == "there is no stacked form of Forest" and not found["stacking_helps"]
    assert (found["step_s"], found["epoch_s"], found["run_bytes"]) == (None, None, None)
