"""A student learns from its teacher's outputs, and the teacher stays outside of the task."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional

from trainctl.tasks.distillation import Distillation

SMALL = ("model=mlp", "model.hidden_dims=[16]", "optimizer.lr=0.005")


class Teach(pl.Callback):
    """Gives the task its teacher when the fit begins; keeps a checkpoint as it is written at the end."""

    def __init__(self, distillation: Distillation) -> None:
        self.distillation = distillation
        self.checkpoint = b""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.distillation = self.distillation

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        content = io.BytesIO()
        torch.save(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), content)
        self.checkpoint = content.getvalue()


def agreement(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((one.eval()(x).argmax(1) == other.eval()(x).argmax(1)).float().mean())


def test_a_student_learns_from_the_teacher_alone(fit: Any) -> None:
    teacher = fit(*SMALL, "trainer.max_epochs=4").task.net
    untaught = fit(*SMALL, "seed=1", "trainer.limit_batches=1").task.net
    # weight 1: the labels have no say
    taught = fit(*SMALL, "seed=1", "trainer.max_epochs=8", callbacks=[Teach(Distillation(teacher, 2.0, 1.0))])
    x = taught.data.split("test").x
    assert agreement(taught.task.net, teacher, x) > 0.95 > agreement(untaught, teacher, x) + 0.1


def test_a_student_learns_numbers_from_the_teacher_alone(fit: Any) -> None:
    words = (*SMALL, "data.target=number")
    teacher = fit(*words, "trainer.max_epochs=4").task.net
    taught = fit(*words, "seed=1", "trainer.max_epochs=8", callbacks=[Teach(Distillation(teacher, 2.0, 1.0))])
    x = taught.data.split("test").x
    with torch.inference_mode():
        difference = (taught.task.net.eval()(x) - teacher.eval()(x)).square().mean()
        assert difference < 0.1 * teacher(x).var()


def test_the_teacher_is_no_part_of_the_task(fit: Any) -> None:
    plain = fit(*SMALL, "model.dropout=0.5")
    teacher = copy.deepcopy(plain.task.net)
    for parameter in teacher.parameters():
        parameter.requires_grad_(True)
    before = copy.deepcopy(teacher.state_dict())
    watch = Teach(Distillation(teacher))
    done = fit(*SMALL, "model.dropout=0.5", callbacks=[watch])
    assert list(done.task.state_dict()) == list(plain.task.state_dict())
    assert len(list(done.task.parameters())) == len(list(plain.task.parameters()))
    saved = torch.load(io.BytesIO(watch.checkpoint), weights_only=True)
    assert list(saved["state_dict"]) == list(plain.task.state_dict()) and "distillation" not in saved
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_reported_loss_is_the_tasks_own(fit: Any) -> None:
    words = (*SMALL, "trainer.limit_batches=1", "optimizer.lr=1e-9")
    plain = fit(*words)
    taught = fit(*words, callbacks=[Teach(Distillation(copy.deepcopy(plain.task.net), 2.0, 1.0))])
    figures = (done.trainer.callback_metrics["train/loss"] for done in (plain, taught))
    torch.testing.assert_close(*figures)


def test_the_blended_loss_of_classes_by_hand() -> None:
    taught, output = torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    teacher = nn.Linear(1, 3)
    nn.init.zeros_(teacher.weight)
    teacher.bias.data = taught[0]
    p, q = functional.softmax(taught / 4, 1), functional.softmax(output / 4, 1)
    expected = 0.7 * 5.0 + 0.3 * 16 * (p * (p / q).log()).sum()
    found = Distillation(teacher, 4.0, 0.3)(torch.zeros(1, 1), output, torch.tensor([0]), torch.tensor(5.0))
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None and teacher.bias.grad is None


def test_the_blended_loss_of_numbers_by_hand() -> None:
    output = torch.tensor([[1.0], [4.0]], requires_grad=True)
    found = Distillation(nn.Identity(), weight=0.25)(torch.tensor([[2.0], [2.0]]), output, output, torch.tensor(8.0))
    assert found.item() == pytest.approx(0.75 * 8 + 0.25 * 2.5)


def test_a_teacher_follows_the_precision_of_the_student() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    student, teacher = nn.Linear(3, 2).double(), nn.Linear(3, 2)
    found = Distillation(teacher)(x, student(x), x, torch.tensor(1.0, dtype=torch.float64))
    assert found.dtype == torch.float64 and found.isfinite()
