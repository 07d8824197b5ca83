"""The live table of a study, drawn by rich; imported only where stderr is a terminal."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainctl.durations import duration
from trainctl.tuning.wording import ASCII_BLOCKS, BLOCKS, clipped, sparkline, value_text

if TYPE_CHECKING:
    from trainctl.tuning.display import Board, Watched

_MOST = 16  # running trials in the table; large stacks have more


class Terminal(Console):
    """A console on stderr that lives on when its reader is gone (rich would end the process)."""

    def on_broken_pipe(self) -> None:
        """Nothing: the study matters, not the picture of it."""


def open_live(console: Console | None = None) -> Live:
    """An empty table that redraws when told to; lines that are logged meanwhile appear above it."""
    console = console or Terminal(stderr=True)
    live = Live(console=console, transient=True, auto_refresh=False, redirect_stdout=False)
    with contextlib.suppress(OSError, ValueError):
        live.start()
    return live


def draw(board: Board, epochs: int | None, left_s: float | None, console: Console) -> Any:
    """The table as it is now, no higher than the terminal."""
    most = max(1, min(_MOST, console.height - 5))
    blocks = BLOCKS if console.encoding.lower().startswith("utf") else ASCII_BLOCKS
    watched = sorted(board.running.values(), key=lambda one: one.number)
    table = Table.grid(padding=(0, 2))
    for column in range(5):
        table.add_column(justify="right" if column in (2, 4) else "left", no_wrap=True, overflow="ellipsis")
    for one in watched[:most]:
        table.add_row(*(Text(cell) for cell in cells(one, epochs, blocks, max(10, console.width - 62))))
    parts: list[Any] = [table] if watched else []
    if len(watched) > most:
        parts.append(Text(f"and {len(watched) - most} more are running"))
    return Group(*parts, progress(board, left_s))


def cells(watched: Watched, epochs: int | None, blocks: str, width: int) -> list[str]:
    """Number, words, epoch, curve and last value of a running trial."""
    total = "" if epochs is None else f"/{epochs}"
    epoch = "starting" if watched.epoch is None else f"epoch {watched.epoch}{total}"
    last = value_text(watched.curve[-1]) if watched.curve else duration(time.monotonic() - watched.began)
    return [
        f"trial {watched.number}",
        clipped(watched.words, width),
        epoch,
        sparkline(watched.curve, blocks=blocks),
        last,
    ]


def progress(board: Board, left_s: float | None) -> Any:
    """A bar, how many trials ended and how, the best so far, and the time left."""
    told = [f"{board.ended}/{board.total}" if board.total is not None else f"{board.ended} done"]
    told += [f"{number} {state}" for state, number in board.counts.items() if state != "completed"]
    told += [board.best()] if board.front else []
    told += [f"{duration(left_s)} left"] if left_s is not None else []
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=board.total, completed=board.ended, width=24), Text("  ".join(told)))
    return row
