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
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
BEST = 50  # of them, whatever their age: twice as many as tpe takes for good ones at most


class Recent:
    """A study of one objective whose finished trials are its latest and its best, once there are many.

    As it is when it is first looked at: for the proposal of one trial.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._seen: list[FrozenTrial] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Optuna's, by which its samplers look at a study; without copies, and without trials that failed."""
        if self._seen is None:
            self._seen = self._chosen(self._study._get_trials(deepcopy=False))
        return [trial for trial in self._seen if states is None or trial.state in states]

    def _chosen(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        finished = [trial for trial in trials if trial.state in _FINISHED]
        if len(finished) <= LEARNED_FROM:
            return trials
        early = len(finished) - LEARNED_FROM + BEST
        sign = -1.0 if self._study.direction == StudyDirection.MAXIMIZE else 1.0
        done = [(sign * t.values[0], k) for k, t in enumerate(finished[:early]) if t.state == TrialState.COMPLETE]
        best = [finished[k] for _, k in sorted(heapq.nsmallest(BEST, done), key=lambda pair: pair[1])]
        return [*best, *(trial for trial in trials if trial.state == TrialState.RUNNING), *finished[early:]]


def recent(study: Study) -> Study:
    """The study to learn from; one of several objectives as it is, since its front may be of any age."""
    return study if study._is_multi_objective() else cast("Study", Recent(study))
