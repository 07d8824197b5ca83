"""One setting of a compressor carried out on the parent's net: compressed and fine-tuned in turns, then finished."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from torch import nn

from trainctl import build
from trainctl.compression.base import Compressor
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.base import Data
from trainctl.errors import UsageError
from trainctl.tasks.base import Task
from trainctl.tasks.distillation import Distillation, Memory
from trainctl.tasks.training import num_batches
from trainctl.verbs import exported, restore
from trainctl.verbs.job import Job
from trainctl.verbs.once import Once
from trainctl.verbs.parent import Parent, refuse_estimator
from trainctl.verbs.train import Fitting

Node = dict[str, Any]

_teachers: Once[Memory] = Once(held=1)


@dataclass
class Attempt:
    """One setting of the compressor, carried out: `net` is what would ship, `value` its objective on val."""

    settings: Node
    compressor: Compressor
    net: nn.Module
    value: float
    notes: list[str]
    took_s: float


def made(parent: Parent, settings: Node) -> Compressor:
    """The compressor of the config with `settings` in place of its own; UsageError when it cannot do this net."""
    job, node = parent.job, {**parent.config["compressor"], **settings}
    compressor = build.component(node)
    if not isinstance(compressor, Compressor):
        raise UsageError(f"`{node.get('_target_')}` is no compressor; see `trainctl list compressor`")
    if compressor.verb != job.run.verb:
        raise UsageError(f"`{_name(node)}` is a compressor of `trainctl {compressor.verb}`; use that verb")
    if not compressor.estimators:
        refuse_estimator(parent.net, f"compressor={_name(node)}", f" to {compressor.verb}")
    if job.run.config.get("distill") and not compressor.trains:
        raise UsageError(f"`distill=true` is for fine-tuning, and `compressor={_name(node)}` makes none; leave it out")
    refusal = compressor.refusal(parent.net, parent.task.spec)
    if refusal is not None:
        raise UsageError(refusal)
    return compressor


def attempt(parent: Parent, settings: Node, trained: bool = True) -> Attempt:
    """Carry out one setting of the compressor; `trained` False leaves the fine-tuning out."""
    started, earlier = time.perf_counter(), parent.earlier_s
    compressor = made(parent, settings)
    trains = trained and compressor.trains and bool(parent.config.get("finetune", True))
    context = parent.context(_steps(parent, compressor) if trains else 0)
    if trains and not compressor.masks and parent.masked:
        context.note("the zeros of the run that is compressed are not held: its weights are trained on")
    net = copy.deepcopy(parent.net)
    for turn in range(compressor.rounds):
        net = compressor.compress(net, context, turn)
        if trains:
            net = fine_tuned(parent, net, compressor, last=turn == compressor.rounds - 1)
    net = compressor.finish(net.eval(), context).eval()
    value, took = parent.value(net), time.perf_counter() - started + parent.earlier_s - earlier
    return Attempt(settings, compressor, net, value, context.notes, took)


def fine_tuned(parent: Parent, net: nn.Module, compressor: Compressor, last: bool) -> nn.Module:
    """The net after a share of the run's training; after the last round with the weights of its best epoch.

    The best by the objective, which the budget is about, unless `train.monitor` names another metric; the later one of
    two that differ by less than two rows of val, since it has recovered for longer. A round before the last goes to its
    end and keeps its last weights: what it is worth shows after the next one.
    """
    run, source, data = parent.job.run, parent.job.source, parent.data
    assert source is not None
    ours = parent.rounds.next(net)
    if ours.load(net):
        parent.earlier_s += ours.seconds
        return net
    config = _training(parent, compressor)
    if not last:
        config["callbacks"] = {}
    job = Job(run, source, resume=ours.begun, quiet=parent.job.quiet, trains=config)
    if not ours.begun:
        ours.begin()
    task = build.task(config, parent.task.spec, data, fit=True)
    assert isinstance(task, Task)
    task.net = net.train()  # Lightning keeps the mode that it finds
    fitting = Fitting.make(job, task, data)
    if config.get("distill"):
        teacher = _teacher(parent, fitting.trainer)
        memory = _teachers.of(source, Memory, config["trainer"].get("precision")) if task.augment is None else None
        task.distillation = Distillation(teacher, memory=memory)
    if fitting.monitor == f"val/{parent.objective.name}":
        fitting.checkpoint.tolerance = parent.resolution
    fitting.fit(job, task, data)
    if last:
        restore.load_best(task, run)
    parent.job.timing |= {key: parent.job.timing.get(key, 0.0) + value for key, value in job.timing.items()}
    if ours.begun:
        parent.earlier_s += max(0.0, fitting.record.seconds - job.timing["fit_s"])
    net = task.cpu().net
    ours.end(net, fitting.record.seconds)
    return net


def _teacher(parent: Parent, trainer: pl.Trainer) -> nn.Module:
    """The parent's net; in ONNX Runtime where a float32 net is trained on the CPU: that is about twice as fast."""
    source = parent.job.source
    assert source is not None
    if trainer.strategy.root_device.type == "cpu" and trainer.precision == "32-true":
        content = exported.as_onnx(source, parent.net, parent.calibration[:2])
        if content is not None:
            return OnnxNet(content)
    return copy.deepcopy(parent.net)


def _training(parent: Parent, compressor: Compressor) -> Node:
    """The run's own config of training, for one round."""
    epochs = _epochs(parent, compressor.rounds)
    config = {**parent.config, "trainer": {**parent.config["trainer"], "max_epochs": epochs}}
    if config["train"].get("monitor") in (None, "auto"):
        config["train"] = {**config["train"], "monitor": f"val/{parent.objective.name}", "mode": "auto"}
    lr = config["optimizer"].get("lr")
    if isinstance(lr, int | float) and "optimizer.lr" not in parent.given:
        config["optimizer"] = {**config["optimizer"], "lr": compressor.lr_scale * lr}
    return config


def _epochs(parent: Parent, rounds: int) -> int:
    """Epochs of one round: an equal share of the run's."""
    return max(1, -(-int(parent.config["trainer"]["max_epochs"]) // rounds))


def _steps(parent: Parent, compressor: Compressor) -> int:
    """Optimizer steps of one round of fine-tuning."""
    data, every = parent.data, int(parent.config["trainer"].get("accumulate_grad_batches", 1))
    loader = data.loader("train", train=True) if isinstance(data, Data) else data.train_dataloader()
    return -(-num_batches(loader) // every) * _epochs(parent, compressor.rounds)


def _name(node: Node) -> str:
    """What one types for a compressor: the name of its module."""
    return str(node.get("_target_", "")).split(".")[-2]
