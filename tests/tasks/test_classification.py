"""The loss of a classification: smoothing and class weights act in training, and in training only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.auto import auto
from trainctl.tasks.classification import Classification
from trainctl.tasks.regression import Regression
from trainctl.tasks.training import Training

SPEC = DataSpec("table", "class", classes=("a", "b", "c"), numeric=("x",))
NUMBER = DataSpec("table", "number", target_name="price", numeric=("x",), target_mean=5.0, target_std=2.0)
TRAINING = Training(optimizer=lambda net: torch.optim.SGD(net.parameters()))
OUTPUT = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.5, 3.0], [1.0, 0.0, 0.0]])
Y = torch.tensor([0, 1, 2, 1])


def task(**options):
    return Classification(nn.Linear(1, 3), SPEC, TRAINING, **options)


def test_smoothing_and_weights_are_those_of_cross_entropy():
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = task(label_smoothing=0.2, class_weights=[1, 2, 0.5]).train().loss(OUTPUT, Y)
    assert loss == F.cross_entropy(OUTPUT, Y, weight=weights, label_smoothing=0.2)


def test_they_leave_the_loss_of_evaluation_alone():
    assert task(label_smoothing=0.2, class_weights=[1, 2, 0.5]).eval().loss(OUTPUT, Y) == F.cross_entropy(OUTPUT, Y)


def test_balanced_weights_are_inverse_to_the_frequency():
    weights = task(class_weights="balanced", class_counts=[60, 30, 10]).class_weights
    torch.testing.assert_close(weights, torch.tensor([100 / 180, 100 / 90, 100 / 30]))
    torch.testing.assert_close((weights * torch.tensor([60.0, 30.0, 10.0])).sum(), torch.tensor(100.0))


def test_mixed_targets_take_weights_and_smoothing_too():
    soft = F.one_hot(Y, 3) * 0.7 + 0.1
    loss = task(label_smoothing=0.1, class_weights=[1, 2, 3]).train().loss(OUTPUT, soft)
    assert loss.isfinite() and loss != task().train().loss(OUTPUT, soft)


@pytest.mark.parametrize(("given", "counts", "message"), [
    ([1, 2], None, "`task.class_weights` must be null, balanced or 3 numbers, got [1, 2]"),
    ("balanced", None, "`task.class_weights=balanced` needs data that counts its classes; give a list instead"),
    ("even", [1, 1, 1], "`task.class_weights` must be null, balanced or 3 numbers, got 'even'"),
])
def test_other_weights_are_refused(given, counts, message):
    with pytest.raises(UsageError) as raised:
        task(class_weights=given, class_counts=counts)
    assert str(raised.value) == message


def test_the_target_chooses_the_task():
    assert isinstance(auto(nn.Linear(1, 3), SPEC, TRAINING), Classification)
    assert isinstance(auto(nn.Linear(1, 1), NUMBER, TRAINING), Regression)


@pytest.mark.parametrize(("spec", "options", "message"), [
    (SPEC, {"loss": "mae"}, "`task.loss=mae` is for a target that is a number; `target` is a class"),
    (NUMBER, {"label_smoothing": 0.1}, "`task.label_smoothing` is for classes; the target `price` is a number"),
    (NUMBER, {"class_weights": [1]}, "`task.class_weights` is for classes; the target `price` is a number"),
    (NUMBER, {"loss": "mle"}, "`task.loss` must be one of mse, mae, huber for a number, got 'mle'"),
])
def test_options_of_the_other_task_are_refused(spec, options, message):
    with pytest.raises(UsageError) as raised:
        auto(nn.Linear(1, spec.num_outputs), spec, TRAINING, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(("loss", "by_hand"), [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.huber_loss)])
def test_a_number_is_learned_on_the_standardised_scale(loss, by_hand):
    made = Regression(nn.Linear(1, 1), NUMBER, TRAINING, loss)
    output, y = torch.tensor([[0.5], [-2.0]]), torch.tensor([7.0, 4.0])
    assert made.loss(output, y) == by_hand(output.squeeze(-1), (y - 5.0) / 2.0)
    assert made.predict_outputs(output).tolist() == [6.0, 1.0]
