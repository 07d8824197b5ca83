"""What tpe learns from in a long study."""

from __future__ import annotations

import warnings
from typing import Literal

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from trainctl.tuning.recent import BEST, LEARNED_FROM, recent

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def studied(direction: Literal["minimize", "maximize"], trials: int) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for k in range(trials):
        value, lr = (37 * k % 1009) / 1009, FloatDistribution(0, 1)
        state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)[0 if k % 7 else (1 if k % 2 else 2)]
        values = value if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=values, params={"lr": value}, distributions={"lr": lr}))
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_latest_and_the_best_are_seen_in_their_order(direction: Literal["minimize", "maximize"]) -> None:
    study = studied(direction, 1000)
    seen = recent(study)._get_trials(deepcopy=False, states=FINISHED)
    every = study._get_trials(deepcopy=False, states=FINISHED)
    assert len(seen) == LEARNED_FROM < len(every)
    assert seen[BEST:] == every[-LEARNED_FROM + BEST :]
    early = [trial for trial in every[: -LEARNED_FROM + BEST] if trial.state == TrialState.COMPLETE]
    best = sorted(early, key=lambda trial: trial.values[0], reverse=direction == "maximize")[:BEST]
    assert seen[:BEST] == sorted(best, key=lambda trial: trial.number)


def test_trials_that_run_are_seen_however_old_they_are() -> None:
    study = studied("minimize", 1000)
    running = {trial.number for trial in study._get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    seen = recent(study)._get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
    assert running <= {trial.number for trial in seen} and len(seen) == LEARNED_FROM + len(running)


def test_a_short_study_and_a_front_are_seen_whole() -> None:
    short = studied("minimize", LEARNED_FROM)
    assert recent(short)._get_trials(deepcopy=False) == short._get_trials(deepcopy=False)
    front = optuna.create_study(directions=["minimize", "maximize"])
    assert recent(front) is front


def test_the_same_trials_are_taken_for_good_ones() -> None:
    from optuna.samplers._tpe.sampler import _split_trials, default_gamma

    study = studied("minimize", 900)
    view, every = recent(study), study._get_trials(deepcopy=False, states=FINISHED)
    seen = view._get_trials(deepcopy=False, states=FINISHED)
    below = [_split_trials(study, trials, default_gamma(len(trials)))[0] for trials in (every, seen)]
    assert len(below[0]) == 25 and below[0] == below[1]


def test_optuna_proposes_from_the_view() -> None:
    study = studied("minimize", 900)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
        trial = study.ask()._cached_frozen_trial
        view = recent(study)
        space = sampler.infer_relative_search_space(view, trial)
        assert 0 <= sampler.sample_relative(view, trial, space)["lr"] <= 1
