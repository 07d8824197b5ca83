"""A group of trials in a worker's hands, without the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from trainctl.config import saved
from trainctl.config.compose import compose
from trainctl.reporting import report
from trainctl.run.run import Run
from trainctl.verbs import train_stacked
from trainctl.verbs.kept_data import KeptData

QUICK = ("data=synthetic", "data.rows=600", "data.batch_size=64", "model.hidden_dims=[16]", "trainer.threads=1",
         "trainer.max_epochs=3", "train.test=false")


def content(words: Sequence[str]) -> dict[str, Any]:
    """What config.yaml of `trainctl train WORDS...` holds."""
    found: dict[str, Any] = yaml.safe_load(saved.dump(compose("train", words)))
    return found


@dataclass
class Told:
    """Listens as a study does; `stops` are the answers to each report of epochs."""

    stops: Callable[[int, int], str | None] = lambda number, epoch: None
    rows: list[dict[int, dict[str, Any]]] = field(default_factory=list)
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)
    lone: list[dict[str, Any]] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)  # how trials that are trained alone end

    def tell(self, rows: Mapping[int, dict[str, Any]]) -> dict[int, str]:
        self.rows.append(dict(rows))
        answers = {number: self.stops(number, row["epoch"]) for number, row in rows.items()}
        return {number: why for number, why in answers.items() if why}

    def alone(self, order: Mapping[str, Any]) -> int:
        self.lone.append(dict(order))
        return self.codes.get(order["number"], 0)

    def done(self, number: int, status: str = "completed", metrics: Any = None, **how: Any) -> None:
        assert number not in self.ends
        self.ends[number] = {"status": status, "metrics": metrics, **how}


class Study:
    """A study's folder; `study([words of a trial], ...)` trains a group in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs" / "tune" / "2026-11-20_12-00-00"
        self.told = Told()

    def order(self, *trials: list[str]) -> dict[str, Any]:
        orders = []
        for number, words in enumerate(trials):
            path = self.folder / "trials" / str(number)
            config = content([*QUICK, *words])
            orders.append({"number": number, "path": str(path), "config": config, "overrides": [*QUICK, *words]})
        return {"do": "group", "trials": orders, "parent": str(self.folder), "wait": True, "latency": False}

    def __call__(self, *trials: list[str], **listening: Any) -> Told:
        self.told = Told(**listening)
        self.go_on(self.order(*trials))
        return self.told

    def go_on(self, order: dict[str, Any]) -> None:
        around = train_stacked.Around(
            self.told.alone,
            lambda task, data: {"parameters": sum(p.numel() for p in task.net.parameters())},
            lambda run, metrics, intervals: report.write(run, metrics, intervals, "completed", sync=False),
        )
        before = torch.get_num_threads()
        try:
            train_stacked.run_group(order, self.told, KeptData(), around)
        finally:
            torch.set_num_threads(before)

    def run(self, number: int) -> Run:
        return Run.open(self.folder / "trials" / str(number))
