"""A process that has imported torch and Lightning once and forks a fresh command line for every order.

Start-up costs five seconds, a fork some milliseconds, and the forked process is as real: it has its own memory,
signals and exit code, and can be killed. Orders and answers are JSON lines on stdin and stdout.
Nothing may run in this process that starts threads (a polars query, a backward pass), since threads do not survive.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys


def main() -> None:
    for name in (
        "trainctl.cli.commands", "trainctl.launch", "trainctl.verbs.train", "trainctl.verbs.evaluate",
        "trainctl.verbs.predict", "trainctl.reporting.report", "trainctl.data.synthetic", "trainctl.models.mlp",
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


def fork(order: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, handler in (("SIGTERM", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
        signal.signal(getattr(signal, name), handler)
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


if __name__ == "__main__":
    main()
