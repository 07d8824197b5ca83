"""A process that has imported torch and Lightning once and forks a fresh command line for every order.

Start-up costs five seconds, a fork some milliseconds, and the forked process is as real: it has its own memory,
signals and exit code, and can be killed. Orders and answers are JSON lines on stdin and stdout.
Nothing may run in this process that starts threads (a polars query, a backward pass), since threads do not survive.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any


def main() -> None:
    for name in (
        "trainctl.cli.commands",
        "trainctl.cli.looking",
        "trainctl.launch",
        "trainctl.verbs.train",
        "trainctl.verbs.evaluate",
        "trainctl.verbs.predict",
        "trainctl.reporting.report",
        "trainctl.data.synthetic",
        "trainctl.models.mlp",
    ):
        importlib.import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            print(json.dumps({"pid": fork(order)}), flush=True)
        else:
            _, status = os.waitpid(order["wait"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(order["cwd"])
    for name, value in order["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, handler in (("SIGTERM", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
        signal.signal(getattr(signal, name), handler)
    hamper(**order.get("hamper", {}))
    sys.argv = ["trainctl", *order["start"]]
    code = 1
    with contextlib.suppress(BaseException):
        try:
            from trainctl.cli.app import main as command_line

            command_line()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def hamper(limits: dict[str, int] | None = None, umask: int | None = None, bound_by_modes: bool = False) -> None:
    """Make this process's life hard: resource limits, a umask, and for root: file modes that count."""
    for name, value in (limits or {}).items():
        before = resource.getrlimit(getattr(resource, name))
        resource.setrlimit(getattr(resource, name), (value, before[1]))
        # the last handler in is the first to run: what measures coverage may write again
        atexit.register(resource.setrlimit, getattr(resource, name), before)
    if umask is not None:
        os.umask(umask)
    if bound_by_modes:
        obey_modes()


def obey_modes() -> None:
    """Give up CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER, which only root has."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    for index in range(6):
        sets[index] &= ~0b1110 if index < 3 else ~0
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    main()
