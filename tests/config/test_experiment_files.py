"""`experiment=PATH.yaml`: an experiment from a file anywhere, such as a study's best.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.config.compose import compose, plain
from trainctl.config.provenance import why
from trainctl.errors import UsageError

MODELS = "cnn, forest, linear, lstm, mlp, resmlp, resnet, transformer, tree"
BEST = """\
# @package _global_
defaults:
  - /experiment/digits_linear
  - _self_
  - override /model: resmlp
optimizer:
  weight_decay: 0.5
seed: 7
"""


def experiment_file(folder: Path, text: str = BEST) -> str:
    """The path of an experiment that is no option of ours, relative to the current folder."""
    (folder / "runs" / "tune it").mkdir(parents=True)
    (folder / "runs" / "tune it" / "best.yaml").write_text(text, encoding="utf-8")
    return "runs/tune it/best.yaml"


@pytest.mark.parametrize("form", ["{relative}", "./{relative}", "{absolute}", "../{folder}/{relative}"])
def test_an_experiment_is_given_by_its_path(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relative = experiment_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = form.format(relative=relative, absolute=tmp_path / relative, folder=tmp_path.name)
    config = plain(compose("train", [f"experiment={path}", "optimizer.weight_decay=0.25"]))
    assert config["model"]["_target_"] == "trainctl.models.resmlp.ResMLP"
    assert (config["optimizer"]["lr"], config["optimizer"]["weight_decay"], config["seed"]) == (0.01, 0.25, 7)
    assert "experiment" not in config
    both = plain(compose("train", [f"experiment=[{path},digits_linear]"]))
    assert (both["seed"], both["model"]) == (7, {"_target_": "trainctl.models.resmlp.ResMLP"} | both["model"])
    assert plain(compose("train", []))["seed"] == 0  # nothing of it is left behind


def test_why_names_the_line_of_an_experiment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = experiment_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [f"experiment={path}"]
    assert [layer.where for layer in why("train", words, "optimizer.weight_decay")] == [
        "conf/optimizer/adamw.yaml:5", f"{path}:7"]
    assert [(layer.where, layer.value) for layer in why("train", words, "model")] == [
        ("conf/train.yaml:5", "mlp"), ("conf/experiment/digits_linear.yaml:5", "linear"), (f"{path}:5", "resmlp")]


EXPERIMENTS = "adult_mlp, digits_linear, fashion_cnn"
EXPERIMENT_FILES = {
    "seed: [1\n": "`{file}` line 2, column 1 is not valid YAML: expected ',' or ']', but got '<stream end>'",
    "[1]\n": "cannot apply `{word}`: `{path}` is no experiment: it holds no keys",
    "defaults:\n  - override /model: mlpp\n": (
        f"`train.yaml` asks for `model/mlpp`, which does not exist; `model` has: {MODELS}; did you mean `mlp`?"
    ),
}


@pytest.mark.parametrize("text", EXPERIMENT_FILES)
def test_a_broken_experiment_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = experiment_file(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        compose("train", [f"experiment={path}"])
    assert str(caught.value) == EXPERIMENT_FILES[text].format(
        file=tmp_path / path, path=path, word=f"experiment={path}")


@pytest.mark.parametrize(("path", "hint"), [
    ("runs/x/best.yaml", ""), ("digits_linear.yaml", "; did you mean `digits_linear`?")])
def test_an_experiment_file_that_is_not_there(path: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose("train", [f"experiment={path}"])
    assert str(caught.value) == f"no file `{path}`; `experiment=` takes a path, or one of: {EXPERIMENTS}{hint}"
