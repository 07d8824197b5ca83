"""The training step that every built-in task shares.

Lightning's own machinery costs about 0.2 ms a step, more than a small net's forward pass. So the loader
hands over *chunks* (lists of mini-batches) and `training_step` walks through one with manual optimisation:
clipping, accumulation, schedulers, averaging, stopping and resuming stay exact to the mini-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from trainctl import metrics
from trainctl.data.spec import DataSpec
from trainctl.errors import DivergedError, UsageError
from trainctl.schedulers import as_schedule
from trainctl.tasks.distillation import Distillation
from trainctl.tasks.ema import WeightAverage
from trainctl.tasks.gather import gather_rows, rows_unpadded
from trainctl.tasks.sharding import clip_gradients
from trainctl.tasks.training import Augment, Batch, Progress, Training, batch_seed, is_single, num_batches


class Task(pl.LightningModule):
    """A net, its loss and its metrics; subclasses give `loss`, `predict_outputs` and `measure`."""

    def __init__(self, net: nn.Module, spec: DataSpec, training: Training | None = None, l1: float = 0.0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.spec, self.training_options, self.l1 = net, spec, training, l1
        self.progress = Progress()
        self.monitor, self.mode = "val/loss", "min"
        self.augment: Augment | None = None
        self.distillation: Distillation | None = None
        self.stop_requested: Callable[[], bool] = lambda: False
        self.average: WeightAverage | None = None
        self.collected: dict[str, list[Batch]] = {}
        self.outputs: dict[str, Batch] = {}
        self.mean: Tensor
        self.std: Tensor
        if spec.mean:
            shape = (1, len(spec.mean), 1, 1)
            self.register_buffer("mean", torch.tensor(spec.mean).view(shape), persistent=False)
            self.register_buffer("std", torch.tensor(spec.std).view(shape), persistent=False)

    # What a subclass says

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        raise TypeError(f"{type(self).__name__} must define loss()")

    def predict_outputs(self, output: Tensor) -> Tensor:
        """Class probabilities [N, C], or values [N] in the user's unit."""
        raise TypeError(f"{type(self).__name__} must define predict_outputs()")

    def measure(self, predicted: Tensor, y: Tensor) -> dict[str, float | None]:
        """The few figures of a whole split that are worth a look each epoch, by base name."""
        found = metrics.measure(predicted, y, self.spec, full=False)
        watched = self.monitor.rpartition("/")[2]
        if watched in metrics.names.produced(self.spec.target)[1:] and watched not in found:
            found |= metrics.measure(predicted, y, self.spec, only=[watched])
        return found

    # Forward

    def forward(self, x: Tensor) -> Tensor:
        """Net output [B, spec.num_outputs] for a raw batch."""
        return cast(Tensor, self.net(self.inputs(x)))

    def inputs(self, x: Tensor) -> Tensor:
        """What the net sees: images become normalised float32, all else stays."""
        if self.spec.kind != "image":
            return x
        scaled = x.float().div_(255.0) if x.dtype == torch.uint8 else x
        return (scaled - self.mean) / self.std if self.spec.mean else scaled

    def penalty(self) -> Tensor:
        """L1 norm of the weights; biases and norms (fewer than two dimensions) are left out."""
        return torch.stack([p.abs().sum() for p in self.net.parameters() if p.ndim > 1 and p.requires_grad]).sum()

    # Training

    def configure_optimizers(self) -> Any:
        """One optimizer, and a scheduler that Lightning saves but `training_step` steps."""
        options = self._options
        optimizer = options.optimizer(self.net)
        self._clipped = [p for group in optimizer.param_groups for p in group["params"]]
        if options.scheduler is None:
            self._schedule = None
            return optimizer
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        steps = math.ceil(num_batches(loader) / options.accumulate_grad_batches)
        epochs = self.trainer.max_epochs or 1
        self._schedule = as_schedule(options.scheduler(optimizer, total_steps=steps * epochs, steps_per_epoch=steps))
        config = {"scheduler": self._schedule.scheduler, "interval": self._schedule.interval}
        return {
            "optimizer": optimizer,
            "lr_scheduler": config | ({"monitor": self.monitor} if self._schedule.metric else {}),
        }

    @property
    def _options(self) -> Training:
        if self.training_options is None:
            raise TypeError("this task was built for evaluation; give it `training` to fit it")
        return self.training_options

    def on_fit_start(self) -> None:
        """Make what training needs once the net is on its device."""
        if self._options.ema is not None and self.average is None:
            self.average = WeightAverage(self.net, self._options.ema)
        if self.average is not None:
            self.average.to(self.device)
        # Plain single-device float32 needs neither gradient scaling nor DDP's bookkeeping.
        strategy = self.trainer.strategy
        self._plain = type(strategy).__name__ == "SingleDeviceStrategy" and self.trainer.precision == "32-true"
        self._check_every_batch = self.device.type == "cpu"

    def on_train_epoch_start(self) -> None:
        """Tell the loader which epoch this is and where to begin in it."""
        loader: Any = self.trainer.train_dataloader
        self.progress.epoch = self.trainer.current_epoch
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(self.progress.epoch)
            loader.set_position(self.progress.batch)
        self._num_batches = num_batches(loader)
        self._optimizer = cast(Any, self.optimizers(use_pl_optimizer=not self._plain))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A chunk that is already where it should be needs no walk through it."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Optimise on each mini-batch of a chunk; a requested stop takes effect between two optimizer steps."""
        progress, every = self.progress, self._options.accumulate_grad_batches
        for x, y in [batch] if is_single(batch) else batch:
            if progress.batch % every == 0 and self.stop_requested():
                progress.stopped = True
                return
            self._train_batch(x, y, progress.batch)
            progress.batch += 1
            if progress.batch % every == 0 or progress.batch == self._num_batches:
                self._apply_gradients()

    def _train_batch(self, x: Tensor, y: Tensor, batch: int) -> None:
        self._seed(batch_seed(self._options.seed, self.progress.epoch, batch, self.global_rank))
        x = self.inputs(x)
        if self.augment is not None:
            x, y = self.augment(x, y)
        output = self._output(x, batch)
        if output is None:
            return
        loss = self.loss(output, y)
        self._accumulate_loss(loss.detach(), len(x))
        loss = loss if self.distillation is None else self.distillation(x, output, y, loss)
        if self.l1:
            loss = loss + self.l1 * self.penalty()
        if self._options.accumulate_grad_batches > 1:
            loss = loss / self._options.accumulate_grad_batches
        if self._plain:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.manual_backward(loss)

    def _output(self, x: Tensor, batch: int) -> Tensor | None:
        """None: the one row that is left at the end of an epoch is too few for batch norm, and left out."""
        try:
            return cast(Tensor, self.net(x))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
        if batch + 1 == self._num_batches > 1:
            return None
        raise UsageError("batch norm needs 2 rows or more in a training batch; set `data.batch_size=2` or more")

    def _seed(self, key: int) -> None:
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def _accumulate_loss(self, loss: Tensor, rows: int) -> None:
        self.progress.rows += rows
        if not self._check_every_batch:
            self.progress.loss_sum = self.progress.loss_sum + loss.double() * rows
            return
        value = loss.item()
        if not math.isfinite(value):
            self._diverged(value)
        self.progress.loss_sum += value * rows

    def _diverged(self, value: float) -> None:
        progress = self.progress
        lr = self._optimizer.param_groups[0]["lr"]
        raise DivergedError(f"loss is {value} at epoch {progress.epoch + 1} step {progress.batch + 1} (lr {lr:g})")

    def _apply_gradients(self) -> None:
        if self._options.gradient_clip_val is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(getattr(self._optimizer, "optimizer", self._optimizer))
            clip_gradients(self.net, self._clipped, self._options.gradient_clip_val)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.progress.step += 1
        self.progress.lr = float(self._optimizer.param_groups[0]["lr"])
        if self._schedule is not None and self._schedule.interval == "step":
            self._schedule.scheduler.step()
        if self.average is not None:
            self.average.update()

    _schedule: Any = None

    def on_train_epoch_end(self) -> None:
        """Publish the epoch's mean loss and step what goes by epochs."""
        total = gather_rows(self._sums()).sum(0)
        mean = float(total[0] / total[1])
        if not math.isfinite(mean):
            self._diverged(mean)
        self.log("train/loss", mean, logger=False)  # `Record` hands the whole row to the loggers
        if self._schedule is not None and self._schedule.interval == "epoch":
            if self._schedule.metric:
                value = mean if self.monitor == "train/loss" else float(self.trainer.callback_metrics[self.monitor])
                self._schedule.scheduler.step(value if self.mode == "min" else -value)
            else:
                self._schedule.scheduler.step()
        self.progress.epoch += 1
        self.progress.batch = self.progress.rows = 0
        self.progress.loss_sum = 0.0

    def _sums(self) -> Tensor:
        """This rank's [1, 2]: sum of losses and rows of the epoch so far."""
        return torch.tensor(
            [[float(self.progress.loss_sum), self.progress.rows]], dtype=torch.float64, device=self.device
        )

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Evaluate the averaged weights when there are some."""
        if self.average is not None and self.trainer.state.fn == "fit":
            self.average.swap_in()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep this batch's outputs; figures are made once, of the whole split."""
        self._collect("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation."""
        self._collect("test", batch)

    def _collect(self, stage: str, batch: Batch) -> None:
        x, y = batch
        # ranks may have to meet in the forward pass, so one without rows makes a pass all the same
        output = self(x) if len(x) else self(x.new_zeros((1, *x.shape[1:])))[:0]
        self.collected.setdefault(stage, []).append((output.float(), y))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and the metrics of the whole split."""
        self._finish("val")
        if self.average is not None:
            self.average.swap_out()

    def on_test_epoch_end(self) -> None:
        """Log test/loss and the metrics of the whole split."""
        self._finish("test")

    def _finish(self, stage: str) -> None:
        parts = self.collected.pop(stage, [])
        rows = rows_unpadded(self.trainer)
        output, y = (gather_rows(torch.cat([p[i] for p in parts]))[:rows] for i in (0, 1))
        predicted = self.predict_outputs(output)
        values = {"loss": self.loss(output, y).item()} | self.measure(predicted, y)
        if self.trainer.state.fn != "fit":
            self.outputs[stage] = (predicted.cpu(), y.cpu())
        figures = {f"{stage}/{name}": math.nan if value is None else value for name, value in values.items()}
        self.log_dict(figures, logger=False)

    # Checkpoints hold built-ins and tensors only

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes a resumed run identical: the place in the epoch, partial sums, the weight average."""
        place = {name: getattr(self.progress, name) for name in ("epoch", "batch", "step", "lr")}
        checkpoint["progress"] = place | {"sums": gather_rows(self._sums()).tolist()}
        if self.average is not None:
            self.average.swap_out()
            checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Inverse of `on_save_checkpoint`."""
        place = dict(checkpoint["progress"])
        sums = place.pop("sums")
        loss_sum, rows = sums[self.global_rank] if self.global_rank < len(sums) else (0.0, 0)
        self.progress = Progress(**place, loss_sum=loss_sum, rows=int(rows))
        if "average" in checkpoint and self._options.ema is not None:
            self.average = WeightAverage(self.net, self._options.ema)
            self.average.load_state_dict(checkpoint["average"])
