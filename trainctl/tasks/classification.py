"""Classification: cross-entropy over `spec.classes`, with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.tasks.estimator import FitsEstimators
from trainctl.tasks.training import Training


class Classification(FitsEstimators):
    """Cross-entropy on logits [B, C]; targets are class indices [B], or probabilities [B, C] after mixup.

    `class_weights`: null, `balanced` (inverse frequency in train, mean 1) or one weight per class.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        training: Training | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        l1: float = 0.0,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        if spec.target != "class":
            raise UsageError(
                "`task=classification` needs a class to predict, but the target is a number; use `task=regression` or "
                "`task=auto`, or set `data.target_kind=class`"
            )
        super().__init__(net, spec, training, l1)
        self.label_smoothing = label_smoothing
        if training is not None:
            self.refuse_for_estimator(**{"task.label_smoothing": label_smoothing})
        weights = self._weights(class_weights, class_counts)
        self.register_buffer("class_weights", weights, persistent=False)

    def _weights(self, given: str | Sequence[float] | None, counts: Sequence[int] | None) -> Tensor | None:
        if given is None or self.training_options is None:
            return None
        if given == "balanced":
            if counts is None:
                raise UsageError(
                    "`task.class_weights=balanced` needs data that counts its classes; give a list instead"
                )
            frequency = torch.tensor([float(max(c, 1)) for c in counts])
            return frequency.sum() / (len(frequency) * frequency)
        if isinstance(given, str) or len(given) != len(self.spec.classes):
            raise UsageError(
                f"`task.class_weights` must be null, balanced or {len(self.spec.classes)} numbers, got {given!r}"
            )
        return torch.tensor([float(w) for w in given])

    def row_weights(self, y: Tensor) -> Tensor | None:
        """The weight of each row's class [N]."""
        return self.class_weights[y] if isinstance(self.class_weights, Tensor) else None

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy; smoothing and class weights act in training only, so val/loss stays comparable."""
        if not self.training:
            return F.cross_entropy(output, y)
        weights = self.class_weights if isinstance(self.class_weights, Tensor) else None
        return F.cross_entropy(output, y, weight=weights, label_smoothing=self.label_smoothing)

    def predict_outputs(self, output: Tensor) -> Tensor:
        """Class probabilities [N, C]."""
        return output.softmax(dim=-1)
