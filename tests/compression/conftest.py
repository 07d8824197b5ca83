"""Small trained nets and the context that a compressor is given, without a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainctl import build
from trainctl.compression import vnni
from trainctl.compression.base import Context
from trainctl.compression.onnx_net import OnnxNet, to_onnx
from trainctl.config.compose import compose, plain

DATA = {
    "mlp": ("data=synthetic", "data.rows=1200"),
    "resmlp": ("data=synthetic", "data.rows=1200"),
    "linear": ("data=synthetic", "data.rows=1200"),
    "cnn": ("data=digits", "model.channels=[16,32]", "model.hidden_dim=32"),
    "resnet": ("data=digits", "model.channels=[16,32]"),
    "lstm": ("data=synthetic_sequences", "data.rows=1000"),
    "transformer": ("data=synthetic_sequences", "data.rows=1000"),
}


@dataclass
class Bench:
    """A trained net, what a compressor may use, and the task and data behind it."""

    net: nn.Module
    context: Context
    task: Any
    data: Any
    config: dict[str, Any]
    made_by: tuple[str, ...]

    @property
    def exported(self) -> OnnxNet:
        """The float32 net as it was trained, in ONNX (made once a test process: an export takes seconds)."""
        return OnnxNet(_exported(*self.made_by))

    def train(self, net: nn.Module, epochs: int = 1, lr: float = 1e-3) -> nn.Module:
        """Plain training in place, as fine-tuning does it; returns the net in evaluation mode."""
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
        net.train()
        for _ in range(epochs):
            for x, y in self.context.batches():
                optimizer.zero_grad()
                self.context.loss(net(x), y).backward()
                optimizer.step()
        return net.eval()

    @property
    def notes(self) -> list[str]:
        """What was said to the context, but for what depends on this machine's CPU."""
        return [note for note in self.context.notes if note != vnni.NO_VNNI]

    def outputs(self, net: nn.Module, split: str = "val") -> Tensor:
        """The net's output for all rows of a split."""
        with torch.inference_mode():
            return net.eval()(self.task.inputs(self.data.split(split).x))


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """`bench("cnn")`: a copy of a net of that model, trained for some epochs (once a test process)."""

    def make(model: str, *words: str) -> Bench:
        return copy.deepcopy(_trained(model, *words))

    return make


@pytest.fixture
def exported() -> Callable[..., OnnxNet]:
    """`exported("cnn")`: as `bench("cnn").exported`."""
    return lambda model, *words: OnnxNet(_exported(model, *words))


@cache
def _exported(model: str, *words: str) -> bytes:
    b = _trained(model, *words)
    return to_onnx(b.net, b.context.example)


@cache
def _trained(model: str, *words: str) -> Bench:
    torch.set_num_threads(1)
    config = plain(compose("train", [f"model={model}", *DATA[model], "data.batch_size=64", *words]))
    data = build.data(config)
    data.setup()
    task = build.task(config, data.spec, data).eval()
    train, val = data.split("train"), data.split("val")

    def batches() -> list[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        return [(task.inputs(train.x[rows]), train.y[rows]) for rows in order.split(64)]

    def score(net: nn.Module) -> float:
        with torch.inference_mode():
            predicted = net.eval()(task.inputs(val.x)).argmax(1)
        return float((predicted == val.y).float().mean())

    inputs = task.inputs(train.x[:512])
    context = Context(data.spec, inputs[:2], inputs, batches, task.loss, score)
    made = Bench(task.net, context, task, data, config, (model, *words))
    made.train(task.net, epochs=6, lr=3e-3)
    return made
