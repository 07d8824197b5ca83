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
