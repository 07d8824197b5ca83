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

from trainctl.tasks import distillation
from trainctl.tasks.distillation import Distillation, Memory

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


class Counting(nn.Linear):
    """Counts the rows that it is asked for."""

    asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        return super().forward(x)


def test_a_row_that_comes_again_is_not_computed_again() -> None:
    net, memory = Counting(3, 2), Memory()
    x = torch.randn(10, 3)
    with torch.no_grad():
        first = memory.outputs(net, x[:6])
        torch.testing.assert_close(first, net(x[:6]))
        net.asked = 0
        mixed = memory.outputs(net, x[[8, 2, 9, 2, 8]])
        assert net.asked <= 3, "8 and 9 are new"
        torch.testing.assert_close(mixed, net(x[[8, 2, 9, 2, 8]]))
        assert torch.equal(mixed[1], first[2])
        net.asked = 0
        assert torch.equal(memory.outputs(net, x[[9, 0]]), torch.stack([mixed[2], first[0]])) and net.asked == 0


@pytest.mark.parametrize("x", [
    torch.zeros(3, 4, dtype=torch.bfloat16), torch.zeros(3, 2, 5, dtype=torch.uint8).transpose(1, 2), torch.ones(3, 1),
])  # fmt: skip
def test_rows_are_told_apart_whatever_their_type(x: torch.Tensor) -> None:
    x = x.clone()
    x[(1, *[-1] * (x.ndim - 1))] += 1
    one, other, third = distillation.row_keys(x)
    assert one == third != other


def test_a_full_memory_goes_on_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "MEMORY_BYTES", 2 * (8 + distillation.ROW_BYTES))
    net, memory, x = Counting(3, 2), Memory(), torch.randn(4, 3)
    with torch.no_grad():
        memory.outputs(net, x[:1])
        memory.outputs(net, x[1:])
        net.asked = 0
        torch.testing.assert_close(memory.outputs(net, x), net(x))
    assert net.asked == 3 + 4


def test_with_and_without_memory_a_student_learns_the_same(fit: Any) -> None:
    teacher = fit(*SMALL, "trainer.max_epochs=2").task.net
    words = (*SMALL, "seed=1", "trainer.max_epochs=3")
    nets = [
        fit(*words, callbacks=[Teach(Distillation(copy.deepcopy(teacher), memory=memory))]).task.net
        for memory in (None, Memory())
    ]
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
