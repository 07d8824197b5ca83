"""What a study says while it runs: the plan, a line per trial, the live table."""

from __future__ import annotations

import contextlib
import functools
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

from trainctl.tuning import live, plan, wording
from trainctl.tuning.dimensions import Dimension
from trainctl.tuning.display import Board, Display
from trainctl.tuning.rows import Row
from trainctl.tuning.space import Space, parse

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def space() -> Space:
    words = ["model=mlp,resmlp", "optimizer.lr=tag(log, interval(1e-4,1e-1))", "model.num_blocks=range(1,5)"]
    return parse("train", [*words, "data=synthetic"], None)


def row(number: int, state: str = "completed", values: tuple[float, ...] | None = (0.8312,), **more: Any) -> Row:
    params = {"optimizer.lr": 0.003, "model.dropout": 0.1}
    known = {"params": params, "words": [], "curve": {}, "why": None, "run": None, "host": None, "started": None}
    return Row(number, state, values=values, **{**known, "seconds": 1.234, **more})


def board(*rows: Row, total: int | None = 50) -> Board:
    made = Board(("val/auroc",), ("maximize",), total)
    made.load(rows)
    return made


def planned(**more: Any) -> plan.Plan:
    dimensions = tuple(plan.described(space()))
    known: dict[str, Any] = {
        "searched": True, "trials": 50, "objectives": ("val/auroc",), "directions": ("maximize",), "sampler": "tpe",
        "stopper": "none", "dimensions": dimensions, "jobs": 2, "executor": "pool", "remark": None, "epochs": 10,
        "runs": 1, "epoch_s": 0.8, "timeout": None, "disk": 120_000_000, "free": 45_000_000_000, "folder": "runs/tune",
    }  # fmt: skip
    return plan.Plan(**{**known, **more})


def test_the_plan_says_what_will_be_done_and_what_it_takes() -> None:
    assert planned().lines() == [
        "plan        50 trials, sampler tpe, maximize val/auroc",
        "dimensions  model             mlp, resmlp",
        "            optimizer.lr      1e-4 to 0.1 (log)",
        "            model.num_blocks  1 to 4 (int)  (only for model=resmlp)",
        "workers     2",
        "time        0.8 s an epoch, 10 epochs a training, about 3 min 20 s in all",
        "disk        about 120 MB, 45 GB free",
        "runs        runs/tune",
    ]


def test_the_plan_of_a_grid_with_folds_and_a_reason_against_stacking() -> None:
    remark = "vectorized: runs on the pool: batch normalisation"
    lines = planned(searched=False, trials=4, dimensions=(), remark=remark, epoch_s=None, epochs=1, disk=None).lines()
    assert lines == [
        "plan        4 points, each trained once",
        "workers     2",
        "            vectorized: runs on the pool: batch normalisation",
        "time        1 epoch a training",
        "disk        45 GB free",
        "runs        runs/tune",
    ]


def test_a_time_that_a_stopper_or_a_limit_shortens_is_a_bound() -> None:
    assert "at most 3 min 20 s in all" in planned(stopper="asha").lines()[5]
    short = planned(timeout=60.0, runs=5, trials=None)
    assert short.lines()[0] == "plan        trials until time is up, 5 trainings each, sampler tpe, maximize val/auroc"
    assert short.lines()[5] == "time        0.8 s an epoch, 10 epochs a training, at most 1 min 00 s in all"
    assert (planned().to_json()["estimate_s"], short.to_json()["estimate_s"]) == (200.0, 60.0)


@pytest.mark.parametrize(("dimension", "text"), [
    (Dimension("m", "choice", tuple("abcdefghij")), "10 choices: a, b, c, d, e, f, g, h, i, j"),
    (Dimension("d", "float", low=0, high=0.5), "0 to 0.5"),
    (Dimension("d", "float", low=0, high=1, step=0.25), "0 to 1 (step 0.25)"),
    (Dimension("n", "int", low=16, high=1024, log=True), "16 to 1024 (log, int)"),
])
def test_values_of_a_dimension(dimension: Dimension, text: str) -> None:
    assert plan.values_text(dimension) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.84096, "0.8410"), (1.0, "1.000"), (0.0, "0.000"), (12.3456, "12.35"), (1250.0, "1250"), (1234567.0, "1234567"),
    (12345.67, "12346"), (3.2137e-6, "3.214e-06"), (-0.5, "-0.5000"), (None, "-"), (float("inf"), "inf"),
])
def test_a_value_has_four_significant_digits(value: float | None, text: str) -> None:
    assert wording.value_text(value) == text


@pytest.mark.parametrize(("name", "value", "text"), [
    ("optimizer.lr", 0.0031234567, "optimizer.lr=0.003123"), ("optimizer.lr", 1.5e-5, "optimizer.lr=1.5e-5"),
    ("model.width", 64, "model.width=64"), ("model.hidden_dims", "[64,64]", "model.hidden_dims=[64,64]"),
    ("data.rows", 123456.7, "data.rows=123457"), ("zip(a,b)", "a=1 b=2", "a=1 b=2"), ("@trials.csv", "a=1", "a=1"),
])
def test_a_setting_is_short(name: str, value: float | str, text: str) -> None:
    assert wording.setting(name, value) == text


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert wording.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert wording.sparkline([3.0, float("nan"), 3.0]) == "▁▁"
    assert wording.sparkline([]) == ""
    assert wording.sparkline([*range(20)], width=4, blocks=wording.ASCII_BLOCKS) == "_,+#"


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
    least.add(row(9, "stopped", (0.1,)))
    assert (least.best(), least.counts, least.ended) == ("best 0.3000 (trial 1)", {"completed": 4, "stopped": 1}, 5)


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
    assert Board((), (), 4).line(row(1, values=())) == "trial 1/4  optimizer.lr=0.003 model.dropout=0.1  1.2 s"


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
