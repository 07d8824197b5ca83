"""Studies: numbers, the queue, trials of dead processes, several processes, databases, and what can be read."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.studies import GRID, LR, MIXED, Settings, finish, finish_all, killed, points
from trainctl.errors import RunError, UsageError
from trainctl.run import machine
from trainctl.tuning.space import Dimension, Space
from trainctl.tuning.study import Study

GRID_SETTINGS = Settings(sampler={"name": "grid"}, trials=9)


# Numbers and ends


def test_trials_have_numbers_words_and_values_until_the_budget_is_spent(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(trials=3), MIXED)
    assert (study.remaining(), study.finished(), study.best()) == (3, False, None)
    trials = study.next_many(5)
    assert [trial.number for trial in trials] == [0, 1, 2]
    first = trials[0]
    assert first.words == MIXED.words(first.params) and first.words[0] == "data=iris"
    assert not first.retry
    assert (study.remaining(), study.finished()) == (0, False)
    study.report(first, 1, 0.75)
    study.complete(first, [0.5], "runs/a", 2.0)
    study.stop(trials[1], 2, "asha: weak", [0.75], "runs/b", 1.0)
    study.fail(trials[2], "exploded", "runs/c", 0.5)
    assert study.counts() == {"completed": 1, "stopped": 1, "failed": 1, "running": 0, "waiting": 0}
    assert study.finished()
    assert study.next() is None
    row = study.row(0)
    assert (row.state, row.values, row.curve, row.run, row.seconds) == ("completed", (0.5,), {1: 0.75}, "runs/a", 2.0)
    assert (row.host, row.words) == (machine.host(), first.words)
    assert [row.why for row in study.rows()] == [None, "asha: weak", "exploded"]
    assert study.summary() == "3 of 3 trials done (1 failed), best val/loss 0.5 by trial 0"
    assert Study.open(tmp_path).rows() == study.rows()


def test_a_trial_without_a_value_failed(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(objectives=("val/auroc",), directions=("maximize",)), MIXED)
    one, other = study.next_many(2)
    study.complete(one, [math.nan], "runs/a", 1.0)
    study.complete(other, [None], "runs/b", 1.0)
    assert [(row.state, row.why) for row in study.rows()] == [("failed", "val/auroc is undefined")] * 2


def test_a_study_without_objectives_runs_every_point(tmp_path: Path) -> None:
    settings = dataclasses.replace(GRID_SETTINGS, objectives=(), directions=())
    study = Study.create(tmp_path, settings, GRID, GRID.points())
    while (trial := study.next()) is not None:
        study.complete(trial, [], None, 1.0)
    assert {row.values for row in study.rows()} == {()}
    assert (study.best(), study.pareto(), study.importances(), study.finished()) == (None, [], {}, True)


def test_a_point_that_cannot_be_is_a_failed_trial(tmp_path: Path) -> None:
    class Picky(Space):
        def words(self, point: dict[str, Any]) -> list[str]:
            if point["optimizer.lr"] > 0.01:
                raise UsageError("too fast")
            return super().words(point)

    study = Study.create(tmp_path, Settings(trials=8), Picky((LR,), ()))
    completed = finish_all(study)
    failed = [row for row in study.rows() if row.state == "failed"]
    assert len(failed) + len(completed) == 8
    assert {row.why for row in failed} == {"too fast"}


def test_no_budget_ends_never(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(trials=None), MIXED)
    finish(study, study.next())
    assert (study.remaining(), study.finished(), study.summary()) == (
        None,
        False,
        "1 trials done, best val/loss 0.5 by trial 0",
    )


def test_a_grid_is_given_out_in_order_and_may_be_longer_than_the_budget(tmp_path: Path) -> None:
    study = Study.create(tmp_path, dataclasses.replace(GRID_SETTINGS, trials=4), GRID)
    assert finish_all(study) == [0, 1, 2, 3]
    study = Study.open(tmp_path, GRID_SETTINGS, GRID)
    study.extend(GRID.points())
    assert (study.remaining(), finish_all(study)) == (5, [4, 5, 6, 7, 8])
    assert points(study) == GRID.points()


def test_a_thousand_points_are_begun_at_once(tmp_path: Path) -> None:
    digits = tuple("0123456789")
    space = Space(tuple(Dimension(name, "choice", digits) for name in "abc"), ())
    study = Study.create(tmp_path, dataclasses.replace(GRID_SETTINGS, trials=1000), space)
    began = time.process_time()
    assert len(study.next_many(1000)) == 1000
    assert time.process_time() - began < 2
    assert points(study) == [dict(zip("abc", each, strict=True)) for each in itertools.product(digits, repeat=3)]


# What is lost comes back


def test_a_trial_that_is_given_back_is_begun_again_under_its_number(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(trials=2), MIXED)
    first, second = study.next_many(2)
    for _ in range(5):  # that is no loss
        study.give_back(first)
        assert (study.counts()["waiting"], study.remaining(), study.finished()) == (1, 1, False)
        again = study.next()
        assert again is not None
        assert (again.number, again.params, again.words, again.retry) == (0, first.params, first.words, True)
        first = again
    finish(study, first)
    finish(study, second)
    study.give_back(second)  # it ended
    assert [row.state for row in study.rows()] == ["completed"] * 2


def test_trials_of_a_killed_process_come_back_with_their_curves(tmp_path: Path) -> None:
    killed(tmp_path, "Settings(),MIXED", 2)
    study = Study.open(tmp_path, Settings(), MIXED)
    assert study.counts()["running"] == 2
    assert study.recover() == [0, 1]
    assert study.recover() == []
    assert [row.state for row in study.rows()] == ["waiting"] * 2
    assert finish_all(study) == list(range(12))
    assert study.row(0).curve == {1: 0.25}
    undisturbed = Study.create(tmp_path / "undisturbed", Settings(), MIXED)
    finish_all(undisturbed)
    assert points(study) == points(undisturbed)


def test_a_proposal_that_was_made_by_half_is_made_anew(tmp_path: Path) -> None:
    class Fatal(Space):
        def point(self, choose: Any) -> dict[str, Any]:
            choose(self.dimensions[0])
            raise KeyboardInterrupt

    study = Study.create(tmp_path, Settings(), Fatal(MIXED.dimensions, MIXED.fixed))
    with pytest.raises(KeyboardInterrupt):
        study.next()
    study.close()
    finish_all(study := Study.open(tmp_path, Settings(), MIXED))
    finish_all(undisturbed := Study.create(tmp_path / "undisturbed", Settings(), MIXED))
    assert points(study) == points(undisturbed)


def test_a_trial_that_kills_its_process_each_time_fails(tmp_path: Path) -> None:
    for _ in range(4):
        killed(tmp_path, "Settings(trials=1),MIXED")
        study = Study.open(tmp_path, Settings(trials=1), MIXED)
        study.recover()
        study.close()
    row = Study.open(tmp_path).row(0)
    assert (row.state, row.values) == ("failed", None)
    assert row.why is not None and row.why.startswith("its process died 4 times, the last one as pid ")
    assert Study.open(tmp_path, Settings(trials=1), MIXED).finished()


def test_a_trial_that_comes_further_each_time_is_begun_again(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(trials=1), MIXED)
    for _ in range(8):
        trial = study.next()
        assert trial is not None and trial.number == 0
        if trial.retry:
            study.advanced(trial)
        study.close()  # its trials count as lost
        study = Study.open(tmp_path, Settings(trials=1), MIXED)
        assert study.recover() == [0]


def test_what_a_slow_process_found_after_another_took_over_is_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Study.create(tmp_path, Settings(trials=1), MIXED)
    trial = slow.next()
    assert trial is not None
    slow.close()  # from now on its trials count as lost
    late = Study.open(tmp_path, Settings(trials=1), MIXED)
    assert late.recover() == [0]
    slow = Study.open(tmp_path, Settings(trials=1), MIXED)
    assert slow.report(trial, 1, 0.5) == "another process took it over"
    slow.complete(trial, [0.1], None, 1.0)
    assert caplog.messages == ["trial 0 was taken over by another process; what this one found is not counted"]
    finish(late, late.next(), 0.7)
    assert late.row(0).values == (0.7,)


def test_another_machine_that_shows_no_sign_of_life_loses_its_trials(tmp_path: Path) -> None:
    killed(tmp_path, "Settings(),MIXED", host="elsewhere")
    study = Study.open(tmp_path, Settings(), MIXED)
    assert study.row(0).host == "elsewhere"
    assert study.recover() == []  # it may only be slow
    for sign in (tmp_path / "journal.alive").iterdir():
        os.utime(sign, (time.time() - 200, time.time() - 200))
    assert study.recover() == [0]
    finish_all(study)
    assert study.finished()


# What can be read


def test_what_is_no_study_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        Study.open(tmp_path)
    assert str(caught.value) == f"`{tmp_path}` holds no study: it has no journal.log"
    (tmp_path / "journal.log").touch()
    with pytest.raises(RunError) as caught:
        Study.open(tmp_path)
    assert str(caught.value) == f"`{tmp_path}` holds no study: its journal.log is empty"
    assert Study.open(tmp_path, Settings(), MIXED).remaining() == 12  # killed before its first word


def test_best_front_and_importances(tmp_path: Path) -> None:
    study = Study.create(tmp_path, dataclasses.replace(GRID_SETTINGS, directions=("maximize",)), GRID)
    assert study.importances() == {}
    while (trial := study.next()) is not None:
        study.complete(trial, [float(trial.params["a"]) + (trial.params["b"] == "y") / 10], None, 1.0)
    best = study.best()
    assert best is not None and (best.number, best.params) == (7, {"a": "3", "b": "y"})
    assert study.pareto() == [best]
    shares = study.importances()
    assert list(shares) == ["a", "b"] and shares["a"] > 0.9 and abs(sum(shares.values()) - 1) < 1e-6


def test_trials_of_a_study_have_their_choices_in_memory_once(tmp_path: Path) -> None:
    study = Study.create(tmp_path, GRID_SETTINGS, GRID)
    finish_all(study)
    for name in ("a", "b"):
        assert len({id(t.distributions[name]) for t in study._optuna.get_trials(deepcopy=False)}) == 1


def test_importances_of_a_long_list_of_choices(tmp_path: Path) -> None:
    space = Space((Dimension("a", "choice", tuple(str(k) for k in range(40))), Dimension("b", "choice", ("x",))), ())
    study = Study.create(tmp_path, dataclasses.replace(GRID_SETTINGS, trials=40), space)
    while (trial := study.next()) is not None:
        study.complete(trial, [float(trial.params["a"])], None, 1.0)
    assert study.importances() == {"a": 1.0, "b": 0.0}


def test_a_single_dimension_explains_all(tmp_path: Path) -> None:
    space = Space((Dimension("a", "choice", ("1", "2", "3", "4")),), ())
    study = Study.create(tmp_path, dataclasses.replace(GRID_SETTINGS, trials=4), space)
    for value in (1.0, 3.0, 2.0, 5.0):
        assert study.importances() == {}
        trial = study.next()
        assert trial is not None
        study.complete(trial, [value], None, 1.0)
    assert study.importances() == {"a": 1.0}


def test_the_front_of_two_objectives(tmp_path: Path) -> None:
    two = dataclasses.replace(GRID_SETTINGS, objectives=("val/loss", "parameters"), directions=("minimize",) * 2)
    study = Study.create(tmp_path, two, GRID)
    for values in ([1.0, 9.0], [2.0, 5.0], [3.0, 6.0], [9.0, 1.0], [1.0, 9.5]):
        trial = study.next()
        assert trial is not None
        assert study.report(trial, 1, values[0]) is None
        study.complete(trial, values, None, 1.0)
    study.next()
    assert [row.number for row in study.pareto()] == [0, 1, 3]
    assert study.importances()


def test_equal_values_explain_nothing(tmp_path: Path) -> None:
    study = Study.create(tmp_path, GRID_SETTINGS, GRID)
    finish_all(study)
    assert study.importances() == {}
    best = study.best()
    assert best is not None and best.number == 0
