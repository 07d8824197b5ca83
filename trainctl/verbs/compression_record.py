"""What prune and quantize leave behind: both nets measured on the same rows and machine, and compression.json.

The child is read back from its own files, as `evaluate` reads it: what is printed is what ships.
"""

from __future__ import annotations

import copy
import logging
import time
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor, nn

from trainctl import build, metrics
from trainctl.budgets import Budget
from trainctl.compression import latency, measure, sparse
from trainctl.compression.footprint import footprint
from trainctl.compression.measure import Figures, Score
from trainctl.metrics.paired import agreement, measured_as, paired_difference, with_interval
from trainctl.run import files
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs import exported, findings, inference, kept_data, restore
from trainctl.verbs.budget_search import Found
from trainctl.verbs.entrants import repeated
from trainctl.verbs.job import Outcome
from trainctl.verbs.once import Once
from trainctl.verbs.parent import Parent

log = logging.getLogger("trainctl")

SPLITS = ("val", "test")
BATCHES = (1, 64)
RECORD = "compression.json"

_outputs: Once[tuple[Tensor, Tensor]] = Once()
_counted: Once[Figures] = Once()


def write(parent: Parent, found: Found) -> Outcome:
    """Measure parent and child, write compression.json, and say how the run ends."""
    started = time.perf_counter()
    job, run, source = parent.job, parent.job.run, parent.job.source
    assert source is not None
    config = as_evaluated(parent.config | {"model": run.config["model"]})
    child = as_shipped(parent, config, run)
    trainer = build.trainer(config, run.path)
    notes = list(found.attempt.notes)
    before, after = figures(parent, child.net, source, notes)
    outputs, losses = {}, {}
    splits = SPLITS if config["measure"].get("test", True) else SPLITS[:1]
    for split in splits:
        outputs[split] = outputs_of_both(parent, child, trainer, split)
        losses[f"{split}/loss"] = float(trainer.callback_metrics["test/loss"])
    scored = {split: scores(parent, *outputs[split], before, after, split) for split in splits}
    if "test" in splits:
        source.count_test_look(by=run.name)
    content = record(parent, found, before, after, notes)
    files.write_json(run.path / RECORD, content)
    shown = splits[-1]
    kept = findings.keep(run.path, scored[shown], outputs[shown][1], outputs[shown][2], child.spec)
    job.clock("measure", started)
    for sentence in notes:
        log.debug("%s", sentence)
    named: dict[str, float | None] = {**losses}
    named |= {f"{split}/{name}": value for split in splits for name, value in scored[split].metrics.items()}
    intervals = {f"{split}/{name}": span for split in splits for name, span in scored[split].intervals.items()}
    artifact = restore.file_of(child.net)
    fields = {"gate": content["gate"], "monitor": f"val/{parent.objective.name}", "method": content["method"]}
    return Outcome(named, intervals, {"weights": artifact, "compression": RECORD, **kept}, fields)


def as_evaluated(config: dict[str, Any]) -> dict[str, Any]:
    """The config that `evaluate` would use: full precision, every row, on one device."""
    plain = {"precision": "32-true", "limit_batches": None, "devices": 1, "strategy": "auto", "deterministic": False}
    return {**config, "trainer": {**config["trainer"], **plain, "profiler": None}}


def as_shipped(parent: Parent, config: dict[str, Any], run: Run) -> Task:
    """The task that a run's own files give."""
    task = build.task(config, parent.task.spec, parent.data)
    assert isinstance(task, Task)
    restore.load_weights(task, run)
    return task.eval()


def figures(parent: Parent, child: nn.Module, source: Run, notes: list[str]) -> tuple[Figures, Figures]:
    """Size and speed of both nets, the speeds in turns."""
    run, threads = parent.job.run, int(parent.config["trainer"]["threads"])
    example, options = parent.calibration[:2], parent.config["measure"]
    rows = {batch: repeated(parent.calibration, batch) for batch in BATCHES}
    found = []
    for net, owner in ((parent.net, source), (child, run)):
        config = parent.config | {"model": run.config["model"] if net is child else parent.config["model"]}
        counts = partial(_counts, parent, net, config, owner, rows[BATCHES[-1]])
        found.append(copy.copy(_counted.of(owner, counts)))
    timed: dict[str, latency.Subject] = {}
    for name, net, owner in (("before", parent.net, source), ("after", child, run)):
        onnx = exported.as_onnx(owner, net, example, notes)
        for engine, subject in latency.engines(net, onnx, threads).items():
            timed[f"{name} {engine}"] = subject
    times = latency.latency(timed, rows, int(options["calls"]), threads, float(options["seconds"]))
    read = latency.reading(times)
    if read == "cpu_ms":
        notes.append("the machine was busy, so times of calls are the processor's, not the clock's")
    for name, one in zip(("before", "after"), found, strict=True):
        one["latency"] = {
            subject.partition(" ")[2]: {str(batch): part[read] for batch, part in by_batch.items()}
            for subject, by_batch in times.items()
            if subject.startswith(name)
        }
    return found[0], found[1]


