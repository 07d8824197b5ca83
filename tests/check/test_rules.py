from __future__ import annotations

from typing import Any

import pytest

from trainctl.check.rules import RULES, duration, number, one_of, whole
from trainctl.config.compose import compose, plain
from trainctl.config.listing import options
from trainctl.data.preprocessing import SCALINGS
from trainctl.data.splits import FOLD_AS
from trainctl.models.cnn import BLOCKS, KERNELS
from trainctl.models.layers import ACTIVATIONS, NORMS, NORMS_2D

RIGHT: list[tuple[str, list[Any]]] = [
    ("trainer.max_time", [None, 90, 1.5, "45s", "1.5s", "10m", "1h30m", "2d", "00:01:30:00", "1:30", "90"]),
    ("trainer.devices", [1, "auto", [0], [0, 1]]),
    ("trainer.threads", [1, "auto"]),
    ("trainer.precision", ["32-true", 32, "bf16-mixed"]),
    ("evaluate.threshold", [None, "auto", "f1", 0.5]),
    ("train.folds", [None, 2]),
    ("seed", [0, 2**32 - 1]),
    ("tune.trials", [1, None]),
    ("tune.jobs", [1, "auto"]),
    ("tune.objective", ["auto", "val/loss", ["val/loss", "parameters"]]),
    ("tune.direction", ["auto", "min", ["min", "auto"]]),
    ("tune.storage", [None, "postgresql://user@host/db"]),
    ("stopper.max_resource", ["auto", 9]),
    ("ema", [None, 0.999]),
    ("freeze", [[], ["embed*"]]),
]
WRONG: list[tuple[str, list[Any]]] = [
    ("trainer.max_time", ["", "soon", 0, -1, True, "1:", "1m1h"]),
    ("trainer.devices", [0, -1, 1.0, "all", [], [-1], True]),
    ("trainer.threads", [0, "Auto", None]),
    ("evaluate.threshold", [0, 1, 2, "test", True]),
    ("train.folds", [1, 0, "5", True]),
    ("seed", [-1, 2**32, None, 1.5]),
    ("tune.trials", [0, -1, "all", 1.5]),
    ("tune.jobs", [0, None]),
    ("tune.objective", [None, 3, ["val/loss", None], ""]),
    ("tune.direction", ["up", ["min", "upwards"], None]),
    ("tune.storage", [5, ""]),
    ("tune.timeout", ["soon", 0]),
    ("tune.max_failure_rate", [-0.1, 1.1, None]),
    ("stopper.reduction_factor", [1, 2.5]),
    ("ema", [0, 1, "0.9"]),
    ("freeze", [None, "a", [1]]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in RIGHT for value in values])
def test_values_that_are_right(key: str, value: Any) -> None:
    assert RULES[key](value) is None


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG for value in values])
def test_values_that_are_wrong(key: str, value: Any) -> None:
    assert str(RULES[key](value)).startswith("must be ")


def test_the_sentences_name_bounds_words_and_what_was_given() -> None:
    assert number(0, 1)(2) == "must be ≥ 0 and ≤ 1, got 2"
    assert number(words=("val", None))(True) == "must be a finite number or val, got true"
    assert whole(1, 3)(None) == "must be a whole number from 1 to 3, got null"
    assert one_of("a", None)(False) == "must be one of a (or null), got false"
    assert duration(True) == "must be a duration such as 10m, 1h30m or 00:01:30:00, got true"


def test_the_words_are_those_that_the_components_know() -> None:
    words = {
        "model.activation": ACTIVATIONS,
        "model.norm": NORMS,
        "model.block": BLOCKS,
        "data.scaling": SCALINGS,
        "data.split.fold_as": FOLD_AS,
    }
    for key, known in words.items():
        sentence = RULES[key]("?")
        assert sentence == f"must be one of {', '.join(known)}, got '?'"
    assert tuple(NORMS) == tuple(NORMS_2D)
    assert all(RULES["model.kernel"](kernel) is None for kernel in KERNELS)
    assert RULES["model.kernel"](4) == "must be one of 1, 3, 5, 7, got 4"


def test_every_key_of_a_search_has_a_rule_that_its_default_meets() -> None:
    words = [f"{group}={name}" for group in ("sampler", "stopper") for name, _ in options(group)[group]]
    for config in (plain(compose("tune", [word])) for word in words):
        for node in ("tune", "sampler", "stopper"):
            for name, value in config[node].items():
                assert RULES[f"{node}.{name}"](value) is None, (node, name)
