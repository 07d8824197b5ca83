"""What goes into a net and what comes out: the one thing data, models and tasks share.

A spec is frozen, JSON-able and saved with the run, so a run's net can be rebuilt without its data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Category:
    """A categorical column; code 0 stands for missing and unseen values, so `size` = known values + 1."""

    name: str
    size: int


@dataclass(frozen=True)
class DataSpec:
    """Shape and meaning of `x` and `y`.

    kind="table": x is float32 [B, len(numeric) + len(categories)], numeric columns first, then category codes
    (whole numbers stored as float32). kind="image": x is uint8 or float32 [B, *image_shape] with image_shape =
    (channels, height, width); a task divides uint8 by 255 and normalises with `mean` and `std` (one per channel).
    kind="sequence": x is int64 [B, sequence_length] of token ids below `num_tokens`, 0 = padding.
    target="class": y is int64 [B], an index into `classes`. target="number": y is float32 [B], in the user's unit;
    `target_mean` and `target_std` (from train) let a task learn on a standardised scale.
    """

    kind: Literal["table", "image", "sequence"]
    target: Literal["class", "number"]
    target_name: str = "target"
    classes: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categories: tuple[Category, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sequence_length: int = 0
    num_tokens: int = 0
    target_mean: float = 0.0
    target_std: float = 1.0

    @property
    def num_outputs(self) -> int:
        """Width of a net's output: one per class (two for a binary target), or one number."""
        return len(self.classes) if self.target == "class" else 1

    @property
    def num_features(self) -> int:
        """Columns of a table's x."""
        return len(self.numeric) + len(self.categories)

    def told_target(self) -> str:
        """`2 classes: no, yes` or `a number`, for the user."""
        return f"{len(self.classes)} classes: {listed(self.classes)}" if self.target == "class" else "a number"

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """Inverse of `to_dict`, also after a trip through JSON."""
        given = dict(values)
        given["categories"] = tuple(Category(**c) for c in given.get("categories", ()))
        for name in ("classes", "numeric", "mean", "std"):
            given[name] = tuple(given.get(name, ()))
        if given.get("image_shape") is not None:
            given["image_shape"] = tuple(given["image_shape"])
        return cls(**given)


def listed(names: Sequence[str]) -> str:
    """The first twelve names, and how many more there are."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
