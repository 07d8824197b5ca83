"""A warm worker, forked from `process` with all that is imported: order after order until its study is gone."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from trainctl import launch
from trainctl.errors import SIGNALS, Interrupted, TrainctlError
from trainctl.reporting import report
from trainctl.tuning import trial
from trainctl.tuning.talk import Line, Message, Talk
from trainctl.verbs import train_stacked
from trainctl.verbs.kept_data import KeptData


class Signalled:
    """A worker's ears between trials: a signal that comes while it gets ready is noted, not obeyed."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.listen()

    def listen(self) -> None:
        """Note signals from now on."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: object) -> None:
        self.signum = signum

    def raise_noted(self) -> None:
        """Interrupted for the one that came."""
        if self.signum is not None:
            raise Interrupted(self.signum)


def work(line: Line, start: Message, options: launch.Options, threads: int, packed: dict[str, int]) -> None:
    """A worker's life: order after order until the study's process is gone."""
    settle_in(start)
    torch.set_num_threads(threads)
    signalled, kept = Signalled(), KeptData(packed)
    while (order := line.receive()) is not None:
        signalled.signum = None
        talk = Talk(line, bool(order.get("wait")))
        talk.send({"event": "begun", "pid": os.getpid()})
        if order["do"] == "group":
            group(order, talk, options, kept, signalled)
        else:
            trial.carry_out(order, talk, options, kept, signalled.raise_noted)
        signalled.listen()
        tidy_up(threads)


def tidy_up(threads: int) -> None:
    """What a trial changed for the whole process, and its memory: nets and their trainers are cycles."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def group(order: Message, talk: Talk, options: launch.Options, kept: KeptData, signalled: Signalled) -> None:
    """A group of trials as one stacked model; what it leaves untold failed for the reason that ended it."""
    around = train_stacked.Around(
        lambda one: trial.carry_out(dict(one), talk, options, kept, signalled.raise_noted),
        partial(trial.measured, order),
        lambda run, metrics, intervals: report.write(run, metrics, intervals, "completed", sync=False),
    )
    try:
        with launch.signals_raise():
            signalled.raise_noted()
            launch.quieten()
            train_stacked.run_group(order, talk, kept, around)
            error: BaseException = TrainctlError("the stacked group ended without a word on this trial")
    except BaseException as caught:
        error = caught
    for one in order["trials"]:
        if one["number"] not in talk.told:
            talk.done(one["number"], **trial.told_badly(Path(one["path"]), error))


def settle_in(start: Message) -> None:
    """Output to the worker's own log, its GPU, its share of the cores; the first to go when memory runs out."""
    with open(start["log"], "ab") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    os.environ.update(start["environment"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.StreamHandler(sys.stderr))
    log = logging.getLogger("trainctl")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(logging.NullHandler(logging.CRITICAL))  # so that the ranks of a trial say nothing either
