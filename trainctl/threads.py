"""trainer.threads=auto: time a few real steps and take the thread count that is fastest now.

Small tensors gain nothing from a second thread, and OpenMP's spinning barriers are ruinous when a core is
shared; every peer uses all cores by default. The count is recorded and restored on resume, since another
count gives other bits.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from trainctl.tasks.base import Task

BUDGET_S = 0.3
GIVE_UP = 1.5  # a count whose first step takes this much longer than the best is not timed further


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
    """The fastest thread count, at most `cores`, for a training step of `task` on `batch`.

    Leaves weights and random state alone.
    """
    cores = cores or allowed_cores()
    if cores == 1:
        return 1
    # keep what the trial steps would disturb
    state = torch.get_rng_state()
    step = _trial_step(task, batch)
    best, best_s = 1, _seconds_per_step(step, 1, None)
    for count in _candidates(cores):
        seconds = _seconds_per_step(step, count, best_s)
        if seconds < 0.9 * best_s:  # a tie goes to fewer threads: they leave a core to others
            best, best_s = count, seconds
    torch.set_rng_state(state)
    torch.set_num_threads(best)
    return best


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


def _seconds_per_step(step: Callable[[], None], threads: int, best_s: float | None) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()  # warm-up
    first = time.perf_counter() - started
    if best_s is not None and first > 20 * best_s:
        return first
    times: list[float] = []
    while len(times) < 3 or (len(times) < 9 and time.perf_counter() - started < BUDGET_S):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
        if best_s is not None and times[-1] > GIVE_UP * best_s and len(times) >= 2:
            break
    return sorted(times)[len(times) // 2]
