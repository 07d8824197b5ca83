"""A study's trials as a user counts them: one row for each, however often it was lost and begun again.

Optuna cannot put a running trial back into its queue. A trial whose process died becomes a failed one, and a copy that
waits takes its place; all copies carry the number of the first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from trainctl.tuning.samplers import NUMBER

Value = str | float | int

OWNER, WORDS, END = "owner", "words", "end"  # user attributes
LOSSES, ADVANCED, GIVEN_BACK = "losses", "advanced", "given_back"
STATES = ("completed", "stopped", "failed", "running", "waiting")
MAX_LOSSES = 3  # times that a trial whose process died is begun again without having come further
NAMES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Row:
    """What is known of one trial: `values` in the order of the objectives, `curve` by epoch, `why` it failed or was
    stopped, `started` as ISO time."""

    number: int
    state: str  # one of STATES
    params: dict[str, Value]
    words: list[str]
    values: tuple[float, ...] | None
    curve: dict[int, float]
    why: str | None
    run: str | None
    host: str | None
    started: str | None
    seconds: float | None
    epochs: int | None = None  # over all its folds or seeds


class Ledger:
    """The latest attempt of each trial, kept up to date from what changed; looks cost the same for any number."""

    def __init__(self) -> None:
        self._latest: dict[int, FrozenTrial] = {}
        self._rows: dict[int, Row] = {}
        self._states: Counter[str] = Counter()
        self.open: dict[int, FrozenTrial] = {}  # trials that run, wait or were lost, by number

    def __len__(self) -> int:
        return len(self._latest)

    def take(self, trials: Iterable[FrozenTrial]) -> None:
        """Note trials that changed, older attempts first."""
        for trial in trials:
            number = trial.user_attrs.get(NUMBER)
            if number is None:
                continue  # somebody else's trial in a shared storage
            before = self._latest.get(number)
            if before is not None:
                if before._trial_id > trial._trial_id:
                    continue
                self._states[state(before)] -= 1
            now = state(trial)
            self._states[now] += 1
            self._latest[number] = trial
            self._rows.pop(number, None)
            if now in ("running", "waiting"):
                self.open[number] = trial
            else:
                self.open.pop(number, None)

    def waiting(self) -> list[FrozenTrial]:
        """Trials in the queue, by number."""
        found = [trial for trial in self.open.values() if trial.state == TrialState.WAITING]
        return sorted(found, key=lambda trial: int(trial.user_attrs[NUMBER]))

    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        return {name: self._states[name] for name in STATES}

    def row(self, number: int) -> Row:
        """One trial's row; KeyError when there is none."""
        found = self._rows.get(number)
        if found is None:
            found = self._rows[number] = _row(self._latest[number])
        return found

    def rows(self) -> list[Row]:
        """Every trial's row, by number."""
        return [self.row(number) for number in sorted(self._latest)]


def state(trial: FrozenTrial) -> str:
    """A trial's state in a user's words; one that was lost waits for its next attempt."""
    return "waiting" if lost(trial) else NAMES[trial.state]


def lost(trial: FrozenTrial) -> bool:
    """Whether an attempt ended without failing for a reason of its own, and may be begun again."""
    attributes = trial.user_attrs
    if trial.state != TrialState.FAIL or attributes.get(END, {}).get("state") == "failed":
        return False
    given = attributes.get(GIVEN_BACK) or attributes.get(ADVANCED)
    return bool(given) or int(attributes.get(LOSSES, 0)) < MAX_LOSSES


def copied(trial: FrozenTrial) -> FrozenTrial:
    """A waiting copy of a lost attempt, as Optuna's own retries are made; a half-made proposal is made anew."""
    attributes = trial.user_attrs
    kept = {key: attributes[key] for key in (NUMBER, WORDS) if key in attributes}
    losses = 0 if attributes.get(ADVANCED) else int(attributes.get(LOSSES, 0))
    losses += 0 if attributes.get(GIVEN_BACK) else 1
    proposed = WORDS in attributes
    system = dict(trial.system_attrs) if proposed else {}
    history = [*trial.system_attrs.get("retry_history", []), trial.number]
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params if proposed else {},
        distributions=trial.distributions if proposed else {},
        user_attrs={**kept, LOSSES: losses},
        system_attrs={**system, "failed_trial": history[0], "retry_history": history},
        intermediate_values=trial.intermediate_values if proposed else {},
    )


def finite(values: Sequence[float | None] | None) -> list[float] | None:
    """The values as floats when all of them are numbers, else None."""
    if values is None or any(value is None or not math.isfinite(value) for value in values):
        return None
    return [float(value) for value in values if value is not None]


def _row(trial: FrozenTrial) -> Row:
    attributes = trial.user_attrs
    owner: dict[str, Any] = attributes.get(OWNER) or {}
    end: dict[str, Any] = attributes.get(END) or {}
    now = state(trial)
    end = end if end.get("state") == now else {}  # else it was lost while its end was written
    why = end.get("why")
    if now == "failed" and why is None:
        why = f"its process died {MAX_LOSSES + 1} times, the last one as pid {owner.get('pid')} on {owner.get('host')}"
    return Row(
        int(attributes[NUMBER]),
        now,
        dict(trial.params),
        list(attributes.get(WORDS, [])),
        tuple(end["values"]) if end.get("values") is not None else None,
        dict(trial.intermediate_values),
        why,
        end.get("run"),
        owner.get("host"),
        trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
        end.get("seconds"),
        end.get("epochs"),
    )
