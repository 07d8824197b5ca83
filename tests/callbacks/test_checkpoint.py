"""Which epoch is the best: that with the best figure, or the latest that differs from it by less than a tolerance."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from trainctl.callbacks.checkpoint import Checkpoint


def best(figures: list[float], mode: Any, tolerance: float = 0.0) -> tuple[int | None, float | None]:
    checkpoint = Checkpoint(None, "val/x", mode)  # type: ignore[arg-type]
    checkpoint.tolerance = tolerance
    checkpoint.save = lambda trainer, best: None  # type: ignore[method-assign]
    for epoch, figure in enumerate(figures):
        trainer: Any = SimpleNamespace(callback_metrics={"val/x": figure}, current_epoch=epoch)
        checkpoint.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    return checkpoint.best_epoch, checkpoint.best_score


@pytest.mark.parametrize("figures, mode, tolerance, expected", [
    ([0.5, 0.8, 0.8, 0.79], "max", 0.0, (1, 0.8)),
    ([0.5, 0.8, 0.79, 0.78], "max", 0.015, (2, 0.79)),  # 0.78 is near to 0.79, not to the top
    ([0.5, 0.4, 0.41, 0.39, 0.6], "min", 0.02, (3, 0.39)),
    ([math.nan, 0.5, math.nan], "max", 0.1, (1, 0.5)),
    ([math.nan, math.nan], "max", 0.0, (0, None)),
])  # fmt: skip
def test_the_best_epoch(
    figures: list[float], mode: str, tolerance: float, expected: tuple[int | None, float | None]
) -> None:
    assert best(figures, mode, tolerance) == expected


def test_a_resumed_fit_compares_with_the_best_before() -> None:
    checkpoint = Checkpoint(None, "val/x", "max")  # type: ignore[arg-type]
    checkpoint.load_state_dict({"best_score": 0.8, "best_epoch": 3})
    checkpoint.save = lambda trainer, best: None  # type: ignore[method-assign]
    trainer: Any = SimpleNamespace(callback_metrics={"val/x": 0.7}, current_epoch=4)
    checkpoint.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert (checkpoint.best_epoch, checkpoint.best_score) == (3, 0.8)
