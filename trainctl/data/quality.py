"""What may spoil a result without stopping it: rows shared by train and test, targets that say nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainctl.data.base import Split
from trainctl.data.spec import DataSpec

HASH_ROWS = 65_536


def warnings_of(splits: Mapping[str, Split], spec: DataSpec) -> list[str]:
    """One sentence for each thing found."""
    return [*_target_warnings(splits, spec), *_shared_rows(splits)]


def _target_warnings(splits: Mapping[str, Split], spec: DataSpec) -> list[str]:
    found = []
    for name, split in splits.items():
        if split.y is None or len(split) == 0 or int((split.y != split.y[0]).sum()):
            continue
        if spec.target == "class":
            label = spec.classes[int(split.y[0])]
            found.append(f"{name} has one class only ('{label}'): AUROC is undefined there and written as null")
        else:
            value = float(split.y[0])
            found.append(f"target `{spec.target_name}` is constant in {name} ({value:g}): R2 is written as null")
    return found


def _shared_rows(splits: Mapping[str, Split]) -> list[str]:
    if "train" not in splits:
        return []
    train = _row_hashes(splits["train"])
    found = []
    for name in ("val", "test"):
        if name in splits:
            shared = int(np.isin(_row_hashes(splits[name]), train).sum())
            if shared:
                verb = "are" if shared != 1 else "is"
                found.append(f"{shared} row{'s' * (shared != 1)} of {name} {verb} also in train")
    return found


def _row_hashes(split: Split) -> np.ndarray:
    """uint64 [N] of features and target: equal rows have equal numbers, others differ with probability 1 - 2**-64."""
    x = split.x.numpy().view(np.uint32)
    factors = np.random.default_rng(0).integers(1, 2**63, size=x.shape[1] + 1, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(x), dtype=np.uint64)
    for start in range(0, len(x), HASH_ROWS):
        block = x[start : start + HASH_ROWS].astype(np.uint64)
        block = (block ^ (block >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
        hashes[start : start + HASH_ROWS] = ((block ^ (block >> np.uint64(29))) * factors[:-1]).sum(axis=1)
    if split.y is not None:
        hashes += split.y.numpy().astype(np.float64).view(np.uint64) * factors[-1]
    return hashes
