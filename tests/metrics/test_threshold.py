from __future__ import annotations

import pytest
import torch
from sklearn import metrics as sk

from trainctl.errors import DataError, UsageError
from trainctl.metrics import threshold


@pytest.mark.parametrize("objective", ["f1", "balanced_accuracy", "youden", "auto"])
@pytest.mark.parametrize("ties", [False, True])
def test_no_other_threshold_is_better(objective: str, ties: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(100, generator=generator) < 0.2).long()
    score = (torch.randn(100, generator=generator) + y).sigmoid()
    if ties:
        score = (score * 10).round() / 10
    probs = torch.stack([1 - score, score], 1)
    measure = sk.f1_score if objective == "f1" else sk.balanced_accuracy_score
    chosen = threshold.best(probs, y, objective)
    assert 0 < chosen < 1
    best = max(measure(y, score >= cut) for cut in score)
    assert measure(y, score >= chosen) == pytest.approx(best)


def test_all_positive_can_be_best() -> None:
    probs = torch.tensor([[0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    assert threshold.best(probs, torch.tensor([1, 1, 0]), "f1") == pytest.approx(0.25)


def test_one_class_gives_no_threshold() -> None:
    with pytest.raises(DataError) as caught:
        threshold.best(torch.rand(4, 2), torch.ones(4, dtype=torch.long), "f1")
    assert str(caught.value) == (
        "the validation split has rows of one class only; set `evaluate.threshold` to a number"
    )


def test_what_may_be_asked_for() -> None:
    assert threshold.check(None, 5) is None
    assert threshold.check(0.3, 2) == 0.3
    assert threshold.check("youden", 2) == "youden"
    for value, num_classes, sentence in (
        (0.3, 3, "`evaluate.threshold` is for two classes, this run has 3"),
        ("auto", 0, "`evaluate.threshold` is for two classes, this run has a number as target"),
        (1.5, 2, "`evaluate.threshold` must be a number between 0 and 1 or one of auto, f1, balanced_accuracy,"
                 " youden, got 1.5"),
        ("yuden", 2, "`evaluate.threshold` must be a number between 0 and 1 or one of auto, f1, balanced_accuracy,"
                     " youden, got 'yuden'; did you mean `youden`?"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            threshold.check(value, num_classes)
        assert str(caught.value) == sentence
