from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from trainctl.config.compose import compose, plain
from trainctl.config.location import conf_dir
from trainctl.errors import UsageError

MODELS = "cnn, forest, linear, lstm, mlp, resmlp, resnet, transformer, tree"
TOP = "seed, compile, ema, freeze, train, paths, data, model, task, optimizer, scheduler, trainer, callbacks, logger"
OPTIMIZER = "_target_, _partial_, lr, weight_decay, betas, eps, fused"


def user_folder(tmp_path: Path, **files: str) -> Path:
    """A user's conf folder with files named group__option."""
    for name, text in files.items():
        group, _, option = name.partition("__")
        (tmp_path / "mine" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / group / f"{option}.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "mine"


def test_defaults_options_and_values() -> None:
    config = plain(compose("train", ["model=linear", "optimizer.lr=0.1", "seed=3", "trainer=ddp_sim"]))
    assert config["model"]["_target_"] == "trainctl.models.linear.Linear"
    assert config["optimizer"]["lr"] == 0.1
    assert config["data"]["seed"] == 3  # the interpolation is resolved
    assert (config["trainer"]["devices"], config["trainer"]["max_epochs"]) == (2, 50)
    assert "hydra" not in config and "experiment" not in config


def test_a_debug_recipe_sets_values_anywhere() -> None:
    config = plain(compose("train", ["debug=fast"]))
    assert (config["trainer"]["max_epochs"], config["trainer"]["limit_batches"]) == (1, 1)


SENTENCES = {
    "model.hiden_dims=[8]": "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?",
    "modl.lr=1": "unknown group `modl`; did you mean `model`?",
    "zzz.lr=1": f"unknown group `zzz`; have: {TOP}",
    "modl=mlp": "unknown key `modl`; did you mean `model`?",
    "lr=0.1": "unknown key `lr`; did you mean `optimizer.lr`?",
    "batchsize=3": "unknown key `batchsize`; did you mean `data.batch_size`?",
    "sede=3": "unknown key `sede`; did you mean `seed`?",
    "zzz=3": f"unknown key `zzz`; have: {TOP}",
    "+zzz=3": f"unknown key `zzz`; have: {TOP}",
    "+train.typo=1": "`train` has no parameter `typo`; it has: monitor, mode, folds, seeds, test, bootstrap",
    "+seed.typo=1": "`seed` has no parameter `typo`; it has: a single value",
    "+optimizer.lr=1": "`optimizer.lr` exists already; set it without the `+`",
    "optimizer.xyz=true": (
        f"unknown key `optimizer.xyz`; `optimizer` has: {OPTIMIZER}; "
        "another parameter of its `_target_` is passed with `+optimizer.xyz=...`"
    ),
    "seed.x=1": "unknown key `seed.x`; `seed` is a single value, set it with `seed=...`",
    "~model.xyz": (
        "unknown key `model.xyz`; `model` has: _target_, hidden_dims, num_layers, dropout, activation, norm, "
        "embedding_dim, token_dim; another parameter of its `_target_` is passed with `+model.xyz=...`"
    ),
    "model=mlp2": f"no `model` option `mlp2`; have: {MODELS}; did you mean `mlp`?",
    "model=[mlp,xyz]": f"no `model` option `xyz`; have: {MODELS}",
    "model=null": f"`model=null` names no option; have: {MODELS}",
    "model={a:1}": "`model` takes the name of an option; set values one by one: `model.a=...`",
    "hydra.run.dir=x": "`hydra.run.dir=x` has no effect on a single run; Hydra's own settings are for `-m`",
    "+model=mlp": "cannot apply `+model=mlp`: model appears more than once in the final defaults list",
    "model@foo=mlp": "cannot apply `model@foo=mlp`: Could not override 'model@foo'.",
}


@pytest.mark.parametrize("word", SENTENCES)
def test_a_mistake_in_a_word_is_one_sentence(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose("train", ["optimizer.weight_decay=0.1", word])
    assert str(caught.value) == SENTENCES[word]


def test_a_parameter_of_a_target_may_be_added() -> None:
    config = plain(compose("train", ["+optimizer.amsgrad=true", "++model.dropout=0.5", "+callbacks.mine={a:1}"]))
    assert config["optimizer"]["amsgrad"] is True
    assert config["model"]["dropout"] == 0.5
    assert config["callbacks"]["mine"] == {"a": 1}


def test_an_unknown_verb() -> None:
    with pytest.raises(UsageError) as caught:
        compose("trian")
    verbs = "compress, evaluate, export, predict, prune, quantize, train, tune"
    assert str(caught.value) == f"no verb `trian`; have: {verbs}; did you mean `train`?"


def test_a_users_folder_adds_options_and_experiments(tmp_path: Path) -> None:
    folder = user_folder(
        tmp_path / "it's a folder",
        model__mine="_target_: torch.nn.Linear\nin_features: 3\nout_features: 2\n",
        experiment__first="# @package _global_\ndefaults:\n  - override /model: mine\nseed: 5\n",
    )
    config = plain(compose("train", ["experiment=first"], folder))
    assert config["model"]["_target_"] == "torch.nn.Linear"
    assert config["seed"] == 5


def test_conf_in_the_current_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_folder(tmp_path, model__mine="_target_: torch.nn.Linear\n").rename(tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    assert plain(compose("train", ["model=mine"]))["model"] == {"_target_": "torch.nn.Linear"}


def test_our_own_conf_in_the_current_folder_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(conf_dir().resolve().parent)
    assert plain(compose("train", ["model=linear"]))["model"] == {"_target_": "trainctl.models.linear.Linear"}


FILES = {
    "not yaml": (
        "model__mine",
        "a: [1\nb: 2\n",
        "`{file}` line 2, column 2 is not valid YAML: expected ',' or ']', but got ':'",
    ),
    "missing reference": (
        "model__mine",
        "_target_: torch.nn.Linear\nin_features: ${nope}\n",
        "`model.in_features` refers to `nope`, which does not exist",
    ),
    "reference with a typo": (
        "model__mine",
        "_target_: a.b\nseed: ${sed}\n",
        "`model.seed` refers to `sed`, which does not exist; did you mean `seed`?",
    ),
    "no value yet": (
        "model__mine",
        "_target_: a.b\npath: ???\n",
        "`model.path` has no value yet; pass `model.path=...`",
    ),
    "variable not set": (
        "model__mine",
        "key: ${oc.env:TRAINCTL_NOT_SET}\n",
        "`model.key` needs the environment variable `TRAINCTL_NOT_SET`, which is not set",
    ),
    "unknown resolver": (
        "model__mine",
        "key: ${magic:3}\n",
        "`model.key` uses the resolver `magic`, which does not exist; use `oc.env` or a key",
    ),
    "not a number": (
        "model__mine",
        "key: ${oc.decode:'[1'}\n",
        "`model.key` cannot be resolved: GrammarParseError raised while resolving interpolation: "
        "missing BRACKET_CLOSE at '<EOF>'",
    ),
    "option that is not there": (
        "model__mine",
        "defaults:\n  - mlpp\n",
        "`model/mine.yaml` asks for `model/mlpp`, which does not exist; "
        f"`model` has: {MODELS.replace('mlp', 'mine, mlp', 1)}; did you mean `mlp`?",
    ),
    "name of a built-in option": (
        "model__mlp",
        "a: 1\n",
        "`{file}` has the name of a built-in `model` option; rename it to use it",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_mistake_in_a_file_is_one_sentence(case: str, tmp_path: Path) -> None:
    name, text, sentence = FILES[case]
    folder = user_folder(tmp_path, **{name: text})
    option = name.partition("__")[2]
    with pytest.raises(UsageError) as caught:
        plain(compose("train", [f"model={option}"], folder))
    assert str(caught.value) == sentence.format(file=folder / "model" / f"{option}.yaml")


def test_a_broken_experiment_and_a_typo_in_a_word(tmp_path: Path) -> None:
    folder = user_folder(tmp_path, experiment__broken="# @package _global_\ndefaults:\n  - override /modl: mlp\n")
    with pytest.raises(UsageError) as caught:
        compose("train", ["optimizer.lr=1", "experiment=broken"], folder)
    assert str(caught.value) == (
        "cannot apply `experiment=broken`: In 'experiment/broken': Could not override 'modl'. "
        "No match in the defaults list."
    )


def test_a_config_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        compose("train", [], tmp_path / "nowhere")
    assert str(caught.value) == (
        f"config folder `{tmp_path / 'nowhere'}` does not exist; pass a folder with `--config-dir`"
    )


def test_composing_leaves_an_outer_hydra_as_it_was() -> None:
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        assert plain(compose("train", ["model=linear"]))["seed"] == 0
        assert hydra_compose("train", ["seed=4"]).seed == 4


def test_composing_is_fast() -> None:
    compose("train")
    started = time.process_time()
    compose("train", ["model.hidden_dims=[8]"])
    assert time.process_time() - started < 0.5  # 0.06 on an idle machine


SOURCE: dict[str, Any] = {
    "seed": 7,
    "data": {"_target_": "trainctl.data.tabular.Tabular", "batch_size": 16, "path": "a${b}.csv"},
    "model": {"_target_": "trainctl.models.linear.Linear"},
    "task": {"_target_": "trainctl.tasks.auto.auto", "loss": "auto"},
    "scheduler": {"_target_": None},
    "logger": {},
}


def test_a_source_run_is_the_option_from_run() -> None:
    config = plain(compose("evaluate", ["data.batch_size=256"], source=SOURCE))
    assert config["data"] == {**SOURCE["data"], "batch_size": 256}
    assert config["model"] == SOURCE["model"]
    assert config["seed"] == config["evaluate"]["seed"] == 7
    assert config["split"] == "test"


def test_other_data_for_a_source_run() -> None:
    config = plain(compose("evaluate", ["data=synthetic", "split=val"], source=SOURCE))
    assert config["data"]["_target_"] == "trainctl.data.synthetic.Synthetic"
    assert config["data"]["seed"] == 7


def test_a_typo_against_a_source_run_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        compose("evaluate", ["data.batchsize=256"], source=SOURCE)
    assert str(caught.value) == "unknown key `data.batchsize`; did you mean `data.batch_size`?"
    with pytest.raises(UsageError) as caught:
        compose("evaluate", ["model=mlp2"], source=SOURCE)
    assert str(caught.value) == (
        "no `model` option `mlp2`; have: cnn, forest, from_run, linear, lstm, mlp, resmlp, resnet, transformer, tree; "
        "did you mean `mlp`?"
    )


def test_nothing_of_a_source_run_is_left_behind() -> None:
    compose("evaluate", source=SOURCE)
    with pytest.raises(UsageError) as caught:
        compose("train", ["data=from_run"])
    assert str(caught.value).startswith("no `data` option `from_run`; have: ")
    with pytest.raises(UsageError) as caught:
        compose("evaluate")
    assert str(caught.value) == "`evaluate` reads a run; name one, as in `trainctl evaluate latest`"


@pytest.mark.parametrize("word", ["data.columns.age=drop", "data.columns={age: drop}", "+data.columns.age=drop"])
def test_a_column_of_the_users_is_named_as_any_key(word):
    assert compose("train", [word]).data.columns == {"age": "drop"}
