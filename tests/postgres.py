"""A real PostgreSQL for tests: a server of their own below /tmp, reached over the loopback address, gone afterwards.

The server refuses to run as root, so root starts it as the user `postgres` or `nobody`. It ends when the pipe to its
shell closes, so it does not outlive the tests, however these end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

USER = "trainctl"
MISSING = (
    "no PostgreSQL server is here; install Debian's package `postgresql` (`apt-get install postgresql`) or put "
    "`initdb` and `postgres` on PATH"
)
START_S = 60
# the shell ends the server at once when its own stdin closes; nothing in it is needed any more
WATCHED = '"$@" & server=$!; read -r _; kill -QUIT $server; wait $server'
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "unix_socket_directories=")


class Postgres:
    """A running server; `url("name")` is a new, empty database of it."""

    def __init__(self, port: int) -> None:
        self.port, self._numbers = port, itertools.count()

    def url(self, name: str = "study") -> str:
        """The URL of a database made for the caller."""
        database = f"{name}_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{database}"')
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of one SQL statement."""
        connection = psycopg2.connect(url or self._own(), connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _own(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`: from PATH, else Debian's newest; None when there is none."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folders = [Path(found).resolve().parent] * bool(found) + debian[::-1]
    return next((path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server from its first start to its end; fails the test with a sentence when there is none to start."""
    binaries = programs()
    if binaries is None:
        pytest.fail(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="trainctl-postgres-", dir="/tmp"))
    process = None
    try:
        user = _unprivileged(folder)
        words = [binaries / "initdb", "-D", folder / "data", "-U", USER, "--auth=trust", "--encoding=UTF8",
                 "--no-locale", "--no-sync"]
        made = subprocess.run(words, cwd=folder, capture_output=True, text=True, **user)
        assert made.returncode == 0, made.stderr
        process, port = _started(binaries, folder, user)
        yield Postgres(port)
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(folder)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """What `subprocess` needs to run the server as a user that owns `folder` and is not root."""
    if os.getuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in ("postgres", "nobody") if name in known)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _started(binaries: Path, folder: Path, user: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """The shell around a server that answers, and its port; another process may take a free port first, so thrice."""
    for attempt in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = [word for setting in FAST for word in ("-c", setting)]
        words = [binaries / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), *settings]
        said = folder / f"{attempt}.log"
        with said.open("wb") as file:
            process = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", *words], cwd=folder, stdin=subprocess.PIPE, stdout=file, stderr=file, **user
            )
        if _answers(port, said):
            return process, port
        _stop(process)
    pytest.fail(f"PostgreSQL did not start:\n{said.read_text(encoding='utf-8')}")


def _answers(port: int, said: Path) -> bool:
    server, deadline = Postgres(port), time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg2.OperationalError):
            server.execute("SELECT 1")
            return True
        text = said.read_text(encoding="utf-8")
        if "FATAL:  could not" in text or "database system is shut down" in text:
            return False
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
