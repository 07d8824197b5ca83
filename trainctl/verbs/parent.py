"""The run that is compressed: its task, its data, and what a compressor may use of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.compression.base import Context
from trainctl.data.base import Data
from trainctl.errors import DataError, UsageError
from trainctl.run import files
from trainctl.tasks.base import Task
from trainctl.verbs import kept_data, restore, source_data
from trainctl.verbs.evaluate import num_threads
from trainctl.verbs.job import Job
from trainctl.verbs.objective import Objective, net_outputs
from trainctl.verbs.once import Once
from trainctl.verbs.rounds import Rounds

Batch = tuple[Tensor, Tensor]
SCORED_AT_ONCE = 128  # rows of val in a batch: images of more do not stay in the cache

_remembered: Once[Any] = Once(held=16)  # small things, such as scores of channels


@dataclass
class Parent:
    """The restored source of a job: `task` has its weights; `config` is the job's, with the run's thread count.

    rounds: of fine-tuning. earlier_s: seconds of those that were done before the job was interrupted.
    """

    job: Job
    config: dict[str, Any]
    task: Task
    data: Any
    objective: Objective
    rounds: Rounds
    earlier_s: float = 0.0

    @classmethod
    def restore(cls, job: Job) -> Parent:
        """Read the source run; UsageError for a task that cannot be compressed."""
        assert job.source is not None
        threads = num_threads(job.run, job.source)
        torch.set_num_threads(threads)
        config = {**job.run.config, "trainer": {**job.run.config["trainer"], "threads": threads}}
        data, task = restore.restore(job.source, config)
        if not isinstance(task, Task):
            raise UsageError(f"{type(task).__name__} is not a trainctl task; `{job.run.verb}` needs one with a `net`")
        _detach(task.net)
        data.setup("fit")
        if isinstance(data, Data):
            data.seed = config["seed"]  # of the batch order, as in training
            source_data.check_unchanged(job, data)
            data.save(job.run.path / restore.PREPROCESSING)
            description = data.describe()
            job.run.update(data=description, warnings=list(description.get("warnings", [])))
            source_data.show(description)
            source_data.warn_of_change(job.source, data)
        job.run.update(threads=threads)
        objective = Objective.of(str(config.get("objective", "auto")), task.spec)
        return cls(job, config, task, data, objective, Rounds(job.run))

    @property
    def given(self) -> set[str]:
        """Keys that were given on the command line."""
        return {str(word).partition("=")[0].lstrip("+") for word in self.job.run.record.get("overrides", [])}

    @property
    def net(self) -> nn.Module:
        """The net as the parent run has it; not to be changed."""
        return self.task.net

    @property
    def masked(self) -> bool:
        """Whether zeros were put into the parent's weights."""
        source = self.job.source
        path = None if source is None else source.path / "compression.json"
        return path is not None and path.exists() and bool(files.read_json(path).get("masked"))

    @property
    def file(self) -> Path:
        """What ships of the parent."""
        assert self.job.source is not None
        return self.job.source.path / restore.file_of(self.net)

    def context(self, steps: int) -> Context:
        """What a compressor is given; `steps` of fine-tuning follow."""
        return Context(
            spec=self.task.spec,
            example=self.calibration[:2],
            calibration=self.calibration,
            batches=self.train_batches,
            loss=self.task.loss,
            score=self.score,
            seed=self.config["seed"],
            steps=steps,
            strict=bool(self.config.get("strict")),
            resolution=self.resolution,
            remember=self._remember,
        )

    def _remember(self, name: str, make: Callable[[], Any]) -> Any:
        assert self.job.source is not None
        batch = self.config["data"].get("batch_size")
        of = kept_data.key(self.config), batch, self.config["seed"], self.objective.name
        return _remembered.of(self.job.source, make, *of, name)

    @property
    def resolution(self) -> float:
        """Two rows of val among all of them, for classes; a number's metrics move with every row a little."""
        if self.task.spec.target != "class" or not isinstance(self.data, Data):
            return 0.0
        return 2.0 / max(1, len(self.data.split("val")))

    @cached_property
    def calibration(self) -> Tensor:
        """x of rows of train, as the net takes them, drawn by the seed [N, ...]; DataError when there are too few."""
        wanted, found = int(self.config["calibration"]["rows"]), 0
        parts: list[Tensor] = []
        for x, _ in self.train_batches():
            parts.append(x)
            found += len(x)
            if found >= wanted:
                break
        if found < 2:
            raise DataError(f"train has {found} rows, too few to calibrate on; it needs 2 or more")
        return torch.cat(parts)[:wanted]

    def train_batches(self) -> Iterator[Batch]:
        """One epoch of training batches, shuffled by the seed, the same each time; no augmentation."""
        return self._batches("train", int(self.config["data"].get("batch_size") or 64), shuffled=True)

    def val_batches(self) -> Iterator[Batch]:
        """The validation split in its order."""
        return self._batches("val", SCORED_AT_ONCE)

    def _batches(self, split: str, size: int, shuffled: bool = False) -> Iterator[Batch]:
        if not isinstance(self.data, Data):
            yield from self._foreign(getattr(self.data, f"{split}_dataloader")())
            return
        rows = self.data.split(split)
        assert rows.y is not None
        generator = torch.Generator().manual_seed(self.config["seed"])
        order = torch.randperm(len(rows), generator=generator) if shuffled else torch.arange(len(rows))
        for part in torch.split(order, size):
            yield self.task.inputs(rows.x.index_select(0, part)), rows.y[part]

    def _foreign(self, loader: Iterable[Any]) -> Iterator[Batch]:
        torch.manual_seed(self.config["seed"])
        for x, y in loader:
            yield self.task.inputs(x), y

    def score(self, net: nn.Module) -> float:
        """The objective on val, the larger the better; -inf where it is undefined."""
        value = self.objective.sign * self.value(net)
        return -math.inf if math.isnan(value) else value

    @cached_property
    def own_value(self) -> float:
        """The objective on val of the parent's net, measured once."""
        score: float = self._remember("score", lambda: self.score(self.net))
        return self.objective.sign * score if math.isfinite(score) else math.nan

    def value(self, net: nn.Module, batches: Iterable[Batch] | None = None) -> float:
        """The objective on val as it is, or on other batches."""
        output, y = net_outputs(net, self.val_batches() if batches is None else batches)
        return self.objective.measure(self.task, output, y)


def _detach(net: nn.Module) -> None:
    """Cut tensors that a layer computes of its weights, and keeps beside them, from these: they cannot be copied."""
    for module in net.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())


def refuse_estimator(net: nn.Module, what: str, doing: str = "") -> None:
    """UsageError when `net` is an estimator, for `what` is for nets alone."""
    if getattr(net, "estimator", False):
        raise UsageError(
            f"`{what}` is for nets, and the run's {type(net).__name__} is an estimator without weights{doing}; "
            "prune it with `trainctl prune RUN compressor=trees`"
        )
