"""The learning rate curves, their resume, and when each wants its step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from trainctl import schedulers
from trainctl.errors import UsageError
from trainctl.schedulers import Schedule

CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "scheduler").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS if path.stem != "none"]


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def build(name: str, on: torch.optim.Optimizer, total_steps: int = 100, **changes: Any) -> Schedule:
    path = next(path for path in CONFIGS if path.stem == name)
    given = {**yaml.safe_load(path.read_text(encoding="utf-8")), **changes}
    assert given.pop("_partial_") is True
    factory: Callable[..., Schedule] = getattr(schedulers, given.pop("_target_").removeprefix("trainctl.schedulers."))
    return factory(on, total_steps=total_steps, steps_per_epoch=10, **given)


def curve(name: str, steps: int, **changes: Any) -> list[float]:
    on = optimizer()
    schedule = build(name, on, **changes)
    lrs = []
    for _ in range(steps):
        lrs.append(on.param_groups[0]["lr"])
        on.step()
        schedule.scheduler.step()
    return lrs


def test_cosine_warms_up_linearly_then_falls_to_its_end() -> None:
    lrs = curve("cosine", 101, warmup=0.04, final=0.1)
    assert lrs[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert lrs[52] == pytest.approx(0.55)
    assert lrs[100] == pytest.approx(0.1)
    assert lrs[4:] == sorted(lrs[4:], reverse=True)


def test_warmup_in_steps_and_none() -> None:
    assert curve("cosine", 4, warmup=3) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert curve("cosine", 1, warmup=0)[0] == 1.0


def test_cosine_holds_its_end_beyond_the_planned_steps() -> None:
    assert curve("cosine", 130, final=0.1)[101:] == pytest.approx([0.1] * 29)


def test_one_cycle_rises_and_falls() -> None:
    lrs = curve("one_cycle", 120)
    assert lrs[0] == pytest.approx(0.04)
    assert max(lrs) == lrs[30] == 1.0
    assert lrs[99:] == pytest.approx([4e-6] * 21)


def test_one_cycle_is_torchs_curve() -> None:
    on = optimizer()
    theirs = torch.optim.lr_scheduler.OneCycleLR(on, 1.0, total_steps=100, pct_start=0.31, cycle_momentum=False)
    expected = []
    for step in range(100):
        expected.append(on.param_groups[0]["lr"])
        on.step()
        if step < 99:
            theirs.step()
    assert curve("one_cycle", 100) == pytest.approx(expected, rel=1e-6)


def test_step_falls_every_few_epochs() -> None:
    assert curve("step", 5, every=2, gamma=0.5) == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_plateau_waits_for_its_patience() -> None:
    on = optimizer()
    schedule = build("plateau", on, patience=1, factor=0.5)
    lrs = []
    for value in (-0.8, -0.9, -0.9, -0.9, -0.95):
        schedule.scheduler.step(value)
        lrs.append(on.param_groups[0]["lr"])
    assert lrs == [1.0, 1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("name", NAMES)
def test_each_says_when_it_steps(name: str) -> None:
    schedule = build(name, optimizer())
    expected = {"cosine": "step", "one_cycle": "step", "step": "epoch", "plateau": "epoch"}
    assert schedule.interval == expected[name]
    assert schedule.metric is (name == "plateau")


@pytest.mark.parametrize("name", NAMES)
def test_resume_continues_the_same_curve(name: str, tmp_path: Path) -> None:
    def run(on: torch.optim.Optimizer, schedule: Schedule, steps: range) -> list[float]:
        lrs = []
        for step in steps:
            on.step()
            schedule.scheduler.step(*([1.0 / (step // 8 + 1)] if schedule.metric else []))
            lrs.append(on.param_groups[0]["lr"])
        return lrs

    on = optimizer()
    whole = run(on, build(name, on), range(100))

    first = optimizer()
    schedule = build(name, first)
    run(first, schedule, range(37))
    torch.save({"o": first.state_dict(), "s": schedule.scheduler.state_dict()}, tmp_path / "state.pt")

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = optimizer()
    resumed = build(name, second)
    second.load_state_dict(saved["o"])
    resumed.scheduler.load_state_dict(saved["s"])
    assert run(second, resumed, range(37, 100)) == whole[37:]


def test_an_extended_run_follows_the_longer_curve() -> None:
    on = optimizer()
    short = build("cosine", on, total_steps=50)
    for _ in range(50):
        on.step()
        short.scheduler.step()
    longer = build("cosine", on, total_steps=100)
    longer.scheduler.load_state_dict(short.scheduler.state_dict())
    longer.scheduler.step()
    assert on.param_groups[0]["lr"] == pytest.approx(curve("cosine", 52)[51])


def test_a_bare_torch_scheduler_steps_once_an_epoch() -> None:
    on = optimizer()
    exponential, plateau = ExponentialLR(on, 0.9), ReduceLROnPlateau(on)
    assert schedulers.as_schedule(exponential) == Schedule(exponential, "epoch", metric=False)
    assert schedulers.as_schedule(plateau) == Schedule(plateau, "epoch", metric=True)
    ours = build("cosine", on)
    assert schedulers.as_schedule(ours) is ours


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "cosine",
            {"warmup": -1},
            "scheduler.warmup=-1 must be 0 or more: a share of all steps (0.05) or a number of steps (100)",
        ),
        (
            "one_cycle",
            {"total_steps": 0},
            "scheduler=one_cycle must know the run's length; set trainer.max_epochs, e.g. to 50",
        ),
        ("step", {"every": 0}, "scheduler.every=0 must be 1 or more epochs, e.g. scheduler.every=10"),
        ("plateau", {"factor": 1}, "scheduler.factor=1 must be above 0 and below 1, e.g. scheduler.factor=0.3"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        build(name, optimizer(), **changes)
    assert str(raised.value) == sentence
