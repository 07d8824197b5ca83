from __future__ import annotations

import subprocess
import sys

from trainctl.metrics import names


def test_names_are_free_of_torch() -> None:
    code = "import sys, trainctl.metrics.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_name_has_a_direction() -> None:
    assert names.produced("class")[0] == "loss" and "auroc" in names.produced("class")
    assert "r2" in names.produced("number") and set(names.quick("number")) <= set(names.produced("number"))
    assert [names.mode(name) for name in ("val/loss", "rmse", "val/auroc", "test/r2")] == ["min", "min", "max", "max"]
