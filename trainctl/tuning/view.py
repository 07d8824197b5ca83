"""What can be read of a study: its rows, how many are in each state, the best, the Pareto front, what mattered."""

from __future__ import annotations

import warnings

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from trainctl.tuning.rows import Ledger, Row
from trainctl.tuning.samplers import NUMBER
from trainctl.tuning.storage import Store

_FOR_IMPORTANCES = 4  # completed trials
_TREES_X_TRIALS = 8000  # the work of a forest grows with both


class View:
    """A study as it is now in its storage; every look reads what is new there."""

    def __init__(
        self, store: Store, study: optuna.Study, objectives: tuple[str, ...], budget: int | None = None
    ) -> None:
        self.objectives, self._store, self._optuna, self._budget = objectives, store, study, budget
        self._ledger = Ledger()

    def row(self, number: int) -> Row:
        """One trial's row; KeyError when there is none."""
        self._refresh()
        return self._ledger.row(number)

    def rows(self) -> list[Row]:
        """One row for each trial that was begun, by number."""
        self._refresh()
        return self._ledger.rows()

    def counts(self) -> dict[str, int]:
        """How many trials are completed, stopped, failed, running and waiting to be begun again."""
        self._refresh()
        return self._ledger.counts()

    def remaining(self) -> int | None:
        """Trials that are still to be begun; None when only time ends the study."""
        self._refresh()
        if self._budget is None:
            return None
        waiting = self._ledger.counts()["waiting"]
        return max(0, self._budget - len(self._ledger)) + waiting

    def finished(self) -> bool:
        """Whether the budget is spent and no trial runs or waits anywhere."""
        return self.remaining() == 0 and not self._ledger.open

    def best(self) -> Row | None:
        """The best trial by the first objective, completed or stopped; the first of equals."""
        found = [row for row in self.rows() if row.values]
        if not found:
            return None
        sign = -1 if self._optuna.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
        return min(found, key=lambda row: sign * row.values[0] if row.values else 0.0)

    def pareto(self) -> list[Row]:
        """Completed trials that no other beats in every objective, by number."""
        self._refresh()
        with self._store.answering():
            numbers = {trial.user_attrs.get(NUMBER) for trial in self._optuna.best_trials}
        return [row for row in self._ledger.rows() if row.number in numbers and row.values]

    def importances(self) -> dict[str, float]:
        """Share of the first objective's variance that each dimension explains (fANOVA), largest first.

        Over dimensions that every trial has; empty for fewer than four completed trials or equal values.
        """
        done = [row for row in self.rows() if row.state == "completed" and row.values]
        values = [row.values[0] for row in done if row.values]
        if len(values) < _FOR_IMPORTANCES or len(set(values)) < 2:
            return {}
        tried = {row.params.get(name) for row in done for name in done[0].params}
        if all(len(row.params) == 1 for row in done) and None not in tried and len(tried) > 1:
            return dict.fromkeys(done[0].params, 1.0)  # a forest would take seconds to say so
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        trees = max(8, min(32, _TREES_X_TRIALS // len(values)))
        with warnings.catch_warnings(), self._store.answering():
            warnings.simplefilter("ignore")
            try:
                found = get_param_importances(
                    _placed(self._optuna),
                    evaluator=FanovaImportanceEvaluator(n_trees=trees, seed=0),
                    target=lambda trial: float(trial.values[0]),
                )
            except (RuntimeError, ValueError):  # no dimension has two values
                return {}
        return {name: float(share) for name, share in found.items()}

    def summary(self) -> str:
        """`12 of 50 trials done (1 failed), best val/loss 0.31 by trial 7`."""
        counts, best = self.counts(), self.best()
        done = counts["completed"] + counts["stopped"] + counts["failed"]
        text = f"{done} of {self._budget} trials done" if self._budget is not None else f"{done} trials done"
        if counts["failed"]:
            text += f" ({counts['failed']} failed)"
        if best is not None and best.values:
            text += f", best {self.objectives[0]} {best.values[0]:.4g} by trial {best.number}"
        return text

    def close(self) -> None:
        """Give back files and connections."""
        self._store.close()

    def _refresh(self) -> None:
        with self._store.answering():
            self._ledger.take(self._store.changed(self._optuna._study_id))


def _placed(study: optuna.Study) -> optuna.Study:
    """The completed trials with each choice as its place among the choices.

    fANOVA makes a column of each choice and goes through all their combinations: with 32 choices it never ends.
    """
    found = optuna.create_study(storage=InMemoryStorage(), directions=study.directions)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        params, kinds = dict(trial.params), dict(trial.distributions)
        for name, kind in trial.distributions.items():
            if isinstance(kind, CategoricalDistribution):
                params[name] = kind.choices.index(params[name])
                kinds[name] = IntDistribution(0, len(kind.choices) - 1)
        found.add_trial(create_trial(params=params, distributions=kinds, values=trial.values))
    return found
