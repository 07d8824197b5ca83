"""The commands that are suggested after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainctl.cli.following import next_commands
from trainctl.run.run import Run

OURS = {
    "data": {"_target_": "trainctl.data.tabular.Tabular"},
    "task": {"_target_": "trainctl.tasks.auto.auto"},
    "optimizer": {"_target_": "torch.optim.AdamW"},
}
EVALUATE, PREDICT = "trainctl evaluate {run}", "trainctl predict {run} FILE -o predictions.csv"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [EVALUATE, PREDICT]),
        ({"model": {"_target_": "my_pkg.nets.Net"}}, [f"{EVALUATE} --trust my_pkg", f"{PREDICT} --trust my_pkg"]),
        ({"data": {"_target_": "theirs.Digits"}}, [f"{EVALUATE} --trust theirs"]),
        ({"task": {"_target_": "a.Task"}, "logger": [{"_target_": "b.Log"}]}, [f"{EVALUATE} --trust a --trust b"]),
    ],
)
def test_commands_that_will_work(tmp_path: Path, config: dict[str, Any], expected: list[str]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    run = Run.create(path, "train", {**OURS, **config}, [])
    run.finish({}, None, {}, {})
    assert next_commands(Run.open(path)) == [line.format(run=path) for line in expected]


THEIRS = {"model": {"_target_": "my_pkg.nets.Net"}}


@pytest.mark.parametrize("verb", ["prune", "quantize"])
def test_a_compressed_run_is_also_exported(tmp_path: Path, verb: str) -> None:
    run = Run.create(tmp_path, verb, {**OURS, **THEIRS}, [])
    run.finish({}, None, {}, {})
    export = "trainctl export {run} format=onnx"
    expected = [f"{line.format(run=tmp_path)} --trust my_pkg" for line in (EVALUATE, PREDICT, export)]
    assert next_commands(Run.open(tmp_path)) == expected


@pytest.mark.parametrize(("config", "trust"), [({}, ""), (THEIRS, " --trust my_pkg")])
def test_after_a_search_its_best_point_is_looked_at(tmp_path: Path, config: dict[str, Any], trust: str) -> None:
    run = Run.create(tmp_path, "compress", {**OURS, **config}, [])
    run.finish({}, None, {}, {}, best="trials/3")
    best = f"{tmp_path}/trials/3"
    assert next_commands(Run.open(tmp_path)) == [
        f"trainctl evaluate {best}{trust}", f"trainctl export {best} format=onnx{trust}",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["train", "prune", "quantize", "compress"])
def test_what_was_stopped_is_resumed(tmp_path: Path, verb: str) -> None:
    run = Run.create(tmp_path, verb, {**OURS, **THEIRS}, [])
    run.stop(2, "stopped by SIGINT")
    assert next_commands(Run.open(tmp_path)) == [f"trainctl {verb} --resume {tmp_path} --trust my_pkg"]
