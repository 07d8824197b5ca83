"""Stoppers: weak trials are ended while they run, with a reason in a user's words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuning.studies import MIXED, Settings
from trainctl.errors import UsageError
from trainctl.tuning import stoppers
from trainctl.tuning.study import Study, Trial

CONF = Path(__file__).parents[2] / "conf" / "stopper"
EPOCHS = 9


def options(name: str, **changed: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changed}


def run(study: Study, trial: Trial, value: float) -> str | None:
    """Train for nine epochs at one value; the stopper's reason."""
    for epoch in range(1, EPOCHS + 1):
        why = study.report(trial, epoch, value)
        if why is not None:
            study.stop(trial, epoch, why, [value], None, float(epoch))
            return why
    study.complete(trial, [value], None, float(EPOCHS))
    return None


def ended(folder: Path, values: list[float], directions: tuple[str, ...] = ("minimize",), **stopper: Any) -> list[Any]:
    study = Study.create(folder, Settings(stopper=stopper, directions=directions, trials=len(values)), MIXED)
    found = []
    for value in values:
        trial = study.next()
        assert trial is not None
        found.append(run(study, trial, value))
    return found


def test_none_stops_nothing_and_keeps_the_curves(tmp_path: Path) -> None:
    assert ended(tmp_path, [0.1, 0.9], **options("none")) == [None, None]
    assert Study.open(tmp_path).row(1).curve == dict.fromkeys(range(1, EPOCHS + 1), 0.9)


def test_median(tmp_path: Path) -> None:
    found = ended(tmp_path, [0.1, 0.2, 0.3, 0.15, 0.9], **options("median", n_startup_trials=3, n_warmup_steps=4))
    assert found == [None, None, None, None, "median: val/loss 0.9 at epoch 4 shows a trial worse than the median"]


def test_asha(tmp_path: Path) -> None:
    found = ended(tmp_path, [0.5, 0.1, 0.52345, 0.05], **options("asha"))
    assert found == [None, None, "asha: val/loss 0.5234 is not in the best third at epoch 1", None]
    row = Study.open(tmp_path).row(2)
    assert (row.state, row.values, row.seconds, row.curve) == ("stopped", (0.52345,), 1.0, {1: 0.52345})
    assert row.why == found[2]


def test_asha_where_more_is_better(tmp_path: Path) -> None:
    found = ended(tmp_path, [0.9, 0.5, 0.95], ("maximize",), **options("asha", reduction_factor=2))
    assert found == [None, "asha: val/loss 0.5 is not in the best half at epoch 1", None]


def test_hyperband(tmp_path: Path) -> None:
    values = [0.5, 0.1, 0.9, 0.8, 0.7, 0.95, 0.6, 0.85, 0.99, 0.75]
    found = ended(tmp_path, values, **options("hyperband", max_resource=EPOCHS))
    assert found[1] is None
    assert "hyperband: val/loss 0.95 is not in the best third of its bracket at epoch 1" in found


def test_what_is_no_number_or_was_said_before_is_not_judged(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(stopper=options("asha")), MIXED)
    first, second = study.next_many(2)
    run(study, first, 0.1)
    assert study.report(second, 1, math.nan) is None
    assert study.report(second, 1, None) is None
    assert study.report(second, 1, 0.9) is not None
    assert study.report(second, 1, 0.9) is None
    assert study.row(1).curve == {1: 0.9}


@pytest.mark.parametrize(
    ("node", "objectives", "sentence"),
    [
        ({"name": "ahsa"}, 1, "no stopper `ahsa`; have: none, median, asha, hyperband; did you mean `asha`?"),
        ({"name": "asha"}, 2, "`stopper=asha` takes one objective, the study has 2; use `stopper=none`"),
        ({"name": "asha", "reduction": 3}, 1, "`stopper.reduction`: `stopper=asha` has no such option; "
                                              "did you mean `reduction_factor`?"),
        ({"name": "median", "interval_steps": 0}, 1, "`stopper=median`: Pruning interval steps must be at least 1, "
                                                     "but got interval_steps=0."),
    ],
)  # fmt: skip
def test_a_stopper_that_cannot_be_is_a_sentence(node: dict[str, Any], objectives: int, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        stoppers.make(node, objectives)
    assert str(caught.value) == sentence
