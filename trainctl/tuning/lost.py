"""Trials whose process is gone: which they are, and how they come back into the queue."""

from __future__ import annotations

from collections.abc import Container, Iterable

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from trainctl.tuning import joining, rows
from trainctl.tuning.rows import GIVEN_BACK, OWNER
from trainctl.tuning.storage import Store


def dead(trials: Iterable[FrozenTrial], mine: Container[int], store: Store, study_id: int) -> list[FrozenTrial]:
    """Attempts that nobody works on: of processes that are gone, and such as were put back only by half.

    `mine` are the ids of this process's. A trial is marked in the section in which it begins, so that one without a
    mark is dead when it is seen inside that section.
    """
    found: list[FrozenTrial] = []
    far: dict[int, FrozenTrial] = {}
    for trial in trials:
        if rows.lost(trial):
            found.append(trial)
        elif trial.state == TrialState.RUNNING and trial._trial_id not in mine:
            alive = joining.alive(trial.user_attrs.get(OWNER))
            if alive is None:
                far[trial._trial_id] = trial
            elif not alive:
                found.append(trial)
    if far:
        tokens = {trial_id: str(trial.user_attrs[OWNER]["token"]) for trial_id, trial in far.items()}
        found += [far[trial_id] for trial_id in store.asleep(study_id, tokens)]
    return found


def requeue(storage: BaseStorage, study_id: int, trial_id: int, given_back: bool = False) -> bool:
    """Fail an attempt and queue its copy, inside the exclusive section; False when another process did.

    `given_back`: on purpose, which does not count as a loss.
    """
    trial = storage.get_trial(trial_id)
    try:
        if not trial.state.is_finished():
            if given_back:
                storage.set_trial_user_attr(trial_id, GIVEN_BACK, True)
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
            trial = storage.get_trial(trial_id)
        elif given_back:
            return False
    except UpdateFinishedTrialError:
        return False
    if rows.lost(trial):
        storage.create_new_trial(study_id, rows.copied(trial))
    return True
