"""Small trained runs that the tests of `evaluate` and `predict` read, made once by the real command line."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainctl.run import directory
from trainctl.run.run import Run

QUICK = ("trainer.max_epochs=2", "trainer.threads=1", "data.batch_size=64")


@dataclass(frozen=True)
class Folder:
    """A folder with data and runs: `folder("evaluate", run, ...)` is (exit code, stdout, stderr) of the command."""

    path: Path

    def __call__(self, *words: Any) -> tuple[int, str, str]:
        from trainctl.cli import app

        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.path), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.run([str(word) for word in words])
        return code, out.getvalue(), err.getvalue()

    def done(self, *words: Any) -> Run:
        """The run that a command made, which must have ended well."""
        code, _, err = self(*words)
        assert code == 0, err
        return self.latest(str(words[0]))

    def latest(self, verb: str) -> Run:
        """The last run of a verb."""
        return Run.open(directory.resolve(self.path / "runs", f"latest:{verb}"))


def rows_of(count: int, seed: int = 0) -> Iterator[str]:
    """Lines of a table: age, wage, sex and two targets, `rich` (no or yes) and `price`."""
    draw = random.Random(seed)
    for _ in range(count):
        age, wage, sex = draw.randint(18, 80), draw.gauss(20, 5), draw.choice(["f", "m"])
        price = 3 * wage + age + draw.gauss(0, 5)
        rich = "yes" if wage + draw.gauss(0, 3) > 20 else "no"
        yield f"{age},{wage:.3f},{sex},{rich},{price:.2f}"


def write_table(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV of `count` rows."""
    path.write_text("age,wage,sex,rich,price\n" + "\n".join(rows_of(count, seed)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with table.csv (600 rows) and new.csv (90 rows)."""
    path = tmp_path_factory.mktemp("verbs")
    write_table(path / "table.csv", 600)
    write_table(path / "new.csv", 90, seed=1)
    return Folder(path)


@pytest.fixture(scope="module")
def train(folder: Folder) -> Callable[..., Run]:
    """Trains on table.csv: `train("data.target=rich")`."""
    return lambda *words: folder.done("train", "data=tabular", "data.path=table.csv", "model=linear", *QUICK, *words)


@pytest.fixture(scope="module")
def classes(train: Callable[..., Run]) -> Run:
    """A run with the target `rich`; the other target is no column of it."""
    return train("data.target=rich", "+data.columns.price=drop")


@pytest.fixture(scope="module")
def numbers(train: Callable[..., Run]) -> Run:
    """A run with the target `price`."""
    return train("data.target=price", "+data.columns.rich=drop")
