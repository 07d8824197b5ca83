"""Samplers: all of them propose on a space with conditions, as a function of the seed and the trial's number."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuning.studies import LR, MIXED, Settings
from trainctl.errors import UsageError
from trainctl.tuning import samplers
from trainctl.tuning.space import Space
from trainctl.tuning.study import Study

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
SEARCHING = [name for name in NAMES if name != "grid"]


def options(name: str, node: str = "sampler") -> dict[str, Any]:
    """A shipped config, starting to learn after four trials."""
    found = dict(yaml.safe_load((CONF / node / f"{name}.yaml").read_text()))
    if "n_startup_trials" in found:
        found["n_startup_trials"] = 4
    if "population_size" in found:
        found["population_size"] = 4
    return found


def proposals(folder: Path, settings: Settings, space: Space = MIXED, each: int = 1) -> list[dict[str, Any]]:
    """All proposals of a study whose objective is the learning rate; a new process begins after `each` trials."""
    while True:
        study = Study.open(folder, settings, space, trusted=True)
        for _ in range(each):
            trial = study.next()
            if trial is None:
                found = [row.params for row in study.rows()]
                study.close()
                return found
            study.complete(trial, [float(trial.params["optimizer.lr"])] * len(settings.objectives), None, 1.0)
        study.close()


@pytest.mark.parametrize("name", SEARCHING)
def test_every_sampler_proposes_on_a_space_with_conditions(name: str, tmp_path: Path) -> None:
    found = proposals(tmp_path, Settings(sampler=options(name)), each=12)
    assert len(found) == 12
    for point in found:
        assert list(point)[:3] == ["model", "optimizer.lr", "model.dropout"]
        assert ("model.width" in point) == (point["model"] == "mlp")
        assert point["model"] in ("mlp", "resmlp")
        assert 1e-4 <= point["optimizer.lr"] <= 0.1
        assert min(abs(point["model.dropout"] - 0.1 * step) for step in range(6)) < 1e-9
        assert point.get("model.width", 16) in range(16, 65)
    assert len({point["optimizer.lr"] for point in found}) > 4
    assert {point["model"] for point in found} == {"mlp", "resmlp"}


@pytest.mark.parametrize("name", SEARCHING)
def test_a_study_that_is_resumed_all_the_time_proposes_the_same(name: str, tmp_path: Path) -> None:
    settings = Settings(sampler=options(name), trials=10)
    whole = proposals(tmp_path / "whole", settings, each=10)
    assert proposals(tmp_path / "parts", settings, each=1) == whole
    other = dataclasses.replace(settings, seed=8)
    assert proposals(tmp_path / "other", other, each=10) != whole


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "random", "qmc"])
def test_several_objectives(name: str, tmp_path: Path) -> None:
    two = {"objectives": ("val/loss", "parameters"), "directions": ("minimize", "maximize")}
    assert len(proposals(tmp_path, Settings(sampler=options(name), trials=8, **two), each=8)) == 8


def test_tpe_learns(tmp_path: Path) -> None:
    found = proposals(tmp_path, Settings(sampler=options("tpe"), trials=40), each=40)
    late = sorted(point["optimizer.lr"] for point in found[20:])
    assert late[10] < 1e-3  # chance alone: 3e-3


def test_qmc_fills_each_eighth_of_the_range_once(tmp_path: Path) -> None:
    found = proposals(tmp_path, Settings(sampler=options("qmc"), trials=8), Space((LR,), ()), each=3)
    eighths = {int(8 * (math.log10(point["optimizer.lr"]) + 4) / 3) for point in found}
    assert eighths == set(range(8))


def test_the_next_of_a_batch_know_of_each_other(tmp_path: Path) -> None:
    study = Study.create(tmp_path, Settings(sampler=options("tpe"), trials=16), MIXED)
    for trial in study.next_many(6):
        study.complete(trial, [float(trial.params["optimizer.lr"])], None, 1.0)
    batch = study.next_many(20)
    assert [trial.number for trial in batch] == list(range(6, 16))
    assert len({trial.params["optimizer.lr"] for trial in batch}) == 10


@pytest.mark.parametrize(
    ("node", "objectives", "sentence"),
    [
        ({"name": "tpee"}, 1, "no sampler `tpee`; have: tpe, random, qmc, gp, cmaes, nsga2, grid; did you mean `tpe`?"),
        ({"name": "cmaes"}, 2, "`sampler=cmaes` takes one objective, the study has 2; use `sampler=nsga2`"),
        (
            {"name": "tpe", "startup_trials": 3},
            1,
            "`sampler.startup_trials`: `sampler=tpe` has no such option; did you mean `n_startup_trials`?",
        ),
        (
            {"name": "nsga2", "population_size": 1},
            1,
            "`sampler=nsga2`: `population_size` must be greater than or equal to 2.",
        ),
    ],
)
def test_a_sampler_that_cannot_be_is_a_sentence(node: dict[str, Any], objectives: int, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        samplers.make(node, 0, objectives, {})
    assert str(caught.value) == sentence


def test_a_state_kept_as_a_pickle_is_read_only_when_trusted(tmp_path: Path) -> None:
    settings = Settings(sampler=options("cmaes"))
    Study.create(tmp_path, settings, MIXED).close()
    with pytest.raises(UsageError) as caught:
        Study.open(tmp_path, settings, MIXED)
    assert str(caught.value) == (
        "`sampler=cmaes` keeps its state as a pickle, which running could execute code; pass `--trust cmaes` for a "
        "study that you made"
    )
    assert Study.open(tmp_path).rows() == []  # only looking is safe
    Study.open(tmp_path, settings, MIXED, trusted=True).close()
