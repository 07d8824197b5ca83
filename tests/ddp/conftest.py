"""The run that others are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ddp.commands import WORK


@pytest.fixture(scope="session")
def undisturbed(forked, tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = forked.run(*WORK, cwd=folder)
    assert done.code == 0, done.err
    return folder, done
