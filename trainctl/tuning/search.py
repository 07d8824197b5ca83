"""The loop of a study: ask for trials, hand them to warm workers, tell the study how each ended.

The parent process that runs it never imports torch. It may be killed at any moment: the study's journal and the runs
say what is done, and a resumed study goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl.errors import SIGNALS, UsageError
from trainctl.run.files import shown
from trainctl.run.run import Run
from trainctl.tuning import groups
from trainctl.tuning.display import Display
from trainctl.tuning.facts import Facts
from trainctl.tuning.pool import Died, Done, Epochs, Event, Pool
from trainctl.tuning.recipe import Recipe
from trainctl.tuning.study import Study, Trial

log = logging.getLogger("trainctl")

TICK_S = 0.2
GRACE_S = 30.0  # for trials to stop after a signal
NOT_STACKED = ("tpe", "gp", "cmaes", "nsga2")  # learn from each trial: several at once teach them less


@dataclass
class Running:
    """A trial in a worker: where its run is, how many epochs it has at most, and since when it runs."""

    trial: Trial
    path: Path
    words: list[str]
    slot: int
    epochs: int | None
    began: float = field(default_factory=time.monotonic)
    advanced: bool = False  # it has done an epoch here


class Search:
    """One process's part in a study; `run()` returns when nothing is left to do for anybody, or it was stopped."""

    def __init__(
        self, run: Run, recipe: Recipe, study: Study, pool: Pool, facts: Facts, display: Display, folder: Path
    ) -> None:
        self.record, self.recipe, self.study, self.pool, self.display = run, recipe, study, pool, display
        self.folder = folder
        self.settings = recipe.settings
        self.executor, self.remark = chosen_executor(recipe, facts)
        self.running: dict[int, Running] = {}
        self.queue: deque[list[tuple[Trial, list[str], dict[str, Any]]]] = deque()
        self.signals: list[int] = []
        self.closing: str | None = None  # why no more trials are begun
        self.began = time.monotonic()

    def run(self) -> None:
        """Run trials until the study is finished; afterwards `signals` and `closing` say what ended it early."""
        with self._signals_noted():
            while not self._over():
                if self.closing is None:
                    self._fill()
                for event in self.pool.events(TICK_S):
                    self._handle(event)
                self.study.heartbeat()
                self._watch_the_clock()
                self.display.update(self.study, self.running)

    # Beginning trials

    def _fill(self) -> None:
        while self.pool.idle and (self.queue or self._ask()):
            self._start(self.queue.popleft())

    def _ask(self) -> bool:
        """Take trials from the study into the queue; False when there are none now."""
        count = 1 if self.executor == "pool" else self._stack_size()
        asked = []
        for trial in self.study.next_many(count):
            words = [*trial.words, *self.recipe.added]
            try:
                asked.append((trial, words, self.recipe.content(words)))
            except UsageError as error:
                self._failed(trial, words, None, str(error), 0.0)
        if self.executor == "pool":
            self.queue.extend([part] for part in asked)
        else:
            contents = [content for _, _, content in asked]
            self._say_once(groups.remark(contents))
            self.queue.extend([asked[i] for i in group] for group in groups.groups(contents, self.settings.stack))
        return bool(self.queue)

    def _say_once(self, remark: str | None) -> None:
        if remark is not None and self.remark is None:
            self.remark = remark
            log.info("%s", remark)

    def _stack_size(self) -> int:
        left = self.study.remaining()
        share = self.settings.stack if left is None else -(-left // max(1, self.pool.idle))
        return max(1, min(self.settings.stack, share))

    def _start(self, batch: list[tuple[Trial, list[str], dict[str, Any]]]) -> None:
        orders: list[dict[str, Any]] = []
        for trial, words, content in batch:
            path = self.folder / str(trial.number)
            orders.append({"number": trial.number, "path": str(path), "config": content, "overrides": words})
        shared = {
            "parent": str(self.record.path),
            "wait": self.settings.stopper["name"] != "none",
            "measure": self.recipe.searched,
            "latency": "latency_ms" in self.settings.objectives,
        }
        order = {"do": "trial", **orders[0]} if len(orders) == 1 else {"do": "group", "trials": orders}
        slot = self.pool.start({**order, **shared})
        for (trial, words, content), one in zip(batch, orders, strict=True):
            epochs = content["trainer"].get("max_epochs")
            self.running[trial.number] = Running(trial, Path(one["path"]), words, slot, epochs)
        self.display.started([trial for trial, _, _ in batch])

    # What workers tell

    def _handle(self, event: Event) -> None:
        if isinstance(event, Epochs):
            self._epochs(event)
        elif isinstance(event, Done):
            self._done(event)
        elif isinstance(event, Died):
            for number in event.numbers:
                current = self.running.pop(number, None)
                if current is not None:
                    self._lost(current, event.why)

    def _epochs(self, event: Epochs) -> None:
        stops: dict[int, str] = {}
        watched = self.settings.objectives[0] if self.settings.objectives else None
        for number, row in event.rows.items():
            current = self.running.get(number)
            if current is None:
                continue
            value = row.get(watched) if watched else row.get("val/loss")
            self.display.epoch(number, row, value)
            if current.trial.retry and not current.advanced:
                current.advanced = True
                self.study.advanced(current.trial)
            if self.settings.stopper["name"] != "none":
                epoch = int(row["epoch"])
                why = self.study.report(current.trial, epoch, value)
                if why and epoch != current.epochs:  # after its last epoch nothing is left to stop
                    stops[number] = why
        if event.wait:
            self.pool.answer(event.slot, stops)

    def _done(self, event: Done) -> None:
        current = self.running.pop(event.number, None)
        if current is None:
            return
        for note in event.notes:
            log.info("%s", note)
        if event.status == "stopped":
            self.study.give_back(current.trial)
        elif event.status == "failed":
            self._failed(current.trial, current.words, current.path, event.message, event.seconds)
        else:
            self._completed(current, event)

    def _completed(self, current: Running, event: Done) -> None:
        values = [event.metrics.get(name) for name in self.settings.objectives]
        run, cost = shown(current.path), (event.seconds, event.epochs or None)
        if event.halted:
            epoch, why = int(event.halted["epoch"]), str(event.halted["why"])
            # one that did not see all its folds or seeds has no mean over them
            part = self.settings.folds or self.settings.seeds
            self.study.stop(current.trial, epoch, why, None if part else values, run, *cost)
        else:
            self.study.complete(current.trial, values, run, *cost)
        self.display.finished(self.study.row(current.trial.number), event)

    def _failed(self, trial: Trial, words: list[str], path: Path | None, why: str, seconds: float) -> None:
        self.study.fail(trial, why, shown(path) if path else None, seconds)
        self.display.finished(self.study.row(trial.number), None)

    def _lost(self, current: Running, why: str) -> None:
        """The worker is gone: after a signal the trial goes back, else it failed for that reason."""
        if self.signals or self.closing:
            self.study.give_back(current.trial)
        else:
            self._failed(current.trial, current.words, current.path, why, time.monotonic() - current.began)

    # Ends

    def _over(self) -> bool:
        if self.running:
            return False
        return self.closing is not None or self.study.finished()

    def _watch_the_clock(self) -> None:
        now = time.monotonic()
        limit = self.settings.trial_timeout
        if limit is not None:
            together = Counter(current.slot for current in self.running.values())
            for current in list(self.running.values()):
                if now - current.began > limit * together[current.slot]:
                    self.pool.kill(current.slot, f"took longer than tune.trial_timeout ({limit:g} s)")
        if self.closing is None and self.signals:
            self._close(f"stopped by {signal.Signals(self.signals[0]).name}")
        elif self.closing is None and self.settings.timeout is not None and self.elapsed() >= self.settings.timeout:
            log.info("time is up (tune.timeout)")
            self._close("time is up")
        elif self.closing is not None and (len(self.signals) > 1 or now - self._closed_at > GRACE_S):
            for slot in {current.slot for current in self.running.values()}:
                self.pool.kill(slot, self.closing, at_once=True)

    def _close(self, why: str) -> None:
        """Begin nothing more; trials in flight save their place and go back to the queue."""
        self.closing, self._closed_at = why, time.monotonic()
        while self.queue:
            for trial, _, _ in self.queue.popleft():
                self.study.give_back(trial)
        self.pool.stop_all(self.signals[0] if self.signals else signal.SIGTERM)

    def elapsed(self) -> float:
        """Seconds that the study has run, earlier parts included."""
        return float(self.record.record.get("elapsed_s") or 0.0) + time.monotonic() - self.began

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """A signal is answered between two events, so that no record is left half-written."""
        previous = {signum: signal.signal(signum, lambda got, _: self.signals.append(got)) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def chosen_executor(recipe: Recipe, facts: Facts) -> tuple[str, str | None]:
    """`pool` or `vectorized`, and the line that says why nothing is stacked when stacking was asked for."""
    wanted, name = recipe.settings.executor, recipe.settings.sampler["name"]
    if wanted == "pool":
        return "pool", None
    reason = groups.why_not(recipe.content(recipe.trial_words(recipe.space.first()))) or facts.not_stackable
    if wanted == "vectorized":
        return ("pool", f"vectorized: runs on the pool: {reason}") if reason else ("vectorized", None)
    helps = facts.stacking_helps and name not in NOT_STACKED and (recipe.budget or 2) > 1
    return ("vectorized" if reason is None and helps else "pool"), None
