"""What an exported file takes and gives, and the rows that it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]  # rows by input name
Runner = Callable[[Feed], np.ndarray]  # a file that was loaded
BATCH = "batch"


@dataclass(frozen=True)
class Port:
    """One input or output: `shape` holds `batch` for the free size; `meaning` tells a stranger what the values are."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins for JSON."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "meaning": self.meaning}


@dataclass(frozen=True)
class Sample:
    """Real rows of a split: what goes in, and what the run itself gives for them.

    expected [N, ...]: for all of them; alone [1, ...]: for the first without the others, whose last bits may differ.
    """

    feed: Feed
    expected: np.ndarray
    alone: np.ndarray
    split: str

    def parts(self) -> tuple[tuple[Feed, np.ndarray], ...]:
        """All rows, and the first alone."""
        first = {name: values[:1] for name, values in self.feed.items()}
        return (self.feed, self.expected), (first, self.alone)
