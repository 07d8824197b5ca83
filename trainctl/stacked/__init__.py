"""Many nets of one shape trained as one stacked model.

`trainer.StackedTrainer` takes members (a task, its data and its seed each) that differ in values only, and brings
every one of them to the weights that it would have reached alone.
"""

from __future__ import annotations


class Unstackable(Exception):
    """Why some members cannot be trained as one stack: a short reason, such as "the nets have different shapes"."""
