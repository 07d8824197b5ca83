"""The real command line: a mistake in a config is one line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MISTAKES = {
    "model.hiden_dims=[8]": "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?",
    "+model.typo=1": (
        "`model` has no parameter `typo`; it has: hidden_dims, dropout, activation, norm, embedding_dim, token_dim, "
        "num_layers"
    ),
    "optimizer.lr=-1": "`optimizer.lr` must be > 0 or auto, got -1",
    "ckpt=epoch=9-step=80.ckpt": (
        "cannot read override 1: the value contains `=`; quote it: 'ckpt=\"epoch=9-step=80.ckpt\"'"
    ),
    "seed=1,2": (
        "`seed=1,2` gives several values; add `-m` to run each, "
        "or write `seed=[1,2]` for a list or 'seed=\"1,2\"' for a text"
    ),
    "train.monitor=${nope}": "`train.monitor` refers to `nope`, which does not exist",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_train_refuses(word: str, trainctl: Callable[..., Any], tmp_path: Path) -> None:
    done = trainctl("train", word)
    assert (done.code, done.out, done.err) == (2, "", f"trainctl: error: {MISTAKES[word]}\n")
    assert list(tmp_path.iterdir()) == []


def test_config_check_lists_all_problems(trainctl: Callable[..., Any]) -> None:
    done = trainctl("config", "check", "train", "model.hiden_dims=[8]", "optimizer.lr=-1", "--json")
    assert done.code == 2
    assert done.json == {
        "problems": [
            "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?",
            "`optimizer.lr` must be > 0 or auto, got -1",
        ]
    }


def test_config_why_says_who_set_a_value(trainctl: Callable[..., Any]) -> None:
    done = trainctl("config", "why", "optimizer.lr", "optimizer.lr=3", "--json")
    assert done.code == 0
    (_, first, nothing), last = done.json["steps"]
    assert (first, nothing) == (0.001, None)
    assert last == ["override `optimizer.lr=3`", 3, 0.001]
