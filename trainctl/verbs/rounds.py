"""The rounds of fine-tuning that a compression has done, so that an interrupted one goes on where it was.

A resumed `prune` or `quantize` does everything again but the training: what else a compressor does is quick and follows
from the parent and the seed. Each round is known by its number and by the weights it began with; other weights (of
another machine, say, that rounds otherwise) mean that it begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor, nn

from trainctl.compression import tensors
from trainctl.errors import RunError
from trainctl.run import checkpoints, files
from trainctl.run.run import Run
from trainctl.verbs import restore

log = logging.getLogger("trainctl")

FOLDER = "rounds"


@dataclass
class Round:
    """One fine-tuning: what it begins with, `start`, and what an earlier process left `known` of it."""

    run: Run
    number: int
    start: str
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def recalled(cls, run: Run, number: int, start: str) -> Round:
        """As it was left; says so, and knows nothing, when that began with other weights."""
        found = cls(run, number, start)
        path = found._path("json")
        with contextlib.suppress(RunError):
            content = files.read_json(path) if path.exists() else {}
            found.known = content if isinstance(content, dict) else {}
        if found.known and not found.begun:
            log.warning("fine-tuning begins anew: it was begun with other weights than this machine makes")
            found.known = {}
        return found

    @property
    def begun(self) -> bool:
        """Whether the run's checkpoints, if there are any, are of this round or a later one."""
        return self.known.get("start") == self.start

    @property
    def seconds(self) -> float:
        """Of training, when it has ended."""
        return float(self.known.get("seconds") or 0.0)

    def begin(self) -> None:
        """From here on the run's checkpoints and logged epochs are of this round; what came after it is void."""
        self.run.cut_metrics(0)
        checkpoints.clear(self.run.path)
        for path in self._path("json").parent.glob("*.*"):
            if path.stem.isdecimal() and int(path.stem) >= self.number:
                path.unlink()
        self._mark()

    def end(self, net: nn.Module, seconds: float) -> None:
        """Keep what the net became."""
        content = restore.as_file(net.state_dict())
        files.write_atomic(self._path("safetensors"), content)
        self._mark(end=hashlib.sha256(content).hexdigest(), seconds=seconds)

    def load(self, net: nn.Module) -> bool:
        """Give `net` the weights that the round ended with; False when it has not ended, or begins anew."""
        if self.known.get("end") is None:
            return False
        path = self._path("safetensors")
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.known["end"]:
            log.warning("`%s` is damaged; fine-tuning again", files.shown(path))
            self.known = {}  # checkpoints may be of a later round
            return False
        tensors.load(net, load(content))
        return True

    def _mark(self, **ended: Any) -> None:
        self._path("json").parent.mkdir(exist_ok=True)
        files.write_json(self._path("json"), {"start": self.start, **ended})

    def _path(self, suffix: str) -> Path:
        return self.run.path / FOLDER / f"{self.number}.{suffix}"


class Rounds:
    """All rounds of a run in their order, over all settings that a budget search tries."""

    def __init__(self, run: Run) -> None:
        self.run, self.count = run, 0

    def next(self, net: nn.Module) -> Round:
        """The round that begins with `net`."""
        self.count += 1
        return Round.recalled(self.run, self.count - 1, digest(net.state_dict()))

    def forget(self) -> None:
        """The run holds what came of them."""
        shutil.rmtree(self.run.path / FOLDER, ignore_errors=True)


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of a state: names, types, shapes and bits."""
    return hashlib.sha256(restore.as_file(state)).hexdigest()
