"""What a run's weights gave is made once, for what it depends on, and of few runs at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainctl.verbs import restore
from trainctl.verbs.once import Once


def test_few_are_held_and_those_asked_for_last(tmp_path: Path) -> None:
    runs: list[Any] = [SimpleNamespace(path=tmp_path / str(number)) for number in range(3)]
    for run in runs:
        run.path.mkdir()
        (run.path / restore.WEIGHTS).write_bytes(b"weights")
    once, made = Once[str](held=2), list[str]()

    def ask(number: int, *also: str) -> str:
        return once.of(runs[number], lambda: made.append(f"{number}{also}") or f"{number}{also}", *also)

    assert [ask(0), ask(1), ask(0), ask(2), ask(0)] == ["0()", "1()", "0()", "2()", "0()"]
    assert made == ["0()", "1()", "2()"]
    ask(1)
    assert made[3:] == ["1()"], "it had been let go"
    assert ask(1, "val") == "1('val',)" and len(made) == 5, "another split is another thing"


def test_without_weights_nothing_is_held(tmp_path: Path) -> None:
    run, once = SimpleNamespace(path=tmp_path), Once[object]()
    assert once.of(run, object) is not once.of(run, object)  # type: ignore[arg-type]
    (tmp_path / restore.WEIGHTS).write_bytes(b"weights")
    assert once.of(run, object) is once.of(run, object)  # type: ignore[arg-type]
