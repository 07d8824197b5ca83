"""Every shipped config: it composes, names what exists, says what it is, and can be saved and read again."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from trainctl.check import check, refuse_untrusted
from trainctl.config import saved
from trainctl.config.compose import compose, plain
from trainctl.config.listing import options
from trainctl.config.location import conf_dir

CONF = conf_dir()
OPTIONS = [f"{group}={name}" for group, names in options(config_dir=CONF).items() for name, _ in names]
ON_A_GPU = {
    "trainer=gpu": "no GPU is visible for `trainer.accelerator=gpu`; use `trainer.accelerator=cpu` or `auto`",
    "trainer=fsdp": "`trainer.strategy=fsdp` needs a GPU and none is visible; on the CPU use `trainer=ddp`",
}
RECIPES = ("experiment", "debug")
OF_TUNE = ("sampler", "stopper", "space")


def verb_of(word: str) -> str:
    """The verb that has an option; a compressor's class names its own."""
    if word.startswith("compressor"):
        node = yaml.safe_load((CONF / f"{word.replace('=', '/')}.yaml").read_text(encoding="utf-8"))
        module, _, name = node["_target_"].rpartition(".")
        return str(getattr(importlib.import_module(module), name).verb)
    return "tune" if word.startswith(OF_TUNE) else "train"


@pytest.mark.parametrize("word", OPTIONS)
def test_an_option_composes_without_a_problem(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    verb, source = verb_of(word), plain(compose("train", [], CONF)) if word.startswith("compressor") else None
    config = compose(verb, [word], CONF, source)
    resolved = plain(config)
    assert check(verb, resolved, CONF) == ([ON_A_GPU[word]] if word in ON_A_GPU else [])
    refuse_untrusted(resolved)
    assert saved.load(saved.dump(config)) == resolved


@pytest.mark.parametrize("verb", ["evaluate", "predict", "prune", "quantize", "compress", "export"])
@pytest.mark.parametrize("word", ["data=digits", "data=tabular", "experiment=fashion_cnn"])
def test_a_verb_reads_what_train_has_written(verb: str, word: str) -> None:
    source = plain(compose("train", [word, "seed=4"], CONF))
    config = plain(compose(verb, [], CONF, source))
    assert check(verb, config, CONF) == []
    assert (config["data"], config["model"], config["task"]) == (source["data"], source["model"], source["task"])
    assert config["seed"] == 4


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_file_begins_by_saying_what_it_is(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    is_recipe = file.parent.name in RECIPES
    assert (lines[0] == "# @package _global_") is is_recipe
    assert lines[1 if is_recipe else 0].startswith("# ")


@pytest.mark.parametrize("recipe", [word for word in OPTIONS if word.startswith(RECIPES)])
def test_a_recipe_sets_only_keys_that_exist(recipe: str) -> None:
    group, _, name = recipe.partition("=")
    own = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    chosen = [
        f"{key.removeprefix('override /')}={value}" for item in own.pop("defaults", []) for key, value in item.items()
    ]
    before = plain(compose("train", chosen, CONF))
    for section, values in own.items():
        assert set(values) <= set(before[section])


def test_a_quick_look_touches_one_batch_of_each_split() -> None:
    config = plain(compose("train", ["debug=fast"], CONF))
    assert (config["trainer"]["max_epochs"], config["trainer"]["limit_batches"]) == (1, 1)
    assert config["train"]["test"] is True


def test_ddp_sim_is_two_cpu_processes_even_on_one_core() -> None:
    trainer = plain(compose("train", ["trainer=ddp_sim"], CONF))["trainer"]
    assert (trainer["accelerator"], trainer["devices"], trainer["strategy"]) == ("cpu", 2, "ddp")
    assert trainer["oversubscribe"] is True
