"""What a study says while it runs: a line per trial, or the live table."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import select
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuning.test_plan import planned
from trainctl.tuning import live
from trainctl.tuning.display import Board, Display
from trainctl.tuning.rows import Row

ROOT = Path(__file__).resolve().parents[2]


def row(number: int, state: str = "completed", values: tuple[float, ...] | None = (0.8312,), **more: Any) -> Row:
    params = {"optimizer.lr": 0.003, "model.dropout": 0.1}
    known = {"params": params, "words": [], "curve": {}, "why": None, "run": None, "host": None, "started": None}
    return Row(number, state, values=values, **{**known, "seconds": 1.234, **more})


def board(*rows: Row, total: int | None = 50) -> Board:
    made = Board(("val/auroc",), ("maximize",), total)
    made.load(rows)
    return made


def test_the_line_of_a_trial_that_completed() -> None:
    first = board(row(3, values=(0.841,)))
    assert first.line(row(7)) == (
        "trial 7/50  val/auroc 0.8312  best 0.8410 (trial 3)  optimizer.lr=0.003 model.dropout=0.1  1.2 s"
    )


def test_the_line_of_one_that_failed_or_was_stopped() -> None:
    failed = row(8, "failed", None, why="loss is nan at epoch 2\nstep 40 (lr 1)", run="runs/tune/a/trials/8")
    assert board().line(failed) == (
        "trial 8/50  failed: loss is nan at epoch 2 step 40 (lr 1) (see runs/tune/a/trials/8/train.log)"
    )
    stopped = row(9, "stopped", (0.5,), why="val/auroc 0.5 is below the median", curve={1: 0.4, 2: 0.5})
    assert board(total=None).line(stopped) == "trial 9  stopped at epoch 2: val/auroc 0.5 is below the median"
    assert board().line(stopped, {"epoch": 3}).startswith("trial 9/50  stopped at epoch 3: ")
    assert board().line(row(1, "failed", None)) == "trial 1/50  failed: no reason is known"


def test_no_line_is_longer_than_200_characters() -> None:
    many = row(7, params={f"model.a_long_name_{i}": 0.123456 for i in range(30)})
    line = board().line(many)
    assert len(line) <= 200 and line.endswith("...  1.2 s")
    failed = row(8, "failed", None, why="x" * 500, run="runs/8")
    line = board().line(failed)
    assert len(line) == 200 and line.endswith("... (see runs/8/train.log)")
    assert len(board().line(row(9, "stopped", None, why="y " * 500))) <= 200


def test_the_best_so_far_follows_the_direction() -> None:
    least = Board(("val/loss",), ("minimize",), 9)
    for number, value in enumerate([0.5, 0.3, 0.3, 0.4]):
        least.add(row(number, values=(value,)))
    least.add(row(4, "stopped", (0.4,)))
    least.add(row(5, "stopped", None))
    assert (least.best(), least.counts, least.ended) == ("best 0.3000 (trial 1)", {"completed": 4, "stopped": 2}, 6)
    least.add(row(9, "stopped", (0.1,)))
    assert least.best() == "best 0.1000 (trial 9)"


def test_several_objectives_have_a_front() -> None:
    both = Board(("val/auroc", "parameters"), ("maximize", "minimize"), None)
    for number, values in enumerate([(0.8, 100.0), (0.9, 200.0), (0.7, 150.0), (0.85, 100.0)]):
        both.add(row(number, values=values))
    assert sorted(number for _, number in both.front) == [1, 3]
    assert both.line(row(4, values=(0.6, 50.0))) == (
        "trial 4  val/auroc 0.6000  parameters 50.00  2 on the Pareto front  "
        "optimizer.lr=0.003 model.dropout=0.1  1.2 s"
    )


def test_points_that_have_no_objective_are_told_by_their_settings() -> None:
    grid = Board((), (), 4)
    assert grid.line(row(1, values=())) == "trial 1/4  optimizer.lr=0.003 model.dropout=0.1  1.2 s"
    measured = {"val/loss": 0.25, "val/accuracy": 0.9}
    assert grid.line(row(1, values=()), None, measured) == (
        "trial 1/4  val/loss 0.2500  optimizer.lr=0.003 model.dropout=0.1  1.2 s"
    )


RECIPE = SimpleNamespace(
    settings=SimpleNamespace(objectives=("val/auroc",), directions=("maximize",), timeout=None), budget=50
)


class Rows:
    """A study as the display sees it."""

    def __init__(self, *rows: Row) -> None:
        self.found = list(rows)

    def rows(self) -> list[Row]:
        return self.found


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("trainctl"), "propagate", True)
    caplog.set_level(logging.INFO, "trainctl")
    return caplog


def test_piped_each_trial_is_a_line_behind_the_plan(said: pytest.LogCaptureFixture) -> None:
    trial = SimpleNamespace(number=1, params={"optimizer.lr": 0.003}, words=[], retry=False)
    with Display(RECIPE, planned()) as display:
        display.update(Rows(row(0, values=(0.9,))), {})
        display.started([trial])
        display.epoch(1, {"epoch": 1}, 0.5)
        display.epoch(99, {"epoch": 1}, 0.5)
        display.finished(row(1), None)
    assert said.messages == [
        *planned().lines(),
        "trial 1/50  val/auroc 0.8312  best 0.9000 (trial 0)  optimizer.lr=0.003 model.dropout=0.1  1.2 s",
    ]


def drawn(width: int = 100, height: int = 30, encoding: str = "utf-8", running: int = 2) -> str:
    shown = board(row(0, values=(0.9,)), row(1, "failed", None))
    shown.running = {}
    display = Display(RECIPE, planned())
    display.board = shown
    params = {"optimizer.lr": 0.003, "model.hidden_dims": "[256,256,256]", "model.dropout": 0.25, "seed": 1}
    display.started([SimpleNamespace(number=n, params=params) for n in range(2, 2 + running)])
    for epoch in range(1, 9):
        display.epoch(2, {"epoch": epoch}, 0.1 * epoch)
    binary = io.BytesIO()
    stream = io.TextIOWrapper(binary, encoding=encoding)
    console = live.Terminal(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(live.draw(shown, 10, 75.0, console))
    stream.flush()
    return binary.getvalue().decode(encoding)


def test_the_live_table_shows_running_trials_and_progress() -> None:
    first, second, last = drawn().splitlines()
    assert first.split() == ["trial", "2", "optimizer.lr=0.003", "model.hidden_dim...", "epoch", "8/10", "▁▂▃▄▅▆▇█",
                             "0.8000"]  # fmt: skip
    assert second.split()[:2] == ["trial", "3"] and "starting" in second
    assert last.rstrip().endswith("2/50  1 failed  best 0.9000 (trial 0)  1 min 15 s left")


def test_it_fits_a_small_terminal_and_one_that_knows_ascii_only() -> None:
    lines = drawn(width=60, height=8, running=20).splitlines()
    assert len(lines) <= 8 and "and 17 more are running" in lines[3]
    assert all(len(line) <= 60 for line in lines)
    assert "_.,-~+*#" in drawn(encoding="ascii")


TERMINAL = """
import logging, os, sys, time
from trainctl.cli.app import log_to_stderr
from tests.tuning.test_display import RECIPE, Rows, planned, row
from trainctl.tuning.display import Display
from types import SimpleNamespace
log_to_stderr([])
with Display(RECIPE, planned()) as display:
    study = Rows()
    for number in range(6):
        display.started([SimpleNamespace(number=number, params={"optimizer.lr": 0.1})])
        display.update(study, {number: None})
        display.finished(row(number, "failed", None, why="loss is nan") if number == 1 else row(number))
        time.sleep(0.3)
        if number == 2:
            print("half", flush=True)
            sys.stdin.readline()
print("done", flush=True)
"""


class Screen:
    """A terminal that is read all the time, until it is closed."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.heard, self.closing = b"", threading.Event()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while not self.closing.is_set():
            with contextlib.suppress(OSError):
                if select.select([self.ours], [], [], 0.05)[0]:
                    self.heard += os.read(self.ours, 65536)

    def close(self) -> None:
        if not self.closing.is_set():
            self.closing.set()
            self.thread.join()
            os.close(self.ours)


@pytest.mark.parametrize("leaves", [False, True])
def test_on_a_terminal_failures_stand_above_the_table_and_a_lost_terminal_ends_nothing(leaves: bool) -> None:
    screen = Screen()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL], stderr=screen.theirs, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}, cwd=ROOT,
    )  # fmt: skip
    os.close(screen.theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    if leaves:
        screen.close()
    out, _ = process.communicate("\n", timeout=60)
    screen.close()
    assert (out, process.returncode) == ("done\n", 0)
    written = screen.heard.decode()
    assert "plan        50 trials" in written and "trial 1/50  failed: loss is nan" in written
    assert "best 0.8312 (trial 0)" in written and "trial 0/50" not in written
