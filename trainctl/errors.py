"""Every error a user can cause: one sentence, one exit code. `cli.app` is the only place that catches them.

Raise the kind whose code fits; write the message as: what was given, what must hold, what to type next.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TrainctlError(Exception):
    """A failure with one sentence for the user; subclasses differ in exit code only."""

    exit_code = 1


class UsageError(TrainctlError):
    """Wrong command line or config."""

    exit_code = 2


class DataError(TrainctlError):
    """Data that is missing, unreadable or unfit for the job."""

    exit_code = 3


class RunError(TrainctlError):
    """A checkpoint or run directory that is missing, damaged, busy or refused."""

    exit_code = 4


class ResourceError(TrainctlError):
    """Memory, disk or permission ran out."""

    exit_code = 5


class DivergedError(TrainctlError):
    """The loss or a monitored metric became non-finite."""

    exit_code = 6


class SweepError(TrainctlError):
    """Some jobs of a sweep failed; the others finished."""

    exit_code = 7


class GateError(TrainctlError):
    """A limit that the user set was not met."""

    exit_code = 8


class Stopped(TrainctlError):
    """A signal ended the run; what is needed to resume was kept."""

    def __init__(self, signum: int, message: str = "") -> None:
        name = signal.Signals(signum).name
        super().__init__(message or f"stopped by {name}")
        self.signum = signum
        self.exit_code = 128 + signum


class Interrupted(BaseException):
    """A signal arrived; no `except Exception` of a library may swallow it. The edges turn it into Stopped."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


_received: list[int] = []  # by `raise_interrupted`, until what they came for has ended


def raise_interrupted(signum: int, frame: object) -> None:
    """The handler for SIGNALS wherever training is not in the middle of a fit."""
    _received.append(signum)
    raise Interrupted(signum)


def raise_swallowed() -> None:
    """Interrupted for a signal that is still to be obeyed: raised in a `__del__` or a callback, it ended nothing."""
    if _received:
        raise Interrupted(_received[-1])


def obeyed() -> int | None:
    """What the signals came for has ended; returns the last of them."""
    signum = _received[-1] if _received else None
    _received.clear()
    return signum


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`; did you mean `x`?` for the one option that begins so or the nearest, or an empty string when none is near."""
    options = list(options)
    begun = [option for option in options if option.startswith(name)]
    near = begun if len(begun) == 1 else difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""
