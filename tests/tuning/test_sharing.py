"""Studies that several commands work on: processes, databases, journals elsewhere; what is not the same is refused."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
import time
from pathlib import Path

import pytest

from tests.tuning.studies import GRID, LR, MIXED, Settings, begin, done, finish, finish_all, killed, points, shared
from trainctl.errors import ResourceError, UsageError
from trainctl.tuning import database
from trainctl.tuning.space import Space
from trainctl.tuning.study import Study

# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["-", "sqlite"])
def test_three_processes_of_which_some_are_killed_do_every_trial_once(kind: str, tmp_path: Path) -> None:
    storage = "-" if kind == "-" else f"sqlite:///{tmp_path}/study.db"
    chance = random.Random(1)
    processes = [begin(tmp_path, storage) for _ in range(3)]
    for kill in (1, 3, 6):
        while len(done(tmp_path)) < kill:
            time.sleep(0.01)
        time.sleep(0.1 * chance.random())
        victim = processes.pop(chance.randrange(3))
        victim.kill()
        victim.wait()
        processes.append(begin(tmp_path, storage))
    assert [process.wait(60) for process in processes] == [0, 0, 0], (tmp_path / "err").read_text()
    assert len(set(done(tmp_path))) == len(done(tmp_path))
    study = Study.open(tmp_path, shared(storage), MIXED)
    assert study.finished()
    assert [(row.number, row.state) for row in study.rows()] == [(number, "completed") for number in range(12)]
    assert all(list(row.curve) == [1, 2, 3] for row in study.rows())
    undisturbed = Study.create(tmp_path / "undisturbed", shared("-"), MIXED)
    finish_all(undisturbed)
    assert points(study) == points(undisturbed)
    study.close()


# Databases


def test_a_database_returns_the_trials_of_a_machine_whose_heartbeat_stopped(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    killed(tmp_path, f"shared({storage!r}),MIXED", host="elsewhere")
    study = Study.open(tmp_path, shared(storage), MIXED)
    assert study.counts()["running"] == 1
    assert study.recover() == []
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-7 seconds')")
    connection.close()
    assert study.recover() == [0]
    trial = study.next()
    assert trial is not None and (trial.number, trial.retry) == (0, True)
    study.heartbeat()
    finish(study, trial)
    finish_all(study)
    assert study.finished()
    study.close()


def test_a_study_without_a_name_is_found_by_what_it_is(tmp_path: Path) -> None:
    settings = Settings(storage=f"sqlite:///{tmp_path}/study.db", trials=2)
    one, same = (Study.create(tmp_path / name, settings, MIXED) for name in "ab")
    other = Study.create(tmp_path / "c", dataclasses.replace(settings, seed=8), MIXED)
    first, second = one.next(), same.next()
    assert first is not None and second is not None and (first.number, second.number) == (0, 1)
    assert [study.remaining() for study in (one, same, other)] == [0, 0, 2]
    for study in (one, same, other):
        study.close()


@pytest.mark.parametrize(
    ("storage", "error", "sentence"),
    [
        (
            "postgresql://me:secret@127.0.0.1:1/db",
            ResourceError,
            "storage postgresql at 127.0.0.1:1 does not answer: Connection refused; start it or check `tune.storage`",
        ),
        (
            "sqlite:////no/such/folder/study.db",
            ResourceError,
            "storage `/no/such/folder/study.db` does not answer: unable to open database file; start it or check "
            "`tune.storage`",
        ),
        (
            "redis://me:secret@host/0",
            UsageError,
            "`tune.storage` begins with `redis://`, which is no storage; have: journal://, postgresql://, mysql://, "
            "mariadb://, sqlite://",
        ),
        ("here", UsageError, "`tune.storage` must be null or a URL such as postgresql://user@host/database"),
        (
            "postgresql://me:secret@host",
            UsageError,
            "`tune.storage` names no database; give one, as in postgresql://user@host/database",
        ),
        (
            "mysql+absent://me:secret@host/db",
            UsageError,
            "`tune.storage=mysql://...` needs `mysql+absent`; run `pip install 'mysql+absent'`",
        ),
        (
            "postgresql+pg8000://me:secret@host/db",
            UsageError,
            "`tune.storage=postgresql://...` needs `pg8000`; run `pip install 'pg8000'`",
        ),
    ],
)
def test_a_storage_that_cannot_be_is_a_sentence(
    storage: str, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        Study.create(tmp_path, Settings(storage=storage), MIXED)
    assert str(caught.value) == sentence


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    assert database.file_system(tmp_path / "a", mounts) == "nfs4"
    assert database.file_system(tmp_path.parent, mounts) == "ext4"
    monkeypatch.setattr(database, "MOUNTS", mounts)
    with pytest.raises(UsageError) as caught:
        Study.create(tmp_path, Settings(storage=f"sqlite:///{tmp_path}/study.db"), MIXED)
    assert str(caught.value) == (
        f"SQLite loses data on a network file system, and `{tmp_path}/study.db` is on nfs4; use "
        f"`tune.storage=journal://{tmp_path}/study.log` or a database server"
    )


def test_a_journal_elsewhere(tmp_path: Path) -> None:
    settings = Settings(storage=f"journal://{tmp_path}/shared/study.log", trials=2)
    one, other = (Study.create(tmp_path / name, settings, MIXED) for name in "ab")
    assert [finish(study, study.next()).number for study in (one, other)] == [0, 1]
    assert one.finished()


# The same study


@pytest.mark.parametrize(
    ("settings", "space", "difference"),
    [
        (
            Settings(),
            Space((MIXED.dimensions[0], dataclasses.replace(LR, low=1e-3), *MIXED.dimensions[2:]), MIXED.fixed),
            "the study has optimizer.lr in [0.0001, 0.1] (log), this command optimizer.lr in [0.001, 0.1] (log)",
        ),
        (
            Settings(),
            Space(MIXED.dimensions[:3], MIXED.fixed),
            "the study has model.width in [16, 64] (log), this command no model.width",
        ),
        (
            Settings(),
            Space((dataclasses.replace(MIXED.dimensions[0], choices=("mlp",)), *MIXED.dimensions[1:]), MIXED.fixed),
            "the study has model one of mlp, resmlp, this command model one of mlp",
        ),
        (Settings(), Space(MIXED.dimensions, ("data=wine",)), "the study has data=iris, this command data=wine"),
        (Settings(seed=8), MIXED, "the study has seed=7, this command seed=8"),
        (
            Settings(sampler={"name": "tpe"}),
            MIXED,
            "the study has sampler.name=random, this command sampler.name=tpe",
        ),
        (
            Settings(stopper={"name": "asha", "reduction_factor": 3}),
            MIXED,
            "the study has stopper.name=none, this command stopper.name=asha",
        ),
        (
            Settings(objectives=("val/auroc",)),
            MIXED,
            "the study has objectives=val/loss, this command objectives=val/auroc",
        ),
        (
            Settings(),
            Space((*MIXED.dimensions[:1], MIXED.dimensions[2], LR, MIXED.dimensions[3]), MIXED.fixed),
            "the study has order=model, optimizer.lr, model.dropout, model.width, this command order=model, "
            "model.dropout, optimizer.lr, model.width",
        ),
    ],
)
def test_another_study_under_the_same_name_is_refused(
    settings: Settings, space: Space, difference: str, tmp_path: Path
) -> None:
    Study.create(tmp_path, Settings(), MIXED).close()
    with pytest.raises(UsageError) as caught:
        Study.open(tmp_path, settings, space)
    assert str(caught.value) == f"{difference}; use the same words, or another `tune.study=`"
    Study.open(tmp_path, dataclasses.replace(Settings(), trials=99), MIXED)  # a budget is no difference


def test_many_choices_are_compared_and_not_written_out(tmp_path: Path) -> None:
    def wide(last: str) -> Space:
        choices = (*map(str, range(19)), last)
        return Space((dataclasses.replace(GRID.dimensions[0], choices=choices),), ())

    Study.create(tmp_path, Settings(), wide("19")).close()
    with pytest.raises(UsageError, match=r"^the study has a one of 20 values \(sha256 [0-9a-f]{8}\), this command a "):
        Study.open(tmp_path, Settings(), wide("20"))
