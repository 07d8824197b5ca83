"""Tasks whose net may be an estimator: fitted once to all training rows, where another net is trained by gradients.

An estimator is a module with `estimator = True` and `fit(x, y, seed, weight, threads)`. Its fit takes one epoch, whose
batches are collected; validation, checkpoints, records and tests are those of every run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.base import Task
from trainctl.tasks.training import Batch, Training, is_single

MEASURED_ROWS = 4096  # at a time, for the training loss


def is_estimator(net: nn.Module) -> bool:
    """Whether a net, or that of a task, is fitted at once."""
    return bool(getattr(getattr(net, "net", net), "estimator", False))


class FitsEstimators(Task):
    """A task that trains nets and fits estimators; a subclass may say `target` and `row_weights`."""

    def __init__(self, net: nn.Module, spec: DataSpec, training: Training | None = None, l1: float = 0.0) -> None:
        super().__init__(net, spec, training, l1)
        self._collected_rows: list[Batch] = []
        if training is not None:
            self.refuse_for_estimator(
                **{"ema": training.ema, "trainer.gradient_clip_val": training.gradient_clip_val, "task.l1": l1}
            )

    def target(self, y: Tensor) -> Tensor:
        """What the net's output estimates, from y."""
        return y

    def row_weights(self, y: Tensor) -> Tensor | None:
        """How much each row counts in a fit [N]; None: all the same."""
        return None

    def refuse_for_estimator(self, **settings: Any) -> None:
        """UsageError for the first setting that is set though an estimator has no use for it."""
        for name, value in settings.items():
            if value and is_estimator(self.net):
                raise UsageError(
                    f"`{name}={value}` is for nets that are trained step by step; a {type(self.net).__name__.lower()} "
                    f"is fitted at once, so leave `{name}` out"
                )

    def setup(self, stage: str) -> None:
        """UsageError when several processes would fit the same estimator."""
        count = self.trainer.world_size
        if stage == "fit" and count > 1 and is_estimator(self.net):
            raise UsageError(
                f"a {type(self.net).__name__.lower()} is fitted by one process, not by {count}; set `trainer.devices=1`"
            )

    def configure_optimizers(self) -> Any:
        """None for an estimator, which Lightning takes as an empty list without a warning."""
        return [] if is_estimator(self.net) else super().configure_optimizers()

    def on_fit_start(self) -> None:
        """An estimator that is resumed after its fit is not fitted again."""
        super().on_fit_start()
        if is_estimator(self.net) and self.progress.epoch:
            self.trainer.should_stop = True

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Collect the rows of an estimator and fit it on the epoch's last batch; a stop before that begins anew."""
        if not is_estimator(self.net):
            return super().training_step(batch, batch_idx)
        for x, y in [batch] if is_single(batch) else batch:
            if self.stop_requested():
                self.progress.stopped, self.progress.batch = True, 0
                return None
            self._collected_rows.append((self.inputs(x), y))
            self.progress.batch += 1
        if self.progress.batch == self._num_batches and self._collected_rows:  # none when resumed after the fit
            self._fit()
        return None

    @torch.no_grad()
    def _fit(self) -> None:
        x, y = (torch.cat(parts) for parts in zip(*self._collected_rows, strict=True))
        self._collected_rows = []
        net: Any = self.net
        net.fit(x, self.target(y), self._options.seed, self.row_weights(y), torch.get_num_threads())
        self.progress.step += 1
        for rows, truth in zip(*(torch.split(part, MEASURED_ROWS) for part in (x, y)), strict=True):
            self._accumulate_loss(self.loss(self.net(rows), truth), len(rows))

    def on_train_epoch_end(self) -> None:
        """One epoch is all that an estimator needs."""
        super().on_train_epoch_end()
        if is_estimator(self.net):
            self.trainer.should_stop = True
