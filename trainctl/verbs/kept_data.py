"""Data modules that a process has set up and lends to one job after the other.

A trial differs from the one before in its model or optimizer, rarely in its data; reading and fitting it again would
cost more than the training. Data that another process packed (data.shared) is mapped into memory instead of loaded.
"""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl import build
from trainctl.data import shared
from trainctl.data.base import Data
from trainctl.run import files
from trainctl.run.record import plain

HELD = 8  # data modules in memory at a time: folds come in turns
OF_THE_LOADER = ("batch_size", "eval_batch_size", "drop_last")  # keys that change no row
OF_THE_TRAINER = ("limit_batches", "reshuffle")


@dataclass(frozen=True)
class Fitted:
    """What a run keeps of its data: the description for its record, and the files of its preprocessing."""

    description: dict[str, Any]
    content: dict[str, bytes]

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The description as run.json holds it, made once for all runs with this data."""
        made: dict[str, Any] = plain(self.description)
        return made

    def write(self, folder: Path) -> None:
        """The files, in a folder that is made."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.content.items():
            files.write_atomic(folder / name, content, durable=False)


class KeptData:
    """Lends data modules by config; `packed` are descriptors of what other processes set up, by `key`."""

    def __init__(self, packed: Mapping[str, int] | None = None) -> None:
        self.packed = dict(packed or {})
        self._held: OrderedDict[str, tuple[Data, Fitted]] = OrderedDict()

    def lend(self, config: dict[str, Any]) -> tuple[Any, Fitted | None]:
        """A module, set up, with loaders and trainer of its own; someone else's module is new and has no `Fitted`."""
        fresh = build.data(config)
        if not isinstance(fresh, Data):
            return fresh, None
        name = key(config)
        if name not in self._held:
            self._held[name] = self._set_up(config, name)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        data, fitted = self._held[name]
        lent = copy.copy(data)
        lent.warnings, lent.trainer = list(data.warnings), None
        for attribute in (*OF_THE_LOADER, *OF_THE_TRAINER):
            setattr(lent, attribute, getattr(fresh, attribute))
        return lent, fitted

    def _set_up(self, config: dict[str, Any], name: str) -> tuple[Data, Fitted]:
        data = build.data(config)
        assert isinstance(data, Data)
        if name in self.packed:
            return data, Fitted(*shared.unpack(self.packed[name], data))
        data.setup()
        with tempfile.TemporaryDirectory() as folder:
            data.save(Path(folder))
            return data, Fitted(data.describe(), shared.content_of(Path(folder)))


def key(config: dict[str, Any]) -> str:
    """What the rows of a config's data depend on, as text."""
    node = config["data"]
    ours = str(node.get("_target_", "")).startswith("trainctl.data.")
    kept = {k: v for k, v in node.items() if not (ours and k in OF_THE_LOADER)}
    seed = None if "seed" in node else config.get("seed", 0)
    return json.dumps([kept, seed, (config.get("paths") or {}).get("data")], sort_keys=True, default=str)
