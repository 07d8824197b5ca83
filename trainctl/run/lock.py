"""One writer per run directory: a file lock that says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from trainctl.errors import RunError
from trainctl.run import machine

_TRIES, _WAIT_S = 40, 0.25


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`; RunError naming the holder when it is taken, OSError when it cannot be made."""
    with open(path, "a+", encoding="utf-8") as file:
        _take(file)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on host {machine.host()} since {datetime.now():%H:%M}")
        file.flush()
        yield


def _take(file: TextIO) -> None:
    """When the holder is dead, wait for its workers, which inherited the lock, to notice and end."""
    holder = ""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
        pid = re.match(r"pid (\d+) on host (.*) since", holder)
        if pid is None or pid[2] != machine.host() or machine.start_ticks(int(pid[1])) is not None:
            break
        time.sleep(_WAIT_S)
    raise RunError(f"run is in use by {holder or 'another process'}")
