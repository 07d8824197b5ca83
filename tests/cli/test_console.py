from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import trainctl
from trainctl.cli.console import Table, emit, emit_error, emit_json

ROOT = str(Path(trainctl.__file__).parents[1])
LOUD = """
import sys
from trainctl.cli.console import Table, emit, emit_json
for number in range(20_000):
    emit(Table(["metric", "val"], [["accuracy", "0.9"]]), f"run: {number}")
emit_json({"a": 1})
print("went on", file=sys.stderr)
"""


def test_plain_tables_are_aligned_lines(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Table(["name", "value"], [["a", "1.5"], ["long name", "10"]], title="T", figures=(1,)), "done", "two\nlines")
    assert capsys.readouterr().out == "T\nname       value\na            1.5\nlong name     10\ndone\ntwo\nlines\n"


def test_a_table_without_titles_has_no_empty_line() -> None:
    assert Table(["", ""], [["status", "completed"]]).lines() == ["status  completed"]
    assert Table(["a"], []).lines() == ["a"]


def test_control_characters_cannot_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Table(["\x1b[31m"], [["a\nb\x07"]]), "x\x1b]0;title\x07 [bold]not markup[/bold]")
    assert capsys.readouterr().out == ("\\x1b[31m\na\\nb\\x07\nx\\x1b]0;title\\x07 [bold]not markup[/bold]\n")


def test_errors_are_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    emit_error("no run `x\ny`")
    assert capsys.readouterr() == ("", "trainctl: error: no run `x\\ny`\n")


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"é": None})
    assert json.loads(capsys.readouterr().out) == {"é": None}
    with pytest.raises(ValueError):
        emit_json({"x": float("nan")})


def test_what_the_stream_cannot_encode_is_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    emit(Table(["é"], [["→ 你"]]), stream=stream)
    assert stream.buffer.getvalue() == b"\\xe9\n\\u2192 \\u4f60\n"


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    emit("text", stream=stream)


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}, {"LANG": "C", "PYTHONIOENCODING": "ascii"}])
def test_a_reader_that_left_ends_nothing(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOUD],
        env={**os.environ, **environment, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"went on\n"
    process.stderr.close()
    assert process.wait() == 0


def test_a_full_disk_behind_stdout_ends_nothing() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", LOUD], env={**os.environ, "PYTHONPATH": ROOT}, stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (0, b"went on\n")


@pytest.mark.parametrize(("term", "fancy"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_terminal_gets_a_rich_table_without_markup(term: str, fancy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(follower, "w", encoding="utf-8") as terminal:
        emit(Table(["metric", "val"], [["[red]x[/red]", "0.9"]], title="[b]", figures=(1,)), stream=terminal)
        written = screen.read(65536).decode()
    assert "[red]x[/red]" in written and "[b]" in written
    assert ("─" in written) is fancy


def test_an_ascii_terminal_gets_an_ascii_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(follower, "w", encoding="ascii") as terminal:
        emit(Table(["metric"], [["é"]]), stream=terminal)
        assert "\\xe9" in screen.read(65536).decode("ascii")


def test_on_a_narrow_terminal_one_column_gives_way_and_the_others_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "44")
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(follower, "w", encoding="utf-8") as terminal:
        rows = [["train/2026-11-20_18-35-40", "model=mlp data=tabular"]]
        emit(Table(["run", "overrides"], rows, gives_way=1), stream=terminal)
        lines = screen.read(65536).decode().splitlines()
    assert [line.split() for line in lines if "train" in line] == [["train/2026-11-20_18-35-40", "model=mlp", "data=…"]]
