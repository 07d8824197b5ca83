"""What the weights of a run gave, made once in a process: a search measures the same few runs beside each other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from trainctl.run.run import Run
from trainctl.verbs import restore

T = TypeVar("T")


class Once(Generic[T]):
    """Holds what was made of the `held` runs asked for last; weights do not change once they are written."""

    def __init__(self, held: int = 4) -> None:
        self.held = held
        self._made: OrderedDict[tuple[Hashable, ...], T] = OrderedDict()

    def of(self, run: Run, make: Callable[[], T], *also: Hashable) -> T:
        """`make()`, or what it gave before for these weights and `also`; without a file of weights nothing is held."""
        weights = run.path / restore.WEIGHTS
        if not weights.exists():
            return make()
        key = (*_identity(weights), *also)
        if key not in self._made:
            self._made[key] = make()
            while len(self._made) > self.held:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]


def _identity(path: Path) -> tuple[Path, int, int]:
    """What tells a file from another one that is written in its place."""
    stat = path.stat()
    return path.resolve(), stat.st_mtime_ns, stat.st_size
