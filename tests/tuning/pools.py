"""A pool of workers and the orders that a study would give it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from trainctl import launch
from trainctl.config import saved
from trainctl.config.compose import compose
from trainctl.tuning.pool import Died, Done, Epochs, Event, Pool

QUICK = ("data=synthetic", "data.rows=600", "data.batch_size=64", "trainer.threads=1", "trainer.max_epochs=3",
         "trainer.accelerator=cpu", "train.test=false")
LONG = ("trainer.max_epochs=100000", "data.rows=3000")


def content(*words: str) -> dict[str, Any]:
    """The content of a trial's config.yaml."""
    config = yaml.safe_load(saved.dump(compose("train", [*QUICK, *words])))
    assert isinstance(config, dict)
    return config


class Study:
    """A pool and the orders that a study would give it."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.pool = Pool(jobs, launch.Options(quiet=True), folder)
        self.heard: list[Event] = []

    def path(self, number: int) -> Path:
        return self.folder / "trials" / str(number)

    def start(self, number: int, *words: str, wait: bool = False, latency: bool = False) -> int:
        """Give a trial's order; returns the slot."""
        order = {"do": "trial", "number": number, "path": str(self.path(number)), "config": content(*words),
                 "overrides": [*QUICK, *words], "parent": str(self.folder)}
        return self.pool.start({**order, "wait": wait, "measure": True, "latency": latency})

    def until(self, enough: Callable[[Event], bool], answer: Callable[[Epochs], dict[int, str]] = lambda _: {},
              timeout: float = 60) -> Event:
        """The first event that is `enough`; epochs are answered on the way."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = None
            for event in self.pool.events(0.2):
                self.heard.append(event)
                if isinstance(event, Epochs) and event.wait:
                    self.pool.answer(event.slot, answer(event))
                found = found or (event if enough(event) else None)
                assert found or not isinstance(event, Died), event
            if found is not None:
                return found
        raise AssertionError(f"not heard in time: {self.heard}")

    def done(self, number: int, **how: Any) -> Done:
        """The end of a trial."""
        event = self.until(lambda event: isinstance(event, Done) and event.number == number, **how)
        assert isinstance(event, Done)
        return event

    def ends(self, count: int) -> list[Done]:
        """The ends of so many trials."""
        while len(done := [event for event in self.heard if isinstance(event, Done)]) < count:
            self.until(lambda event: isinstance(event, Done))
        return done
