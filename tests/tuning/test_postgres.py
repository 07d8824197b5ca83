"""Studies in a real PostgreSQL: several processes share the work, and what one that is killed had is not lost."""

from __future__ import annotations

from tests.postgres import Postgres


def test_the_server_answers_and_every_database_is_new(postgres: Postgres) -> None:
    one, other = postgres.url(), postgres.url()
    assert one != other
    postgres.execute("CREATE TABLE trials (number INTEGER)", one)
    assert postgres.execute("SELECT count(*) FROM trials", one) == [(0,)]
    assert postgres.execute("SELECT current_setting('server_version_num')::int >= 120000", other) == [(True,)]
