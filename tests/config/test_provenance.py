from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.config.location import conf_dir
from trainctl.config.provenance import read_arguments, why
from trainctl.errors import UsageError


def line(file: str, start: str) -> str:
    """`conf/FILE:LINE` of the first line of a shipped file that begins with `start`."""
    lines = (conf_dir() / file).read_text(encoding="utf-8").splitlines()
    number = next(index for index, text in enumerate(lines, start=1) if text.strip().startswith(start))
    return f"conf/{file}:{number}"


def test_every_layer_of_a_value_in_order() -> None:
    assert why("train", ["experiment=digits_linear", "optimizer.lr=3"], "optimizer.lr") == [
        (line("optimizer/adamw.yaml", "lr:"), 0.001, None),
        (line("experiment/digits_linear.yaml", "lr:"), 0.01, 0.001),
        ("override `optimizer.lr=3`", 3, 0.01),
    ]


def test_an_option_that_builds_on_another() -> None:
    assert why("train", ["trainer=ddp_sim"], "trainer.devices") == [
        (line("trainer/auto.yaml", "devices:"), 1, None),
        (line("trainer/ddp_sim.yaml", "devices:"), 2, 1),
    ]


def test_who_chose_an_option() -> None:
    assert why("train", ["experiment=digits_linear", "model=mlp"], "model") == [
        (line("train.yaml", "- model:"), "mlp", None),
        (line("experiment/digits_linear.yaml", "- override /model"), "linear", "mlp"),
        ("override `model=mlp`", "mlp", "linear"),
    ]
    assert why("train", ["~scheduler"], "scheduler")[-1] == ("override `~scheduler`", None, "none")


def test_a_part_of_a_mapping_changes_that_part() -> None:
    before = {"kind": "auto", "val": 0.15, "test": 0.15, "column": None, "folds": None, "fold": None, "fold_as": "test"}
    layers = why("train", ["data=digits", "data.split.val=0.2"], "data.split")
    assert layers == [
        (line("data/digits.yaml", "split:"), before, None),
        ("override `data.split.val=0.2`", {**before, "val": 0.2}, before),
    ]


def test_a_mapping_given_as_a_whole_sets_its_parts() -> None:
    layers = why("train", ["data=digits", "data.split={val:0.3}"], "data.split.val")
    assert layers[-1] == ("override `data.split={val:0.3}`", 0.3, 0.15)
    assert len(why("train", ["data=digits", "data.split={val:0.3}"], "data.split.test")) == 1


def test_references_are_shown_as_written() -> None:
    assert why("train", ["data=digits"], "data.seed") == [(line("data/digits.yaml", "seed:"), "${seed}", None)]


def test_a_value_of_the_source_run() -> None:
    source = {"seed": 7, "data": {"_target_": "a.B", "batch_size": 1}, "model": {"_target_": "m.N"}, "task": {}}
    assert why("evaluate", ["data.batch_size=3"], "data.batch_size", source=source) == [
        ("the source run", 1, None),
        ("override `data.batch_size=3`", 3, 1),
    ]
    assert why("evaluate", [], "seed", source=source) == [("the source run", 7, None)]


def test_a_users_file_is_named_as_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine" / "model"
    folder.mkdir(parents=True)
    (folder / "net.yaml").write_text("# mine\n_target_: torch.nn.Linear\nin_features: 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert why("train", ["model=net"], "model.in_features", Path("mine")) == [("mine/model/net.yaml:3", 3, None)]


def test_an_unknown_key() -> None:
    with pytest.raises(UsageError) as caught:
        why("train", [], "optimizer.lrr")
    assert str(caught.value) == "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?"


def test_the_verb_may_be_left_out() -> None:
    assert read_arguments("optimizer.lr", ["model=mlp"]) == ("train", "optimizer.lr", ["model=mlp"])
    assert read_arguments("evaluate", ["split", "split=val"]) == ("evaluate", "split", ["split=val"])
    assert read_arguments("train", []) == ("train", "train", [])
    assert read_arguments("train", ["seed=1"]) == ("train", "train", ["seed=1"])
