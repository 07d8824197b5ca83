"""A PostgreSQL server for the tests that share a study between machines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real server; `postgres.url()` is an empty database."""
    with running() as server:
        yield server