def _counts(parent: Parent, net: nn.Module, config: dict[str, Any], owner: Run, x: Tensor) -> Figures:
    """Size, memory and load time of one net."""
    artifact = owner.path / restore.file_of(net)
    one = measure.static(net, x, [artifact], float_net=_float_net(parent, net))
    return cast(Figures, {**one, **footprint(partial(_loaded, parent, config, owner), x)})


def _loaded(parent: Parent, config: dict[str, Any], owner: Run) -> nn.Module:
    return as_shipped(parent, config, owner).net


def _float_net(parent: Parent, net: nn.Module) -> nn.Module | None:
    """Whose multiply-adds a quantized net has: its parent's, since only numbers are stored in another way."""
    return parent.net if parent.job.run.verb == "quantize" else None


def outputs_of_both(parent: Parent, child: Task, trainer: pl.Trainer, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """What parent and child predict for a split, and what is true."""
    data, keeps = parent.data, getattr(parent.data, "limit_batches", None)
    source = parent.job.source
    assert source is not None
    if hasattr(data, "limit_batches"):
        data.limit_batches = None
    rows = kept_data.key(parent.config)
    before, y = _outputs.of(source, lambda: inference.outputs(trainer, parent.task, data, split), rows, split)
    after, _ = inference.outputs(trainer, child, data, split)
    if hasattr(data, "limit_batches"):
        data.limit_batches = keeps
    return before, after, y


def scores(
    parent: Parent, one: Tensor, other: Tensor, y: Tensor, before: Figures, after: Figures, split: str
) -> metrics.Report:
    """The child's report on a split; what the record says of both is put into their figures.

    Intervals of all metrics are made of the last split alone: they cost more than the measuring.
    """
    resamples, seed, spec = int(parent.config["measure"]["bootstrap"]), parent.config["seed"], parent.task.spec
    shown = measured_as(parent.objective.name, spec)
    for into, outputs in ((before, one), (after, other)):
        into["objective"] = shown
        into.setdefault("scores", {})[split] = _score(*with_interval(shown, outputs, y, spec, resamples, seed))
    same = agreement(one, other, spec)
    if same is not None:
        after.setdefault("agreement", {})[split] = same
    difference = _score(*paired_difference(shown, one, other, y, spec, resamples, seed))
    after.setdefault("difference", {})[split] = difference
    return metrics.evaluate_outputs(other, y, spec, resamples if split == SPLITS[-1] else 0, seed)


def _score(value: float | None, interval: tuple[float, float] | None) -> Score:
    return Score(value=value, interval=None if interval is None else list(interval))


def objective(parent: Parent, after: float) -> dict[str, Any]:
    """What budgets are about: its name, and its value on val before and after."""
    before = parent.own_value
    drop: float | None = parent.objective.drop(before, after)
    known = {"before": before, "after": after, "drop": drop}
    return {"name": f"val/{parent.objective.name}", **{k: v if v == v else None for k, v in known.items()}}


def record(parent: Parent, found: Found, before: Figures, after: Figures, notes: list[str]) -> dict[str, Any]:
    """compression.json."""
    job, chosen = parent.job, found.attempt
    node = {**parent.config["compressor"], **chosen.settings}
    budget = Budget.from_dict(job.arguments.get("budget"))
    return {
        "schema": 1,
        "verb": job.run.verb,
        "method": str(node["_target_"]).split(".")[-2],
        "settings": {key: value for key, value in node.items() if key != "_target_"},
        "parent": job.run.record.get("parent"),
        "masked": chosen.compressor.masks,
        "threads": parent.config["trainer"]["threads"],
        "objective": objective(parent, chosen.value),
        "before": before,
        "after": after,
        "ratio": measure.comparison(before, after),
        "notes": notes,
        "tried": found.tried,
        "sparse": sparse.measure(chosen.net.state_dict()) if chosen.compressor.masks else None,
        "gate": {"budget": budget.to_dict(), "missed": found.missed} if budget else None,
        "took_s": round(chosen.took_s, 3),
        **chosen.compressor.further(chosen.net),
    }
