"""trainer.threads=auto: time a few real steps and take the thread count that is fastest now.

Small tensors gain nothing from a second thread, and OpenMP's spinning barriers are ruinous when a core is
shared; every peer uses all cores by default. The count is recorded and restored on resume, since another
count gives other bits.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import os
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from trainctl.tasks.base import Task
from trainctl.tasks.estimator import is_estimator

ROUNDS = 5
SMALL_STEP_S = 0.002  # below it a second thread gains less than its barriers cost when a core is shared
CLEAR_WIN = 1.25  # a tie goes to fewer threads: they leave a core to others
GIVE_UP = 0.8  # a count that loses a round by this much is not timed further


def allowed_cores() -> int:
    """Cores this process may run on: its affinity, and the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = open("/sys/fs/cgroup/cpu.max", encoding="ascii").read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def choose(task: Task, batch: tuple[Tensor, Tensor], cores: int | None = None) -> int:
    """The fastest thread count, at most `cores`, for a training step of `task` on `batch`; 1 for an estimator.

    Leaves weights and random state alone.
    """
    cores = cores or allowed_cores()
    if cores == 1 or is_estimator(task.net):  # which has no step
        return 1
    # keep what the trial steps would disturb
    state = torch.get_rng_state()
    step = _trial_step(task, batch)
    _timed(step, 1)
    best = 1
    if median(_timed(step, 1) for _ in range(ROUNDS)) > SMALL_STEP_S:
        for count in _candidates(cores):
            if _faster(step, count, best):
                best = count
        del step
        _give_back_memory()
    torch.set_rng_state(state)
    torch.set_num_threads(best)
    return best


def _give_back_memory() -> None:
    """What the trial freed stays with glibc's allocator, beside what training will take; elsewhere nothing is done."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _faster(step: Callable[[], None], count: int, best: int) -> bool:
    """Whether `count` threads clearly beat `best`, in turns so that both see the same load."""
    _timed(step, count)
    ratios = []
    for _ in range(ROUNDS):
        base = _timed(step, best)
        ratios.append(base / _timed(step, count))
        if ratios[-1] < GIVE_UP:
            return False
    return median(ratios) > CLEAR_WIN


def _candidates(cores: int) -> list[int]:
    counts = [2**k for k in range(1, cores.bit_length())]
    return [c for c in counts if c < cores] + [cores]


def _trial_step(task: Task, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    trial = copy.deepcopy(task)
    x, y = batch

    def step() -> None:
        trial.zero_grad()
        trial.loss(trial(x), y).backward()  # type: ignore[no-untyped-call]

    return step


def _timed(step: Callable[[], None], threads: int) -> float:
    """Wall seconds of one step."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
