from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.config.listing import comment, options, shipped_keys
from trainctl.errors import UsageError


def test_options_of_one_group_with_their_comments() -> None:
    found = options("callbacks")
    assert list(found) == ["callbacks"]
    assert found["callbacks"] == [
        ("default", "stop when the monitored metric has not improved for `patience` epochs"),
        ("none", "train for all of trainer.max_epochs; the best checkpoint is kept all the same"),
    ]


def test_all_groups_are_listed() -> None:
    assert {
        "data",
        "model",
        "task",
        "optimizer",
        "scheduler",
        "trainer",
        "callbacks",
        "logger",
        "experiment",
        "debug",
    } <= set(options())


def test_a_users_options_are_listed_too(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "aaa.yaml").write_text("# mine\n_target_: a.B\n", encoding="utf-8")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "cat.yaml").write_text("legs: 4\n", encoding="utf-8")
    found = options(config_dir=tmp_path)
    assert found["model"][0] == ("aaa", "mine")
    assert found["pets"] == [("cat", "")]


def test_an_unknown_group() -> None:
    with pytest.raises(UsageError) as caught:
        options("modle")
    assert str(caught.value).startswith("no group `modle`; have: callbacks, compressor, data, ")
    assert str(caught.value).endswith("; did you mean `model`?")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# optimizer=sgd: with momentum\na: 1\n", "with momentum"),
        ("# trainctl train model=cnn data=x: photos: of clothes\n", "photos: of clothes"),
        ("# a table (kind=auto): real\n", "a table (kind=auto): real"),
        ("# optimizer=adam\n", ""),
        ("# @package _global_\n# quick\n", "quick"),
        ("a: 1\n# late\n", ""),
        ("", ""),
    ],
)
def test_the_comment_without_the_command(text: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert comment(tmp_path / "x.yaml") == shown


def test_the_keys_that_our_files_have() -> None:
    assert shipped_keys("train", "train") == ("monitor", "mode", "folds", "seeds", "test", "bootstrap")
    assert "max_epochs" in shipped_keys("train", "trainer")
    assert shipped_keys("train", "nothing") == ()
