"""The rounds of fine-tuning that a compression has done, so that an interrupted one goes on where it was.

A resumed `prune` or `quantize` does everything again but the training: what else a compressor does is quick and follows
from the parent and the seed. Each round is known by its number and by the weights it began with; other weights (of
another machine, say, that rounds otherwise) mean that it begins anew.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
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
    """One fine-tuning: `begun` when the run's checkpoints are of it, `seconds` of training that lie behind it."""

    run: Run
    number: int
    start: str
    begun: bool = False
    seconds: float = 0.0

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
        known = self._known()
        if not self.begun or known.get("end") is None:
            return False
        path = self._path("safetensors")
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != known["end"]:
            log.warning("`%s` is damaged; fine-tuning again", files.shown(path))
            self.begun = False  # checkpoints may be of a later round
            return False
        tensors.load(net, load(content))
        self.seconds = float(known.get("seconds") or 0.0)
        return True

    def recall(self) -> None:
        """Find out whether the round was begun before; says so when it began with other weights."""
        known = self._known()
        self.begun = known.get("start") == self.start
        if known and not self.begun:
            log.warning("fine-tuning begins anew: it was begun with other weights than this machine makes")

    def _mark(self, **ended: Any) -> None:
        self._path("json").parent.mkdir(exist_ok=True)
        files.write_json(self._path("json"), {"start": self.start, **ended})

    def _known(self) -> dict[str, Any]:
        try:
            content = files.read_json(self._path("json")) if self._path("json").exists() else {}
        except RunError:
            return {}
        return content if isinstance(content, dict) else {}

    def _path(self, suffix: str) -> Path:
        return self.run.path / FOLDER / f"{self.number}.{suffix}"


class Rounds:
    """All rounds of a run in their order, over all settings that a budget search tries."""

    def __init__(self, run: Run) -> None:
        self.run, self.count = run, 0

    def next(self, net: nn.Module) -> Round:
        """The round that begins with `net`."""
        found = Round(self.run, self.count, digest(net.state_dict()))
        found.recall()
        self.count += 1
        return found

    def forget(self) -> None:
        """The run holds what came of them."""
        shutil.rmtree(self.run.path / FOLDER, ignore_errors=True)


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of a state: names, types, shapes and bits."""
    return hashlib.sha256(restore.as_file(state)).hexdigest()
