"""What a study shows while it runs, always on stderr: a live table on a terminal, a line per finished trial elsewhere.

Nothing that happens to the terminal can end a study.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainctl.durations import duration
from trainctl.tuning.ranking import ENDED_WELL, dominates
from trainctl.tuning.wording import LINE, clipped, named_values, settings, value_text

if TYPE_CHECKING:
    from trainctl.tuning.plan import Plan
    from trainctl.tuning.pool import Done
    from trainctl.tuning.recipe import Recipe
    from trainctl.tuning.rows import Row
    from trainctl.tuning.study import Study, Trial

log = logging.getLogger("trainctl")

_LOSS = "val/loss"
REFRESH_S = 0.25
RELOAD_S = 5.0  # between looks at what other processes did to the study, at least


@dataclass
class Watched:
    """A running trial as it is shown."""

    number: int
    words: str
    epoch: int | None = None
    curve: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


@dataclass
class Board:
    """What is known of a study at a moment: running trials, counts, and the best value or the Pareto front so far."""

    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    total: int | None
    running: dict[int, Watched] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    front: list[tuple[list[float], int]] = field(default_factory=list)  # (values, trial); one for one objective

    def load(self, rows: Iterable[Row]) -> None:
        """Take the counts and the best from a study's trials."""
        self.counts, self.front = {}, []
        for row in rows:
            if row.state in ("completed", "stopped", "failed"):
                self.add(row)

    def add(self, row: Row) -> None:
        """Count a trial that ended, and see whether it is the best."""
        self.counts[row.state] = self.counts.get(row.state, 0) + 1
        values = [value for value in row.values or [] if value is not None]
        if row.state not in ENDED_WELL or not values or len(values) < len(self.objectives):
            return
        signs = [-1.0 if way == "maximize" else 1.0 for way in self.directions] or [1.0]
        values = values[: len(signs)]
        if not any(dominates(best, values, signs) or best == values for best, _ in self.front):
            self.front = [pair for pair in self.front if not dominates(values, pair[0], signs)]
            self.front.append((values, row.number))

    @property
    def ended(self) -> int:
        """Trials that are over, well or not."""
        return sum(self.counts.values())

    def best(self) -> str:
        """`best 0.8410 (trial 3)`, or the size of the Pareto front."""
        if not self.front:
            return ""
        if len(self.objectives) > 1:
            return f"{len(self.front)} on the Pareto front"
        values, number = self.front[0]
        return f"best {value_text(values[0])} (trial {number})"

    def name(self, number: int) -> str:
        """`trial 7/50`, or `trial 7` when trials are not counted."""
        return f"trial {number}" if self.total is None else f"trial {number}/{self.total}"

    def line(
        self, row: Row, halted: Mapping[str, Any] | None = None, metrics: Mapping[str, float | None] | None = None
    ) -> str:
        """The line of a trial that ended, at most 200 characters.

        `halted` says at which epoch a stopper ended it; of `metrics` the loss is shown where nothing is searched.
        """
        name = self.name(row.number)
        if row.state == "failed":
            place = f" (see {row.run}/train.log)" if row.run else ""
            room = LINE - len(name) - len("  failed: ") - len(place)
            return f"{name}  failed: {clipped(row.why or 'no reason is known', room)}{place}"[:LINE]
        if row.state == "stopped":
            epoch = (halted or {}).get("epoch", max(row.curve, default=None))
            where = "" if epoch is None else f" at epoch {epoch}"
            return clipped(f"{name}  stopped{where}: {row.why or 'a weak trial'}", LINE)
        values = named_values(self.objectives, row.values or [])
        if not self.objectives and metrics and _LOSS in metrics:
            values = named_values([_LOSS], [metrics[_LOSS]])
        took = f"  {duration(row.seconds)}" if row.seconds is not None else ""
        told = "  ".join(part for part in (name, values, self.best()) if part)
        room = LINE - len(told) - len(took) - 2
        return clipped(told, LINE - len(took)) + (f"  {clipped(settings(row.params), room)}" if room > 8 else "") + took


class Display:
    """Shows a study; the search calls `started`, `epoch`, `finished` and, all the time, `update`."""

    def __init__(self, recipe: Recipe, plan: Plan, quiet: bool = False) -> None:
        self.plan = plan
        self.board = Board(recipe.settings.objectives, recipe.settings.directions, recipe.budget)
        self.epochs, self.timeout = plan.epochs, recipe.settings.timeout
        self.began = time.monotonic()
        self.fancy = not quiet and not sys.stderr.closed and sys.stderr.isatty()
        self._live: Any = None
        self._drawn = self._loaded = float("-inf")
        self._reload_s = RELOAD_S
        self._finished = 0  # in this process: an earlier part of the study says nothing of the speed

    def __enter__(self) -> Display:
        """Say the plan; on a terminal, begin the table."""
        for line in self.plan.lines():
            log.info("%s", line)
        if self.fancy:
            from trainctl.tuning.live import open_live

            self._live = open_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the table away."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError, ValueError):
                live.stop()

    def started(self, trials: Sequence[Trial]) -> None:
        """Trials were handed to a worker."""
        for trial in trials:
            self.board.running[trial.number] = Watched(trial.number, settings(trial.params))

    def epoch(self, number: int, row: Mapping[str, Any], value: float | None) -> None:
        """A trial finished an epoch; `row` is its line of metrics.jsonl."""
        watched = self.board.running.get(number)
        if watched is not None:
            watched.epoch = row.get("epoch", watched.epoch)
            if value is not None:
                watched.curve.append(value)

    def finished(self, row: Row, event: Done | None = None) -> None:
        """A trial is over."""
        self.board.running.pop(row.number, None)
        self.board.add(row)
        self._finished += 1
        text = self.board.line(row, event.halted, event.metrics) if event is not None else self.board.line(row)
        # beside the table, only what went wrong is worth a line
        log.log(logging.INFO if self._live is None or row.state == "failed" else logging.DEBUG, "%s", text)

    def update(self, study: Study, running: Mapping[int, Any]) -> None:
        """Redraw, at most four times a second."""
        now = time.monotonic()
        for number in [number for number in self.board.running if number not in running]:
            del self.board.running[number]
        if now - self._loaded >= self._reload_s:
            self.board.load(study.rows())
            self._loaded = time.monotonic()
            self._reload_s = max(RELOAD_S, 50 * (self._loaded - now))
        if self._live is None or now - self._drawn < REFRESH_S:
            return
        self._drawn = now
        from trainctl.tuning.live import draw

        with contextlib.suppress(OSError, ValueError):
            self._live.update(draw(self.board, self.epochs, self.left_s(), self._live.console), refresh=True)

    def left_s(self) -> float | None:
        """Seconds until the study ends, from how fast trials ended; None before the first."""
        spent = time.monotonic() - self.began
        guesses = []
        if self.timeout is not None:
            guesses.append(max(self.timeout - spent, 0.0))
        if self.board.total is not None and self._finished:
            guesses.append(spent / self._finished * max(self.board.total - self.board.ended, 0))
        return min(guesses, default=None)
