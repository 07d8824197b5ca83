"""Which metrics each kind of target has, and whether more or less of each is better.

Free of torch, so a config's monitor can be checked before anything heavy is imported.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["class", "number"]

CLASS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auroc",
    "auprc",
    "log_loss",
    "brier",
    "ece",
)
QUANTILES = {"error_q05": 0.05, "error_q25": 0.25, "error_q50": 0.5, "error_q75": 0.75, "error_q95": 0.95}
NUMBER = ("mse", "rmse", "mae", "r2", "mape", *QUANTILES)
QUICK_CLASS = ("accuracy", "auroc")
QUICK_NUMBER = ("rmse", "mae", "r2")

_LESS_IS_BETTER = frozenset({"loss", "log_loss", "brier", "ece", "mse", "rmse", "mae", "mape"})


def produced(kind: Kind) -> list[str]:
    """Base names (without `stage/`) that a task of this target kind can produce, `loss` first.

    A binary and a multi-class target have the same names: precision, recall and f1 are of the positive (last) class
    when there are two, and macro averages otherwise; auroc and auprc are one-versus-rest averages then.
    """
    return ["loss", *(CLASS if kind == "class" else NUMBER)]


def quick(kind: Kind) -> list[str]:
    """The cheap names measured after every epoch, `loss` first."""
    return ["loss", *(QUICK_CLASS if kind == "class" else QUICK_NUMBER)]


def mode(name: str) -> Literal["min", "max"]:
    """`min` when less is better; a `stage/` prefix is ignored."""
    return "min" if name.rpartition("/")[2] in _LESS_IS_BETTER else "max"
