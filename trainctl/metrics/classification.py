"""Classification metrics of whole tensors, weighted so that the bootstrap and the point estimate are one piece of code.

`ClassScores` sorts once; called with weights [R, N] it gives R values of each metric. NaN stands for undefined inside,
and becomes None (JSON null) outside: a metric that cannot be measured is never a made-up number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from trainctl.errors import DivergedError
from trainctl.metrics import calibration, names


def classification(
    probs: Tensor,
    y: Tensor,
    classes: Sequence[str] = (),
    full: bool = True,
    only: Collection[str] | None = None,
    threshold: float | None = None,
) -> dict[str, float | None]:
    """Metrics of probs [N, C] against class indices y [N]; None where undefined.

    `only` names the metrics wanted, otherwise all (`full`) or the quick ones. `threshold`: the positive (last) of two
    classes is predicted from this probability on; otherwise the most probable class is.
    DivergedError when a probability is not finite.
    """
    wanted = only if only is not None else names.CLASS if full else names.QUICK_CLASS
    if not len(y):
        return dict.fromkeys(wanted)
    scores = ClassScores(probs.cpu(), y.cpu(), wanted, threshold)  # sorting 8000 rows is no work for a GPU
    values = scores(torch.ones(1, len(y), dtype=torch.float64))
    return {name: None if (value := values[name].item()) != value else value for name in wanted}


def labels(probs: Tensor, threshold: float | None = None) -> Tensor:
    """Predicted class [N] of probs [N, C]."""
    return probs.argmax(1) if threshold is None else (probs[:, 1] >= threshold).long()


def confusion(probs: Tensor, y: Tensor, threshold: float | None = None) -> list[list[int]]:
    """Counts [C][C]: rows are the true classes, columns the predicted ones."""
    num = probs.shape[1]
    cells = torch.bincount(y * num + labels(probs, threshold), minlength=num * num)
    rows: list[list[int]] = cells.view(num, num).tolist()
    return rows


def warnings(y: Tensor, classes: Sequence[str], metrics: dict[str, float | None]) -> list[str]:
    """A sentence for each reason why a metric is null or leaves classes out."""
    undefined = ", ".join(name for name, value in metrics.items() if value is None)
    present = torch.bincount(y, minlength=len(classes)).tolist()
    absent = [f"'{name}'" for name, count in zip(classes, present, strict=True) if not count]
    if not len(y):
        return [f"there are no rows; {undefined} written as null"]
    if len(classes) - len(absent) == 1:
        only = classes[max(range(len(classes)), key=present.__getitem__)]
        return [f"every row has the class '{only}'; {undefined} undefined with one class; written as null"]
    sentences = []
    if absent:
        sentences.append(f"no row has the class {', '.join(absent)}; averages over classes leave it out")
    if undefined:
        sentences.append(f"the class '{classes[-1]}' is never predicted; {undefined} undefined; written as null")
    return sentences


class ClassScores:
    """Callable: weights [R, N] -> {metric: values [R]}, NaN where undefined; `wanted` bounds the work."""

    def __init__(self, probs: Tensor, y: Tensor, wanted: Collection[str], threshold: float | None = None) -> None:
        bad = int((~probs.isfinite()).any(1).sum())
        if bad:
            raise DivergedError(f"the predictions of {bad} of {len(y)} rows are not finite; lower `optimizer.lr`")
        self.wanted = wanted
        self.num_classes = probs.shape[1]
        self.order: Tensor | None = None  # what weights must follow, when they are of certain rows
        if self.num_classes == 2:  # all metrics are blind to row order, so the only sort can be done here, once
            self.order = probs[:, 1].argsort(descending=True, stable=True)
            probs, y = probs[self.order], y[self.order]
        self.y = y
        self.predicted = labels(probs, threshold)
        self.correct = (self.predicted == y).float()
        if self._wants("auroc", "auprc"):
            self._rank(probs)
        if self._wants("log_loss", "brier", "ece"):
            self._score(probs.double())

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        total = weights.sum(1)
        found = {"accuracy": weights @ self.correct.to(weights.dtype) / total}
        one_class: Tensor | None = None
        if self._wants("balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc"):
            actual = _count(self.y, weights, self.num_classes)
            one_class = (actual > 0).sum(1) < 2
            if self._wants("balanced_accuracy", "precision", "recall", "f1"):
                found |= self._from_counts(weights, actual)
            if self._wants("auroc", "auprc"):
                found |= self._from_ranks(weights)
        if self._wants("log_loss", "brier", "ece"):
            sums = weights @ self.losses.to(weights.dtype)
            found["log_loss"], found["brier"] = (sums / total[:, None]).unbind(1)
            gaps = _count(self.bin, weights * self.gap.to(weights.dtype), calibration.NUM_BINS)
            found["ece"] = gaps.abs().sum(1) / total
        if one_class is not None:
            for name in found.keys() & {"balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc"}:
                found[name] = found[name].masked_fill(one_class, torch.nan)
        return {name: found[name] for name in self.wanted}

    def _wants(self, *some: str) -> bool:
        return any(name in self.wanted for name in some)

    def _rank(self, probs: Tensor) -> None:
        """Per one-versus-rest score: row order, which are positive, last row of each group of equal scores."""
        self.ranks: list[tuple[Tensor | None, Tensor, Tensor | None]] = []
        for index in range(self.num_classes) if self.num_classes != 2 else (1,):
            score, order, positive = probs[:, index], None, self.y == index
            if self.num_classes != 2:
                order = score.argsort(descending=True, stable=True)
                score, positive = score[order], positive[order]
            last = torch.ones(len(score), dtype=torch.bool)
            last[:-1] = score[1:] != score[:-1]
            self.ranks.append((order, positive, None if bool(last.all()) else last.nonzero()[:, 0]))

    def _score(self, probs: Tensor) -> None:
        eps = torch.finfo(torch.float32).eps
        truth = probs.gather(1, self.y[:, None])[:, 0].clamp(eps, 1)
        if self.num_classes == 2:
            brier = (probs[:, 1] - self.y).square()
        else:
            brier = (probs - torch.nn.functional.one_hot(self.y, self.num_classes)).square().sum(1)
        self.losses = torch.stack([-truth.log(), brier], 1)
        claimed, true = calibration.claims(probs, self.y)
        self.bin, self.gap = calibration.bin_of(claimed), true - claimed

    def _from_counts(self, weights: Tensor, actual: Tensor) -> dict[str, Tensor]:
        predicted = _count(self.predicted, weights, self.num_classes)
        hits = _count(self.y, weights * self.correct.to(weights.dtype), self.num_classes)
        recall = hits / actual
        balanced = recall.nanmean(1)
        precision, f1 = hits / predicted, 2 * hits / (predicted + actual)
        if self.num_classes == 2:
            precision, recall, f1 = precision[:, 1], recall[:, 1], f1[:, 1]
        else:  # over the classes seen or predicted; one never predicted has precision 0, as scikit-learn has it
            seen = ((actual > 0) | (predicted > 0)).sum(1)
            precision, recall, f1 = (part.nan_to_num(0.0).sum(1) / seen for part in (precision, recall, f1))
        return {"balanced_accuracy": balanced, "precision": precision, "recall": recall, "f1": f1}

    def _from_ranks(self, weights: Tensor) -> dict[str, Tensor]:
        pairs = []
        for order, positive, last in self.ranks:
            ordered = weights if order is None else weights.index_select(1, order)
            pairs.append(_areas(ordered, positive, last, "auprc" in self.wanted))
        auroc, auprc = (torch.stack(areas).nanmean(0) for areas in zip(*pairs, strict=True))
        return {"auroc": auroc, "auprc": auprc}


def _count(index: Tensor, weights: Tensor, size: int) -> Tensor:
    """Sums [R, size] of weights [R, N] by index [N]."""
    rows = len(weights)
    flat = index if rows == 1 else (torch.arange(rows)[:, None] * size + index).flatten()
    return torch.bincount(flat, weights.flatten(), rows * size).view(rows, size)


def _areas(weights: Tensor, positive: Tensor, last: Tensor | None, precision: bool) -> tuple[Tensor, Tensor]:
    """Areas below the ROC and the precision-recall curve [R] of weights [R, N] in order of falling score."""
    hits = (weights * positive).cumsum(1)
    seen = weights.cumsum(1)
    if last is not None:  # equal scores are one threshold
        hits, seen = hits.index_select(1, last), seen.index_select(1, last)
    before = torch.nn.functional.pad(hits[:, :-1], (1, 0))
    gained = hits - before
    misses = torch.diff(seen, dim=1, prepend=torch.zeros_like(seen[:, :1])) - gained
    positives, negatives = hits[:, -1], seen[:, -1] - hits[:, -1]
    auroc = torch.linalg.vecdot(misses, hits + before) / (2 * positives * negatives)
    if not precision:
        return auroc, auroc
    auprc = torch.linalg.vecdot(gained, hits / seen.clamp(min=1)) / positives
    return auroc, auprc
