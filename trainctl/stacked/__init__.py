"""Many nets of one shape trained as one stacked model.

`trainer.StackedTrainer` takes members (a task, its data and its seed each) that differ in values only, and brings
every one of them to the weights that it would have reached alone.
"""

from __future__ import annotations

# what the configs of one stack's members may differ in; everything else changes shapes, steps or rows
MAY_DIFFER = (
    "seed",
    "data.seed",
    "ema",
    "model.dropout",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.betas",
    "optimizer.eps",
    "scheduler",
    "task.label_smoothing",
    "task.class_weights",
    "task.l1",
    "trainer.gradient_clip_val",
)


class Unstackable(Exception):
    """Why some members cannot be trained as one stack: a short reason, such as "the nets have different shapes"."""
