"""task=auto: the data's declared target chooses the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.base import Task
from trainctl.tasks.classification import Classification
from trainctl.tasks.regression import Regression
from trainctl.tasks.training import Training


def auto(
    net: nn.Module,
    spec: DataSpec,
    training: Training | None = None,
    label_smoothing: float = 0.0,
    class_weights: Literal["balanced"] | Sequence[float] | None = None,
    l1: float = 0.0,
    loss: Literal["auto", "mse", "mae", "huber"] = "auto",
    class_counts: Sequence[int] | None = None,
) -> Task:
    """Classification when the target is a class, regression when it is a number.

    Raises UsageError for an option that the chosen task cannot use.
    """
    if spec.target == "class":
        if loss != "auto":
            raise UsageError(f"`task.loss={loss}` is for a target that is a number; `{spec.target_name}` is a class")
        return Classification(net, spec, training, label_smoothing, class_weights, l1, class_counts)
    for name, value in {"label_smoothing": label_smoothing, "class_weights": class_weights}.items():
        if value:
            raise UsageError(f"`task.{name}` is for classes; the target `{spec.target_name}` is a number")
    return Regression(net, spec, training, "mse" if loss == "auto" else loss, l1)
