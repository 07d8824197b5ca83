"""Training of many members as one stack: what `Task` does for one, step by step, for all of them.

Each member reaches the weights that it would reach alone: the same batches in the same order, the same random draws,
its own loss, penalty, clipping, learning rate and weight average. Members are independent: one that diverges or is
dropped changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainctl.data.base import Data
from trainctl.errors import UsageError
from trainctl.stacked import Unstackable, losses, optimizers
from trainctl.stacked.draws import Draws
from trainctl.stacked.layers import TooFewRows
from trainctl.stacked.rows import Rows
from trainctl.stacked.schedules import Rates
from trainctl.stacked.settings import Settings
from trainctl.stacked.vmapped import stacked_net
from trainctl.stacked.weights import Weights
from trainctl.tasks.base import Task
from trainctl.tasks.estimator import is_estimator


@dataclass
class Member:
    """One trial: its task with initial weights, its data (set up), and the seed of its batch order and draws."""

    task: Task
    data: Data
    seed: int


class StackedTrainer:
    """Trains members that differ only in values; positions are places in `members`, which `keep` changes.

    Unstackable when a net, an optimizer or a task has no stacked form or the members' shapes differ.
    """

    def __init__(self, members: Sequence[Member], device: torch.device, max_epochs: int) -> None:
        self.members, self.device = list(members), device
        tasks = [m.task for m in members]
        if is_estimator(tasks[0].net):
            raise Unstackable(f"there is no stacked form of {type(tasks[0].net).__name__}")
        options = [task._options for task in tasks]
        alone = [option.optimizer(task.net) for option, task in zip(options, tasks, strict=True)]
        self.weights_ = Weights([task.net for task in tasks], alone, device)
        flat = self.weights_.flat
        self.draws = Draws([m.seed for m in members], device)
        self.settings = Settings(tasks, flat)
        self.rows = {"train": self._rows("train")}
        sample = self.settings.inputs(self.rows["train"].sample())[-1]
        self.net = stacked_net([task.net for task in tasks], self.weights_.values, self.draws, sample)
        self.loss = losses.stacked(tasks, flat)
        self.update = optimizers.stacked(alone, self.weights_.groups, flat)
        self.rates = Rates(options, alone, self.rows["train"].num_batches, max_epochs)
        self.update.set_lr(self.rates.now)
        self.gradients = torch.empty_like(flat)
        self.average = flat.clone() if self.settings.averaged else None
        self.epoch, self.step, self._summed = 0, 0, 0
        self.lrs: list[float | None] = [None] * len(members)  # of the last optimizer step
        self.diverged: list[str | None] = [None] * len(members)
        self._kept: tuple[Tensor, dict[str, Tensor]] | None = None

    def _rows(self, split: str) -> Rows:
        datas, seeds = [m.data for m in self.members], [m.seed for m in self.members]
        return Rows(datas, seeds, split, self.weights_.flat.dtype, self.device)

    # Training

    def run_epoch(self) -> list[float]:
        """One epoch for all; the mean training loss of each, penalties left out, not finite for one that diverged."""
        rows, every = self.rows["train"], self.settings.every
        self.net.training = True
        found: list[tuple[Tensor, int, int]] = []
        rates = []
        for batch, (x, y) in enumerate(rows.epoch(self.epoch)):
            self.draws.start(self.epoch, batch)
            rates.append(self.rates.now)
            loss = self._loss(x, y, batch)
            if loss is not None:
                self._add_gradients(loss)
                found.append((loss.detach(), y.shape[1], batch))
            if (batch + 1) % every == 0 or batch + 1 == rows.num_batches:
                self._step()
        self.epoch += 1
        return self._means(found, rates)

    def _loss(self, x: Tensor, y: Tensor, batch: int) -> Tensor | None:
        """Loss [K] of a batch; None for the one row at the end of an epoch that batch norm cannot take."""
        try:
            output = self.net(self.settings.inputs(x))
        except TooFewRows:
            if batch + 1 == self.rows["train"].num_batches > 1:
                return None
            raise UsageError(
                "batch norm needs 2 rows or more in a training batch; set `data.batch_size=2` or more"
            ) from None
        return self.loss.train(output, y)

    def _add_gradients(self, loss: Tensor) -> None:
        weights, every = self.weights_, self.settings.every
        parts = torch.autograd.grad((loss.sum() / every) if every > 1 else loss.sum(), weights.leaves)
        rows = [part.reshape(len(loss), -1) for part in parts]
        if self._summed:
            self.gradients += torch.cat(rows, 1)
        else:
            torch.cat(rows, 1, out=self.gradients)
        for columns in weights.columns:
            if columns.name in self.net.padding:
                weights.view(self.gradients, columns)[:, 0] = 0
        if self.settings.l1 is not None:
            for start, stop in weights.penalised():
                self.gradients[:, start:stop].addcmul_(weights.flat[:, start:stop].sign(), self.settings.l1 / every)
        self._summed += 1

    def _step(self) -> None:
        if self._summed:
            if self.settings.clip is not None:
                norm = torch.linalg.vector_norm(self.gradients, dim=1, keepdim=True)
                self.gradients.mul_((self.settings.clip / (norm + 1e-6)).clamp(max=1.0))
            self.update(self.weights_.flat, self.gradients)
        self._summed = 0
        self.step += 1
        self.lrs = list(self.rates.now)
        if self.rates.step():
            self.update.set_lr(self.rates.now)
        if self.average is not None:
            self.average.lerp_(self.weights_.flat, self.settings.average_weight(self.step))

    def _means(self, found: list[tuple[Tensor, int, int]], rates: list[list[float]]) -> list[float]:
        table = torch.stack([loss for loss, _, _ in found]).double().cpu()
        rows = torch.tensor([float(n) for _, n, _ in found], dtype=torch.float64)
        finite = table.isfinite()
        for k in torch.nonzero(~finite.all(0)).flatten().tolist():
            first = int(finite[:, k].int().argmin())
            batch = found[first][2]
            self.diverged[k] = self.diverged[k] or (
                f"loss is {float(table[first, k])} at epoch {self.epoch} step {batch + 1} (lr {rates[batch][k]:g})"
            )
        means: list[float] = ((rows @ table) / rows.sum()).tolist()
        return means

    def end_epoch(self, monitored: Sequence[float | None]) -> None:
        """Let the schedulers that go by epochs step, after `evaluate`, with each member's monitored figure."""
        before = self.rates.now
        self.rates.end_epoch(monitored, [m.task.mode for m in self.members])
        if self.rates.now != before:
            self.update.refresh()
            self.update.set_lr(self.rates.now)

    def lr(self, position: int) -> float | None:
        """The learning rate of a member's last optimizer step."""
        return self.lrs[position]

    # Evaluation

    @torch.no_grad()
    def evaluate(self, split: str = "val") -> tuple[Tensor, Tensor, list[float]]:
        """Outputs as the tasks predict them [K, N, ...], y [N] (or [K, N] when they differ), and losses, on the CPU."""
        if split not in self.rows:
            self.rows[split] = self._rows(split)
        self.net.training = False
        with self._averaged():
            parts = [self.net(self.settings.inputs(x)).float().transpose(1, 2) for x, _ in self.rows[split].pieces()]
        output = torch.cat(parts, 2).transpose(1, 2)
        y = self.rows[split].targets()
        on_device = (y if y.ndim > 1 else y[None]).to(self.device)
        found: list[float] = self.loss.evaluate(output, on_device).tolist()
        return self.loss.outputs(output).cpu(), y, found

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the last ones, where there are some."""
        if self.average is None:
            yield
            return
        live, self.weights_.flat = self.weights_.flat, self.average
        self.weights_.attach()
        try:
            yield
        finally:
            self.weights_.flat = live
            self.weights_.attach()

    # Members

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with these members alone, in this order; the others are gone."""
        index = torch.tensor(list(positions), dtype=torch.long, device=self.device)
        self.weights_.keep(positions, index)
        self.update.keep(positions, index)
        self.loss.keep(index)
        self.settings.keep(index)
        self.draws.keep(positions)
        self.rates.keep(positions)
        self.update.set_lr(self.rates.now)
        for rows in self.rows.values():
            rows.keep(positions)
        self.gradients = torch.empty_like(self.weights_.flat)
        if self.average is not None:
            self.average = self.average.index_select(0, index)
        self.members = [self.members[k] for k in positions]
        self.lrs = [self.lrs[k] for k in positions]
        self.diverged = [self.diverged[k] for k in positions]
        if self._kept is not None:
            flat, buffers = self._kept
            self._kept = (flat[index], {name: value[index] for name, value in buffers.items()})

    def weights(self, position: int, averaged: bool = True) -> dict[str, Tensor]:
        """A copy of a member's own `state_dict`, on the CPU; with the averaged weights where there are some."""
        matrix = self.average if averaged and self.average is not None else self.weights_.flat
        return self.weights_.state(position, matrix)

    @torch.no_grad()
    def remember(self, positions: Sequence[int]) -> None:
        """Keep a copy of these members' weights (averaged where there is an average), such as those of a best epoch."""
        matrix = self.weights_.flat if self.average is None else self.average
        if self._kept is None:
            self._kept = (matrix.clone(), {name: value.clone() for name, value in self.weights_.buffers.items()})
            return
        flat, buffers = self._kept
        rows = torch.tensor(list(positions), dtype=torch.long, device=self.device)
        flat[rows] = matrix[rows]
        for name, value in buffers.items():
            value[rows] = self.weights_.buffers[name][rows]

    def remembered(self, position: int) -> dict[str, Tensor]:
        """What `remember` kept last of a member, as `weights`; the first call of `remember` keeps all."""
        assert self._kept is not None, "call `remember` first"
        return self.weights_.state(position, *self._kept)


__all__ = ["Member", "StackedTrainer", "Unstackable"]
