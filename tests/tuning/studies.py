"""Studies for tests: a small space, settings, and a process that works on a study until it is finished.

`python -m tests.tuning.studies FOLDER STORAGE` works; it writes a line per finished trial to FOLDER/done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl.tuning.space import Dimension, Point, Space, Value
from trainctl.tuning.study import Study, Trial

ROOT = Path(__file__).parents[2]


class Conditional(Space):
    """`model.width` exists for `model=mlp` only."""

    def point(self, choose: Callable[[Dimension], Value]) -> Point:
        point: Point = {}
        for dimension in self.dimensions:
            if dimension.name != "model.width" or point["model"] == "mlp":
                point[dimension.name] = choose(dimension)
        return point


@dataclass(frozen=True)
class Settings:
    """As trainctl.tuning.settings has them."""

    objectives: tuple[str, ...] = ("val/loss",)
    directions: tuple[str, ...] = ("minimize",)
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "random"})
    stopper: dict[str, Any] = field(default_factory=lambda: {"name": "none"})
    seed: int = 7
    trials: int | None = 12
    storage: str | None = None
    study_name: str | None = None
    heartbeat: float = 1.0


LR = Dimension("optimizer.lr", "float", low=1e-4, high=0.1, log=True)
MIXED = Conditional(
    (
        Dimension("model", "choice", ("mlp", "resmlp")),
        LR,
        Dimension("model.dropout", "float", low=0.0, high=0.5, step=0.1),
        Dimension("model.width", "int", low=16, high=64, log=True),
    ),
    ("data=iris",),
)
GRID = Space((Dimension("a", "choice", ("1", "2", "3")), Dimension("b", "choice", ("x", "y", "z"))), ())


def shared(storage: str) -> Settings:
    """The settings of `work`; `-` is the journal."""
    return Settings(trials=12, storage=None if storage == "-" else storage, study_name="shared")


def begin(folder: Path, storage: str) -> subprocess.Popen[bytes]:
    """Start a process that works on the study."""
    command = [sys.executable, "-m", "tests.tuning.studies", str(folder), storage]
    with open(folder / "err", "ab") as err:
        return subprocess.Popen(command, cwd=ROOT, stderr=err)


def done(folder: Path) -> list[int]:
    """Numbers of the trials that the processes completed."""
    path = folder / "done"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def finish(study: Study, trial: Trial | None, value: float = 0.5) -> Trial:
    """The trial, completed with a value."""
    assert trial is not None
    study.complete(trial, [value], f"runs/{trial.number}", 1.5)
    return trial


def finish_all(study: Study) -> list[int]:
    """Complete what is left; the numbers in their order."""
    found = []
    while (trial := study.next()) is not None:
        found.append(finish(study, trial).number)
    return found


def points(study: Study) -> list[dict[str, Any]]:
    """What every trial tried."""
    return [row.params for row in study.rows()]


def killed(folder: Path, settings: str, count: int = 1, host: str | None = None) -> None:
    """A process, as on another machine when `host` is given, takes `count` trials and is killed with -9."""
    code = (
        "import os,signal,socket,sys;from pathlib import Path;from tests.tuning.studies import *;"
        "from trainctl.tuning.study import Study\n"
        + (f"socket.gethostname=lambda:{host!r}\n" if host else "")
        + f"study=Study.create(Path(sys.argv[1]),{settings})\n"
        f"for _ in range({count}): trial=study.next(); study.report(trial,1,0.25)\n"
        "os.kill(os.getpid(),signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def work(folder: Path, storage: str) -> None:
    """Run trials of 0.15 s until the study is finished."""
    study = Study.create(folder, shared(storage), MIXED)
    while not study.finished():
        study.heartbeat()
        trial = study.next()
        if trial is None:
            time.sleep(0.05)
            continue
        for epoch in (1, 2, 3):
            time.sleep(0.05)
            study.report(trial, epoch, 1 / epoch)
        study.complete(trial, [trial.params["optimizer.lr"]], None, 0.15)
        with open(folder / "done", "a") as file:
            file.write(f"{trial.number}\n")
    study.close()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    work(Path(sys.argv[1]), sys.argv[2])
