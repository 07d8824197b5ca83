"""Members trained as one stack beside the same members trained alone, both in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainctl import build, launch
from trainctl.config.compose import compose, plain
from trainctl.stacked.trainer import Member, StackedTrainer
from trainctl.verbs.train import monitored

QUICK = ("data=synthetic", "data.rows=450", "data.batch_size=32", "trainer.accelerator=cpu", "trainer.max_epochs=5",
         "model.hidden_dims=[16]")
CPU = torch.device("cpu")


@dataclass
class Alone:
    """A member trained by Lightning: its last weights and what the last validation said."""

    state: dict[str, Tensor]
    figures: dict[str, float]


@dataclass
class Pair:
    """The stack, and each of its members trained alone."""

    stack: StackedTrainer
    alone: list[Alone]
    train: list[float]
    val: list[float]

    def furthest(self) -> float:
        """The largest relative difference between a stacked and a lone tensor: |a - b| / |b| of whole tensors."""
        worst = 0.0
        for position, alone in enumerate(self.alone):
            weights = self.stack.weights(position, averaged=False)
            assert list(weights) == list(alone.state)
            for name, value in alone.state.items():
                assert weights[name].shape == value.shape and weights[name].dtype == value.dtype
                size = float(value.double().norm()) or 1.0
                worst = max(worst, float((weights[name].double() - value.double()).norm()) / size)
        return worst


def config_of(words: Sequence[str]) -> dict[str, Any]:
    """The config of `trainctl train` with these words; words of the MLP are left out for other models."""
    other = any(w.startswith("model=") and w != "model=mlp" for w in words)
    return plain(compose("train", [w for w in QUICK if not (other and w.startswith("model."))] + list(words)))


def member(config: dict[str, Any], data: Any = None, double: bool = True) -> Member:
    """A member as `trainctl train` would build it."""
    if data is None:
        data = build.data(config)
        data.setup()
    data.seed = config["seed"]
    task: Any = build.task(config, data.spec, data, fit=True)
    monitored(config, task)
    return Member(task.double() if double else task, data, config["seed"])


def train_alone(config: dict[str, Any], folder: Path, precision: str = "64-true") -> Alone:
    """What Lightning makes of a config."""
    made = member(config, double=False)
    made.data.chunked, made.data.chunk = True, 4
    config = {**config, "trainer": {**config["trainer"], "precision": precision}}
    with warnings.catch_warnings():
        launch.quieten()
        trainer = build.trainer(config, folder)
        trainer.fit(made.task, datamodule=made.data)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Alone({k: v.detach().clone() for k, v in made.task.net.state_dict().items()}, figures)


def train_stacked(members: Sequence[Member], epochs: int) -> tuple[StackedTrainer, list[float], list[float]]:
    """All epochs of a stack, its last training losses and validation losses."""
    stack = StackedTrainer(members, CPU, epochs)
    train: list[float] = []
    val: list[float] = []
    for _ in range(epochs):
        train = stack.run_epoch()
        val = stack.evaluate()[2]
        stack.end_epoch(val)
    return stack, train, val


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    """`pair([words of one member], [words of the next], ...)` trains all of them both ways."""

    def run(*trials: Sequence[str], precision: str = "64-true") -> Pair:
        configs = [config_of(words) for words in trials]
        double = precision == "64-true"
        members = [member(config, double=double) for config in configs]
        if len({(c["seed"], str(c["data"])) for c in configs}) == 1:
            members = [Member(m.task, members[0].data, m.seed) for m in members]
        stack, train, val = train_stacked(members, configs[0]["trainer"]["max_epochs"])
        return Pair(stack, [train_alone(c, tmp_path, precision) for c in configs], train, val)

    return run
