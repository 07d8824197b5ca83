"""The DataSpec of someone else's LightningDataModule, read off its training batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from trainctl.data.spec import DataSpec
from trainctl.errors import DataError

HINT = "give the data module a `spec` attribute (trainctl.data.spec.DataSpec), or name your own task"


def infer_spec(datamodule: pl.LightningDataModule, trainer: pl.Trainer | None = None) -> DataSpec:
    """Set the module up for fit and describe its first training batch; its own `spec` wins when it has one.

    Batches must be (x, y): x [B, C, H, W] is an image, float x [B, N] a table, whole-number x [B, L] a sequence;
    y [B] of whole numbers is a class, of floats a number. `num_classes` and `num_tokens` attributes spare a pass
    over the training data. DataError when a batch is none of these.
    """
    if trainer is not None and datamodule.trainer is None:
        datamodule.trainer = trainer
    datamodule.prepare_data()
    datamodule.setup("fit")
    own = getattr(datamodule, "spec", None)
    if isinstance(own, DataSpec):
        return own
    x, y = next(_pairs(datamodule), (None, None))
    name = type(datamodule).__name__
    if x is None or y is None:
        raise DataError(f"the training loader of {name} gives no batch; it must give pairs (x, y)")
    fields = _describe_x(datamodule, x) | _describe_y(datamodule, y)
    if x.dim() == 2 and x.is_floating_point():
        fields["numeric"] = tuple(f"x{i}" for i in range(x.shape[1]))
    return DataSpec(**fields)


def _pairs(datamodule: pl.LightningDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, y) of every training batch; DataError when a batch is something else."""
    loader: Any = datamodule.train_dataloader()
    for batch in loader:
        parts = list(batch.values()) if isinstance(batch, Mapping) else batch
        if not isinstance(parts, list | tuple) or len(parts) != 2 or not all(isinstance(p, Tensor) for p in parts):
            name = type(datamodule).__name__
            raise DataError(f"a training batch of {name} is {_shapes(batch)}, not a pair of tensors (x, y); {HINT}")
        yield parts[0], parts[1]


def _describe_x(datamodule: pl.LightningDataModule, x: Tensor) -> dict[str, Any]:
    if x.dim() == 4:
        return {"kind": "image", "image_shape": tuple(x.shape[1:])}
    if x.dim() == 2 and x.is_floating_point():
        return {"kind": "table"}
    if x.dim() == 2 and x.dtype != torch.bool:
        tokens = getattr(datamodule, "num_tokens", None) or 1 + max(int(part.max()) for part, _ in _pairs(datamodule))
        return {"kind": "sequence", "sequence_length": x.shape[1], "num_tokens": int(tokens)}
    raise DataError(
        f"x of {type(datamodule).__name__} has shape {list(x.shape)} and type {x.dtype}; it must be an image "
        f"[B, C, H, W], a float table [B, N] or a sequence of whole numbers [B, L]; {HINT}"
    )


def _describe_y(datamodule: pl.LightningDataModule, y: Tensor) -> dict[str, Any]:
    name = type(datamodule).__name__
    if y.dim() != 1:  # [B, 1] against an output [B] would broadcast to [B, B] without a word
        raise DataError(f"y of {name} has shape {list(y.shape)}; it must be [B]; {HINT}")
    if y.is_floating_point():
        values = torch.cat([part.double() for _, part in _pairs(datamodule)])
        std = float(values.std(correction=0))
        return {"target": "number", "target_mean": float(values.mean()), "target_std": std if std > 0 else 1.0}
    known = getattr(datamodule, "num_classes", None)
    count = int(known) if known else 1 + max(int(part.max()) for _, part in _pairs(datamodule))
    if int(y.min()) < 0 or int(y.max()) >= count:
        raise DataError(f"y of {name} goes from {int(y.min())} to {int(y.max())}; classes must be 0 to {count - 1}")
    return {"target": "class", "classes": tuple(str(i) for i in range(max(2, count)))}


def _shapes(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"one tensor {list(batch.shape)}"
    if isinstance(batch, list | tuple):
        return f"{len(batch)} parts"
    return type(batch).__name__
