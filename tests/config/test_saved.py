from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from trainctl.config import saved
from trainctl.config.compose import compose, plain
from trainctl.errors import RunError, UsageError


def test_references_are_resolved_and_the_environment_stays_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("COUNT", "5")
    config = OmegaConf.create(
        {
            "seed": 3,
            "paths": {"data": "${oc.env:FOLDER,data}"},
            "data": {"path": "${paths.data}/x.csv", "seed": "${seed}", "token": "${oc.env:TOKEN}"},
            "count": "${oc.decode:${oc.env:COUNT}}",
            "fallback": ["${oc.env:NOT_SET,${seed}}"],
            "literal": "a\\${b}",
        }
    )
    text = saved.dump(config)
    assert text == (
        "seed: 3\n"
        "paths:\n"
        "  data: ${oc.env:FOLDER,data}\n"
        "data:\n"
        "  path: ${oc.env:FOLDER,data}/x.csv\n"
        "  seed: 3\n"
        "  token: ${oc.env:TOKEN}\n"
        "count: ${oc.decode:${oc.env:COUNT}}\n"
        "fallback:\n"
        "- ${oc.env:NOT_SET,3}\n"
        "literal: a${b}\n"
    )
    monkeypatch.setenv("FOLDER", "/elsewhere")
    assert saved.load(text) == {
        "seed": 3,
        "paths": {"data": "/elsewhere"},
        "data": {"path": "/elsewhere/x.csv", "seed": 3, "token": "secret"},
        "count": 5,
        "fallback": ["3"],
        "literal": "a${b}",
    }


def test_a_composed_config_survives_the_file() -> None:
    config = compose("train", ["data.path='é ü.csv'"])
    assert saved.load(saved.dump(config)) == plain(config)


def test_an_unresolvable_config_is_not_written() -> None:
    with pytest.raises(UsageError) as caught:
        saved.dump(OmegaConf.create({"a": "${nope}"}))
    assert str(caught.value) == "`a` refers to `nope`, which does not exist"


DAMAGED = {
    "a: [1": "config.yaml of the run is damaged: it is not valid YAML",
    "- 1": "config.yaml of the run is damaged: it holds no keys",
    "!!python/object/apply:os.system ['true']": "config.yaml of the run is damaged: it is not valid YAML",
    "a: ${oc.env:TRAINCTL_NOT_SET}": (
        "config.yaml of the run needs ${oc.env:TRAINCTL_NOT_SET}: KeyError raised while resolving interpolation: "
        "\"Environment variable 'TRAINCTL_NOT_SET' not found\""
    ),
}


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_config_of_a_run(text: str) -> None:
    with pytest.raises(RunError) as caught:
        saved.load(text)
    assert str(caught.value) == DAMAGED[text]
