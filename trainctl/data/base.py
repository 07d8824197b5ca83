"""What every built-in data module shares: splits, loaders, saving and describing.

A subclass writes `load()`; tables and images add their own preprocessing, streaming and columns.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from trainctl.data.loader import InMemoryLoader
from trainctl.data.spec import DataSpec
from trainctl.data.splits import SplitPlan, split_rows
from trainctl.errors import DataError, UsageError

PLAIN_SPLITS = ("auto", "random", "stratified")
SPLITS = ("train", "val", "test")
EVAL_BATCH_VALUES = 2**17  # numbers in an evaluation batch: no gradients are kept, so it can be larger
DEVICE_SHARE = 0.25  # of the device's free memory that one split may take

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Split:
    """x [N, ...] and y [N] as DataSpec says; rows [N] int64: row numbers in the source.

    When images do not fit in memory, x is an `ImageFiles`, which decodes the rows asked of it.
    """

    x: Tensor
    y: Tensor | None
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Chunk:
    """A piece of a new file: x and y (None without a target) as in Split, rows [N], and what names the rows.

    `frame` is the raw table (polars) for tables; `names` are file names for images.
    """

    x: Tensor
    y: Tensor | None
    rows: np.ndarray
    frame: Any = None
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.x)


class Data(pl.LightningDataModule, ABC):
    """Base of the built-in data modules; constructor parameters are the keys of conf/data/<name>.yaml.

    Before the loaders are asked for, a task may set `chunk` and `chunked` (mini-batches handed out together),
    and a trainer config `limit_batches` (mini-batches per epoch and split, at most) and `reshuffle` (False: the same
    order in every epoch, so that a limit keeps giving the same rows).
    """

    spec: DataSpec
    augment: Augment | None = None
    chunk: int = 1
    chunked: bool | None = None
    limit_batches: int | None = None
    reshuffle: bool = True
    fine_tuned: bool = False  # restored from another run to be trained on: the target may have other classes

    def __init__(
        self,
        batch_size: int,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        split: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and (type(size) is not int or size < 1):
                raise UsageError(f"`data.{name}` is {size!r}; it must be a whole number of 1 or more")
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self.split_config, self.seed = dict(split or {}), seed
        self.restored = False  # True: `load` takes preprocessing and classes as they are and fits nothing
        self.warnings: list[str] = []
        self._splits: dict[str, Split] | None = None
        self._hashes: dict[str, str] = {}

    # -- for subclasses -------------------------------------------------------------------------------------------

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """Read the source and return the splits train, val and test; unless `self.restored`, fit preprocessing on
        train and set `self.spec`. Sentences for the user that stop nothing go to `self.warnings`."""

    def save_fitted(self, folder: Path) -> None:
        """Write fitted preprocessing into `folder` (JSON and safetensors only); nothing by default."""

    def restore_fitted(self, folder: Path) -> None:
        """Read what `save_fitted` wrote; `self.spec` is already set."""

    def describe_source(self) -> dict[str, Any]:
        """JSON-able facts about the source that `describe` includes, such as column decisions."""
        return {}

    def stream(self, path: Path | str, rows: int = 65536, with_target: bool | None = None) -> Iterator[Chunk]:
        """Read a new file or folder piece by piece, preprocessed as the training data was.

        with_target: True demands the target, False never reads it, None takes it when it is there.
        """
        raise DataError(f"{type(self).__name__} cannot read new files such as `{path}`; train on a file instead")

    def column(self, name: str, split: str) -> list[str | None]:
        """Raw values of a column of the source in the rows of `split`."""
        raise DataError(f"no column `{name}`: {type(self).__name__} has no named columns to slice by")

    def classes_for(self, found: tuple[str, ...], source: str) -> tuple[str, ...]:
        """The classes of the spec: those found, unless restored ones will do or (not being fine-tuned) must do."""
        if not self.restored:
            return found
        if self.fine_tuned and not set(found) <= set(self.spec.classes):
            few = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
            self.warnings.append(f"`{source}` has other classes than the source run, so the head is new: {few}")
            self.spec = dataclasses.replace(self.spec, classes=found)
        return self.spec.classes

    # -- shared ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Read, split and fit once; later calls do nothing. DataError for anything wrong with the data."""
        if self._splits is None:
            splits = self.load()
            check_classes(splits, self.spec)
            self._splits = splits

    def split(self, name: str) -> Split:
        """The rows of train, val or test."""
        if name not in SPLITS:
            raise UsageError(f"no split `{name}`; choose train, val or test")
        self.setup()
        assert self._splits is not None
        return self._splits[name]

    def loader(self, name: str, train: bool = False) -> Any:
        """Batches of one split, sharded by the trainer's rank: shuffled when `train`, else every row once, in order."""
        split = self.split(name)
        auto = max(self.batch_size, min(4096, EVAL_BATCH_VALUES // max(1, split.x.shape[1:].numel())))
        return InMemoryLoader(
            split.x,
            split.y,
            batch_size=self.batch_size if train else self.eval_batch_size or auto,
            shuffle=train,
            seed=self.seed,
            drop_last=self.drop_last and train,
            chunk=self.chunk if train else 1,
            chunked=self.chunked if train else False,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            limit_batches=self.limit_batches,
            reshuffle=self.reshuffle,
            device=self._device_for(split),
            prefetch=not isinstance(split.x, Tensor),
        )

    def split_plain(
        self,
        num_rows: int,
        labels: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
        given: frozenset[str] = frozenset(),
    ) -> dict[str, np.ndarray]:
        """Row numbers of each split by `data.split`, for data without columns; UsageError for kinds that need one."""
        plan = SplitPlan.from_config(self.split_config)
        if plan.kind not in PLAIN_SPLITS:
            raise UsageError(
                f"`data.split.kind={plan.kind}` needs a table with columns; here choose {', '.join(PLAIN_SPLITS)}"
            )
        return split_rows(plan, num_rows, self.seed, labels, given=given, classes=classes)

    def train_dataloader(self) -> Any:
        """Shuffled training batches."""
        return self.loader("train", train=True)

    def val_dataloader(self) -> Any:
        """Validation batches in row order."""
        return self.loader("val")

    def test_dataloader(self) -> Any:
        """Test batches in row order."""
        return self.loader("test")

    def predict_dataloader(self) -> Any:
        """The test split again: new files are read with `stream`."""
        return self.loader("test")

    def save(self, folder: Path) -> None:
        """Write spec.json and the fitted preprocessing into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "spec.json", self.spec.to_dict())
        self.save_fitted(folder)

    def restore(self, folder: Path) -> None:
        """Take spec and preprocessing from `folder`; `setup` will fit nothing afterwards."""
        self.spec = DataSpec.from_dict(read_json(folder / "spec.json"))
        self.restored, self._splits, self._hashes = True, None, {}
        self.restore_fitted(folder)

    def describe(self) -> dict[str, Any]:
        """JSON-able: splits (rows and sha256 of the content of each), what `describe_source` adds, and warnings."""
        self.setup()
        sizes = {name: {"rows": len(self.split(name)), "sha256": self.content_hash(name)} for name in SPLITS}
        return {"splits": sizes, **self.describe_source(), "warnings": list(self.warnings)}

    def content_hash(self, name: str) -> str:
        """sha256 over the tensors and row numbers of a split."""
        if name not in self._hashes:
            self._hashes[name] = hash_split(self.split(name))
        return self._hashes[name]

    def _device_for(self, split: Split) -> torch.device | None:
        """The trainer's GPU when the split takes a small part of its free memory; None: leave it where it is."""
        device = self.trainer.strategy.root_device if self.trainer else None
        if device is None or device.type != "cuda" or not isinstance(split.x, Tensor):
            return None
        free, _ = torch.cuda.mem_get_info(device)
        return device if split.x.nbytes < DEVICE_SHARE * free else None


def check_classes(splits: dict[str, Split], spec: DataSpec) -> None:
    """DataError when a class of val or test never occurs in train: no net can learn it."""
    if spec.target != "class":
        return
    counts = {
        name: torch.bincount(part.y, minlength=len(spec.classes)) for name, part in splits.items() if part.y is not None
    }
    if "train" not in counts:
        return
    for name in ("val", "test"):
        for index in torch.nonzero((counts["train"] == 0) & (counts[name] > 0)).flatten().tolist():
            rows = int(counts[name][index])
            raise DataError(
                f"class '{spec.classes[index]}' is in {name} ({rows} row{'s' * (rows != 1)}) but not in train; "
                "set `data.split.kind=stratified` or leave that class out"
            )


def hash_split(split: Split) -> str:
    """sha256 of dtype, shape and bytes of x, y and rows."""
    digest = hashlib.sha256()
    for array in (split.x.numpy(), None if split.y is None else split.y.numpy(), split.rows):
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "x", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Inverse of `write_json`; DataError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no `{path.name}` in `{path.parent}`; name the folder of a finished run") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read `{path}`: {error}") from None
