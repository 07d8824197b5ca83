"""A long study as a sampler sees it that learns from every trial: what it takes does not grow with the study."""

from __future__ import annotations

import heapq
from collections.abc import Container
from typing import TYPE_CHECKING, Any, cast

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from optuna.study import Study

LEARNED_FROM = 250  # finished trials
BEST = 50  # of them, whatever their age: twice as many as tpe takes for good ones at most


class Recent:
    """A study of one objective whose finished trials are its latest and its best, once there are many.

    As it is when it is first looked at: for the proposal of one trial.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._found: dict[str, list[FrozenTrial]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Optuna's, by which its samplers look at a study."""
        asked = str(states)
        if asked not in self._found:
            self._found[asked] = self._chosen(self._study._get_trials(deepcopy, states, use_cache))
        return self._found[asked]

    def _chosen(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        if len(trials) <= LEARNED_FROM:
            return trials
        latest = len(trials) - LEARNED_FROM + BEST
        sign = -1.0 if self._study.direction == StudyDirection.MAXIMIZE else 1.0
        early = [(trial.state, trial) for trial in trials[:latest]]
        done = [(sign * cast(float, trial.value), k) for k, (s, trial) in enumerate(early) if s == TrialState.COMPLETE]
        kept = {k for _, k in heapq.nsmallest(BEST, done)}
        return [t for k, (s, t) in enumerate(early) if k in kept or s == TrialState.RUNNING] + trials[latest:]


def recent(study: Study) -> Study:
    """The study to learn from; one of several objectives as it is, since its front may be of any age."""
    return study if study._is_multi_objective() else cast("Study", Recent(study))
