"""The command line and its one error edge: every failure leaves with a sentence and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from trainctl.cli import bash_completion, console
from trainctl.errors import SIGNALS, Interrupted, TrainctlError, raise_interrupted

bash_completion.install()

EXIT_CODES = """Exit codes:

\b
  0    done
  1    internal error
  2    wrong command line or config
  3    data missing, unreadable or unfit
  4    checkpoint or run directory missing, damaged, busy or refused
  5    out of memory, disk or permission
  6    diverged: a loss or monitored metric is not finite
  7    jobs of a sweep failed, or more trials of a search than `tune.max_failure_rate`
  8    a limit that you set was not met
  130  stopped by Ctrl-C (SIGINT); resume with `trainctl train --resume RUN`, and so for other verbs that take long
  143  stopped by SIGTERM; resume likewise
"""

app = typer.Typer(
    name="trainctl",
    help="Train, evaluate and optimise models. A run is a directory with a config; every verb reads one and makes one.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    for signum in SIGNALS:
        signal.signal(signum, raise_interrupted)
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = run(given)
    # the outcome is settled: a signal that comes now must not change the exit code
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process without taking torch apart piece by piece, which costs a second.

    Threads are waited for and exit handlers run as at any end of Python, in its order.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """The exit code of a command line; no exception leaves it."""
    from trainctl.cli import benchmarking, commands, compressing, exporting, looking

    assert benchmarking and commands and compressing and exporting and looking
    log_to_stderr(arguments)
    try:
        result = app(args=list(arguments), prog_name="trainctl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        return failed("stopped by SIGINT", 130)
    except TrainctlError as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        return failed(str(error), error.exit_code)
    except Interrupted as interrupted:
        return failed(f"stopped by {interrupted}", 128 + interrupted.signum)
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own usage errors, which share no public base class
            return misused(error, error.format_message())
        if isinstance(error, MemoryError):
            return failed("out of memory", 5)
        if "--traceback" in arguments:
            traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        hint = "see error.txt of the run, or use --traceback"
        return failed(f"internal error: {type(error).__name__}: {first} ({hint})", 1)


def misused(error: Exception, message: str) -> int:
    """Wrong options or arguments: one sentence that ends in where to read on; without any, the help itself."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        console.write(message, sys.stderr)
        return 2
    path = context.command_path if context is not None else "trainctl"
    message = message[:1].lower() + message[1:].replace(". Did", "; did").rstrip(".")
    return failed(message if message.endswith("?") else f"{message}; see `{path} --help`", 2)


def failed(sentence: str, code: int) -> int:
    """Print the one line and pass the code on."""
    console.emit_error(" ".join(sentence.split()))
    return code


def log_to_stderr(arguments: Sequence[str]) -> None:
    """Plain lines on stderr: what a run tells while it works."""
    log = logging.getLogger("trainctl")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    log.handlers = [StderrLines()]
    quiet = "-q" in arguments or "--quiet" in arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    log.handlers[0].setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class StderrLines(logging.Handler):
    """Writes records as lines; a closed stderr cannot end a run."""

    def emit(self, record: logging.LogRecord) -> None:
        """`warning: ...` for warnings, the bare text otherwise."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        console.write(prefix + record.getMessage(), sys.stderr)
