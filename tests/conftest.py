"""What all tests share: one torch thread, a clean Hydra, and the real command line as a fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

# before torch is imported anywhere: test processes share the cores, and small tensors need one thread
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# a terminal of the developer must not change what a test sees
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)

settings.register_profile("trainctl", deadline=None, derandomize=True)
settings.load_profile("trainctl")


@dataclass(frozen=True)
class Done:
    """A finished command: exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object that `--json` prints on stdout."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@pytest.fixture(autouse=True)
def clean_hydra() -> Iterator[None]:
    """Hydra keeps one global state; no test leaves it to the next."""
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def trainctl(tmp_path: Path) -> Callable[..., Done]:
    """Runs `trainctl WORDS...` as a real process: `trainctl("train", "model=mlp", cwd=..., env={...})`.

    It runs in `tmp_path` unless told otherwise; `env` adds variables, and a value of None takes one away.
    """

    def run(*words: str, cwd: Path = tmp_path, env: Mapping[str, str | None] | None = None,
            timeout: float = 300) -> Done:
        merged = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
        command = [sys.executable, "-c", "import sys; from trainctl.cli.app import main; sys.exit(main())", *words]
        done = subprocess.run(command, cwd=cwd, env=merged, capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)
        return Done(done.returncode, done.stdout, done.stderr)

    return run
