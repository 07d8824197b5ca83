"""When checkpoints are written, and what a resumed fit does with one.

Lightning's ModelCheckpoint leaves `last` stale, swallows failed writes and is atomic only within one file
system; this one writes `last` at every epoch end and when stopped, and `best` when the monitor improved.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint as LightningCheckpoint

from trainctl.callbacks.early_stopping import EarlyStopping
from trainctl.callbacks.time_limit import TimeUp
from trainctl.errors import DivergedError, ResourceError, RunError, Stopped, TrainctlError, UsageError, did_you_mean
from trainctl.tasks.base import Task

NEEDED = ("state_dict", "place", "epoch", "global_step", "pytorch-lightning_version")  # in every checkpoint


class Store(Protocol):
    """Where checkpoints go; `run` knows the files, this module knows the moments."""

    def temp(self) -> Path:
        """A temporary name in the checkpoint folder."""

    def commit(self, temporary: Path, best: bool, info: dict[str, Any]) -> None:
        """Make the written file `last`, and `best` when it is."""

    def failure(self, error: Exception, path: Path) -> Exception:
        """The sentence for a failed write."""


class PlainCheckpointIO(CheckpointIO):
    """Saves and loads built-ins and tensors only; nothing is ever unpickled."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to `path`, a temporary name in the checkpoint folder; `Checkpoint` commits it."""
        torch.save(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint; RunError when it holds anything but tensors and built-ins, or is not one of ours."""
        return read_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Lightning asks for this only through its own ModelCheckpoint, which is not used."""
        Path(path).unlink(missing_ok=True)


def improves(
    value: float, best_score: float | None, best_epoch: int | None, mode: str, tolerance: float = 0.0
) -> bool:
    """Whether an epoch's figure beats the best so far, or is worse by less than `tolerance`.

    An undefined one (NaN) does only when there is no best epoch.
    """
    if math.isnan(value):
        return best_epoch is None
    if best_score is None:
        return True
    return value < best_score + tolerance if mode == "min" else value > best_score - tolerance


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint file; nothing in it is executed. RunError when it is not what we write."""
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"contains code ({code[1]}); refused" if code else "is not a checkpoint of tensors; refused"
        raise RunError(f"`{path.name}` {what}") from None
    missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise RunError(f"`{path.name}` is not a checkpoint of a run: it lacks `{missing[0]}`")
    return dict(content)


class Checkpoint(LightningCheckpoint):
    """Writes through a store that makes a file `last` (and `best`) atomically; a failed write is an error.

    tolerance: differences of the monitor below which the later epoch is the better one.
    """

    def __init__(self, store: Store, monitor: str, mode: Literal["min", "max"]) -> None:
        self.store, self.monitor, self.mode, self.tolerance = store, monitor, mode, 0.0
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self._top: float | None = None  # with a tolerance, more than the best epoch's
        self.saved = self.foreign_midway = False

    # Writing

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`last` always; `best` when the monitor improved, or when it is undefined and there is no best yet."""
        have = sorted(str(name) for name in trainer.callback_metrics)
        if self.monitor not in have:
            listed = ", ".join(have) or "nothing"
            raise UsageError(
                f"monitor `{self.monitor}` is not logged; have: {listed}{did_you_mean(self.monitor, have)}"
            )
        value = float(trainer.callback_metrics[self.monitor])
        if "loss" in self.monitor and not math.isfinite(value):
            raise DivergedError(f"{self.monitor} is {value} at epoch {trainer.current_epoch + 1}")
        better = improves(value, self._top, self.best_epoch, self.mode, self.tolerance)
        if better:
            self.best_score, self.best_epoch = (None if math.isnan(value) else value), trainer.current_epoch
        if improves(value, self._top, self.best_epoch, self.mode):
            self._top = value
        self.save(trainer, better)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A stopped task keeps its exact place; after any other failure the last epoch's checkpoint stands.

        When time is up in a foreign module's first epoch, there is none yet: the weights reached are kept.
        """
        self.foreign_midway = isinstance(exception, TimeUp) and not isinstance(pl_module, Task) and not self.saved
        stopped = isinstance(pl_module, Task) and pl_module.progress.stopped
        if self.foreign_midway or (isinstance(exception, (Stopped, TimeUp)) and stopped):
            self.save(trainer, best=False)

    def save(self, trainer: pl.Trainer, best: bool) -> None:
        """Write the trainer's state to a temporary file in the checkpoint folder and commit it."""
        try:
            self._write(trainer, best)
        except ResourceError as error:
            epoch = trainer.current_epoch + 1
            good = "; earlier checkpoints are good" if trainer.current_epoch else ""
            raise ResourceError(f"{error} at epoch {epoch}{good}") from error
        trainer.strategy.barrier("committed")  # a rank that left before would be missed, and rank 0 cut short
        self.saved = True

    def _write(self, trainer: pl.Trainer, best: bool) -> None:
        temporary = self.store.temp() if trainer.is_global_zero else Path(trainer.default_root_dir) / "unused"
        try:
            trainer.save_checkpoint(temporary)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                os.truncate(temporary, 0)  # torch holds the file open, and the record needs the room
                temporary.unlink()
            raise self.store.failure(error, temporary) from error
        if trainer.is_global_zero:
            midway = self.foreign_midway or _is_midway(trainer)
            epoch = trainer.current_epoch + (0 if midway else 1)
            try:
                self.store.commit(temporary, best, {"epoch": epoch, "step": _step(trainer), "midway": midway})
            except TrainctlError:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's loop state gives way to (epoch, step): with chunks its batch counts mean nothing."""
        checkpoint.pop("loops", None)
        midway = self.foreign_midway or _is_midway(trainer)
        checkpoint["place"] = {
            "epoch": trainer.current_epoch + (0 if midway else 1),
            "step": _step(trainer),
            "threads": torch.get_num_threads(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "top": self._top}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self._top = state_dict.get("top", self.best_score)  # checkpoints of earlier releases lack it

    # Resuming

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the fit loop at the epoch to go on with."""
        place = checkpoint["place"]
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = place["epoch"]
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = place["step"]  # the loggers' x-axis
        loop.manual_optimization.optim_step_progress.total.completed = place["step"]
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = place["step"]


    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run whose patience had run out stays at its end, unless it has more patience now."""
        trainer.should_stop = any(c.triggered for c in trainer.callbacks if isinstance(c, EarlyStopping))  # type: ignore[attr-defined]


def _is_midway(trainer: pl.Trainer) -> bool:
    module = trainer.lightning_module
    return isinstance(module, Task) and module.progress.stopped


def _step(trainer: pl.Trainer) -> int:
    module = trainer.lightning_module
    return module.progress.step if isinstance(module, Task) else trainer.global_step
