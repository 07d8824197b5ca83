from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from trainctl.errors import DivergedError
from trainctl.metrics import names
from trainctl.metrics.classification import classification, confusion, labels, warnings


def predictions(rows: int, classes: int, ties: bool = False, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=generator)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(rows), y] += 1
    if ties:
        logits = logits.round()
    return logits.softmax(1), y


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equals_scikit_learn(classes: int, ties: bool) -> None:
    probs, y = predictions(500, classes, ties)
    found = classification(probs, y, [str(i) for i in range(classes)])
    label, average = probs.argmax(1), "binary" if classes == 2 else "macro"
    areas = range(1, 2) if classes == 2 else range(classes)
    expected = {
        "accuracy": sk.accuracy_score(y, label),
        "balanced_accuracy": sk.balanced_accuracy_score(y, label),
        "precision": sk.precision_score(y, label, average=average),
        "recall": sk.recall_score(y, label, average=average),
        "f1": sk.f1_score(y, label, average=average),
        "auroc": np.mean([sk.roc_auc_score(y == i, probs[:, i]) for i in areas]),
        "auprc": np.mean([sk.average_precision_score(y == i, probs[:, i]) for i in areas]),
        "log_loss": sk.log_loss(y, probs),
        "brier": sk.brier_score_loss(y, probs[:, 1] if classes == 2 else probs),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert confusion(probs, y) == sk.confusion_matrix(y, label).tolist()


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_error_equals_torchmetrics(classes: int) -> None:
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    probs, y = predictions(400, classes)
    theirs = (
        binary_calibration_error(probs[:, 1].contiguous(), y, n_bins=15)
        if classes == 2
        else multiclass_calibration_error(probs, y, num_classes=classes, n_bins=15)
    )
    assert classification(probs, y)["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_quick_measures_only_the_cheap_ones() -> None:
    probs, y = predictions(100, 2)
    quick = classification(probs, y, full=False)
    assert list(quick) == ["accuracy", "auroc"]
    assert quick == {name: classification(probs, y)[name] for name in quick}
    assert list(classification(probs, y, only=["f1"])) == ["f1"]
    assert list(classification(probs, y, only=["log_loss", "auprc"])) == ["log_loss", "auprc"]


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_one_class_only_gives_null_and_one_sentence(classes: tuple[str, ...]) -> None:
    probs, _ = predictions(20, len(classes))
    y = torch.zeros(20, dtype=torch.long)
    found = classification(probs, y, classes)
    defined = {name for name, value in found.items() if value is not None}
    assert defined == {"accuracy", "log_loss", "brier", "ece"}
    assert warnings(y, classes, found) == [
        f"every row has the class '{classes[0]}'; balanced_accuracy, precision, recall, f1, auroc, auprc"
        " undefined with one class; written as null"
    ]


def test_class_without_rows_is_left_out_of_averages_and_said() -> None:
    probs, y = predictions(200, 3)
    keep = y != 1
    probs, y = probs[keep], y[keep]
    found = classification(probs, y, ("a", "b", "c"))
    expected = np.mean([sk.roc_auc_score(y == i, probs[:, i]) for i in (0, 2)])
    assert found["auroc"] == pytest.approx(expected)
    assert found["f1"] == pytest.approx(sk.f1_score(y, probs.argmax(1), average="macro"))
    assert warnings(y, ("a", "b", "c"), found) == ["no row has the class 'b'; averages over classes leave it out"]


def test_precision_of_a_class_never_predicted_is_null() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    y = torch.tensor([0, 1, 0])
    found = classification(probs, y, ("no", "yes"))
    assert (found["precision"], found["recall"], found["f1"]) == (None, 0.0, 0.0)
    assert warnings(y, ("no", "yes"), found) == [
        "the class 'yes' is never predicted; precision undefined; written as null"
    ]


def test_no_rows_is_all_null() -> None:
    found = classification(torch.empty(0, 2), torch.empty(0, dtype=torch.long), ("a", "b"))
    assert set(found) == set(names.CLASS) and set(found.values()) == {None}
    (sentence,) = warnings(torch.empty(0, dtype=torch.long), ("a", "b"), found)
    assert sentence.startswith("there are no rows; accuracy,")


def test_one_row_has_accuracy_only() -> None:
    found = classification(torch.tensor([[0.2, 0.8]]), torch.tensor([1]), ("a", "b"))
    assert found["accuracy"] == 1.0
    assert found["log_loss"] == pytest.approx(-math.log(0.8))
    assert found["auroc"] is None


def test_threshold_moves_the_positive_class() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    assert labels(probs).tolist() == [0, 0, 1]
    assert labels(probs, 0.3).tolist() == [0, 1, 1]
    assert confusion(probs, torch.tensor([0, 1, 1]), 0.3) == [[1, 0], [0, 2]]
    assert classification(probs, torch.tensor([0, 1, 1]), threshold=0.3)["accuracy"] == 1.0


def test_non_finite_predictions_are_refused() -> None:
    probs = torch.tensor([[0.5, 0.5], [math.nan, 0.5]])
    with pytest.raises(DivergedError) as caught:
        classification(probs, torch.tensor([0, 1]))
    assert str(caught.value) == "the predictions of 1 of 2 rows are not finite; lower `optimizer.lr`"


def test_certain_and_wrong_has_a_finite_log_loss() -> None:
    found = classification(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]))
    assert found["log_loss"] == pytest.approx(-math.log(torch.finfo(torch.float32).eps) / 2)
