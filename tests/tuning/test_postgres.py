"""Studies in a real PostgreSQL: several processes share the work, and what one that is killed had is not lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import Postgres
from trainctl.run.run import Run

TRIALS = 10
WORK = (
    "tune", "data=synthetic", "data.rows=1000", "data.numeric=3", "data.categorical=0", "data.batch_size=64",
    "model=linear", "callbacks=none", "trainer.max_epochs=40", "trainer.threads=1", "tune.jobs=1", "sampler=random",
    "optimizer.lr=tag(log, interval(1e-3,1e-1))", "tune.executor=pool", f"tune.trials={TRIALS}", "tune.heartbeat=1",
    "tune.study=shared",
)  # fmt: skip
HERE = "from trainctl.cli.app import main; main()"
ELSEWHERE = f"import socket; socket.gethostname = lambda: 'elsewhere'; {HERE}"


def test_the_server_answers_and_every_database_is_new(postgres: Postgres) -> None:
    one, other = postgres.url(), postgres.url()
    assert one != other
    postgres.execute("CREATE TABLE trials (number INTEGER)", one)
    assert postgres.execute("SELECT count(*) FROM trials", one) == [(0,)]
    assert postgres.execute("SELECT current_setting('server_version_num')::int >= 120000", other) == [(True,)]


class Machine:
    """A folder of its own, and `trainctl tune` in it as a process group of its own."""

    def __init__(self, folder: Path, url: str, code: str = HERE) -> None:
        folder.mkdir()
        self.folder = folder
        command = [sys.executable, "-c", code, *WORK, f"tune.storage={url}", "--json"]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def wait(self) -> Any:
        """What it prints at its end, which must be a good one."""
        code = self.process.wait(120)
        assert code == 0, (self.folder / "err").read_text(encoding="utf-8")
        return json.loads((self.folder / "out").read_text(encoding="utf-8"))

    def trials(self, status: str) -> list[Run]:
        """The runs of its trials in a status."""
        records = self.folder.glob("runs/tune/*/trials/*/run.json")
        return [run for run in (Run.open(record.parent) for record in records) if run.status == status]

    def in_mid_trial(self) -> bool:
        """Whether a trial has told of a few epochs and is not at its end."""
        return any(2 <= len(run.metrics_log()) <= 30 for run in self.trials("running"))


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Processes that end with the test."""
    started: list[Machine] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.kill()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [HERE, ELSEWHERE], ids=["this machine", "another machine"])
def test_one_of_four_is_killed_and_every_trial_finishes_once(
    victim: str, postgres: Postgres, machines: list[Machine], tmp_path: Path
) -> None:
    url = postgres.url()
    machines += [Machine(tmp_path / str(number), url, HERE if number else victim) for number in range(4)]
    killed, *others = machines
    deadline = time.monotonic() + 60
    while not killed.in_mid_trial():
        assert time.monotonic() < deadline and killed.process.poll() is None, (killed.folder / "err").read_text()
        time.sleep(0.01)
    killed.kill()
    (lost,) = [int(run.path.name) for run in killed.trials("crashed") + killed.trials("running")]
    found = [one.wait() for one in others]

    assert all(study["counts"] == {"completed": TRIALS} for study in found)
    assert [trial["number"] for trial in found[0]["trials"]] == list(range(TRIALS))
    assert len({same(study["best"]) for study in found}) == 1
    finished = Counter(int(run.path.name) for one in machines for run in one.trials("completed"))
    assert finished == Counter(range(TRIALS))
    assert sum(f"trial {lost} was lost with its process" in told(one) for one in others) == 1
    states = "SELECT state::text, count(*) FROM trials GROUP BY state"
    assert dict(postgres.execute(states, url)) == {"COMPLETE": TRIALS, "FAIL": 1}


def same(trial: dict[str, Any]) -> str:
    """What every machine knows of a trial."""
    return json.dumps([trial[name] for name in ("number", "status", "values", "params", "overrides", "place")])


def told(machine: Machine) -> str:
    return (machine.folder / "err").read_text(encoding="utf-8")
