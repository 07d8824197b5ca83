"""What training shows: a live line on a terminal, one plain line per epoch elsewhere. Always on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

import pytorch_lightning as pl

from trainctl.callbacks.record import Row
from trainctl.tasks.base import Task

log = logging.getLogger("trainctl")

REFRESH_S = 0.25


class Show(pl.Callback):
    """`epoch_line(row)` is given to `Record`; the hooks keep a rich progress bar when stderr is a terminal."""

    def __init__(self, max_epochs: int | None, monitor: str, quiet: bool = False) -> None:
        self.max_epochs, self.monitor = max_epochs, monitor
        self.live = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._drawn = 0.0
        self._first: int | None = None

    def epoch_line(self, row: Row) -> None:
        """Show what `epoch_text` says."""
        line = epoch_text(row, self.max_epochs)
        if self._bar is None:
            log.info("%s", line)
            return
        log.debug("%s", line)
        # A terminal that is gone must not be able to end training.
        with contextlib.suppress(OSError, ValueError):
            self._bar.console.print(line, highlight=False, markup=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar on a terminal."""
        if not self.live or not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
        )
        with contextlib.suppress(OSError, ValueError):
            self._bar.start()
        epochs = self.max_epochs if self.max_epochs and self.max_epochs > 0 else None
        self._total = epochs * int(trainer.num_training_batches) if epochs else None
        self._task = self._bar.add_task("training", total=self._total, figures="")
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw at most four times a second."""
        now = time.perf_counter()
        if self._bar is None or now - self._drawn < REFRESH_S:
            return
        self._drawn = now
        step = pl_module.progress.step if isinstance(pl_module, Task) else trainer.global_step
        self._first = step if self._first is None else self._first
        speed = (step - self._first) / max(now - self._started, 1e-9)
        figures = f"{speed:.0f} steps/s"
        if isinstance(pl_module, Task) and pl_module.progress.rows:
            figures = f"loss {float(pl_module.progress.loss_sum) / pl_module.progress.rows:.4g}  " + figures
        metric = trainer.callback_metrics.get(self.monitor)
        if metric is not None:
            figures = f"{self.monitor} {float(metric):.4g}  " + figures
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        epoch = f"epoch {trainer.current_epoch + 1}" + (f"/{self.max_epochs}" if self.max_epochs else "")
        self._bar.update(self._task, completed=done, description=epoch, figures=figures)
        with contextlib.suppress(OSError, ValueError):
            self._bar.refresh()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        with contextlib.suppress(OSError, ValueError):
            if bar is not None:
                bar.stop()


def epoch_text(row: Row, max_epochs: int | None) -> str:
    """`epoch 3/10  train/loss 0.41  val/loss 0.39  val/accuracy 0.86  0.1 s`, at most 200 bytes."""
    names = [k for k in row if k not in ("epoch", "step", "seconds", "lr")]
    figures = "  ".join(f"{k} {_short(row[k])}" for k in names)
    total = f"/{max_epochs}" if max_epochs and max_epochs > 0 else ""
    return f"epoch {row['epoch']}{total}  {figures}"[:180] + f"  {row['seconds']:.2g} s"


def _short(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"
