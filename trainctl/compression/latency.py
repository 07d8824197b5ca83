"""How long a net takes for a batch, what it takes to load, and the memory at the peak: measured, never estimated.

Subjects take turns call by call, so a machine that is busy for a while is busy for all of them alike.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from trainctl.compression.base import Artifact
from trainctl.compression.onnx_net import INPUT, OnnxNet, session, to_onnx

Subject = Callable[[Any], Any]  # of x [B, ...], or of what an exported file takes
Call = tuple[float, float]  # seconds of the clock, and of the processor

WARM_UP = 10  # calls before the first that counts
FEWEST = 5  # calls that count even of a subject that is out of time
TURN = 10  # calls in a row on several threads
PAUSE_S = 0.005
BUSY = 0.1  # the share of a call's time in which it waited, from which the clock measures the others


def latency(
    subjects: Mapping[str, Subject],
    rows: Mapping[int, Any] | Mapping[str, Mapping[int, Any]],
    calls: int = 200,
    threads: int = 1,
    seconds: float = 2.0,
) -> dict[str, dict[int, dict[str, float]]]:
    """{name: {batch: {median_ms, p95_ms, p99_ms, cpu_ms, waited, calls}}} of subjects that take turns.

    cpu_ms: the median of the processor's time in all threads, which a busy machine lengthens least. waited: the share
    of the time that a call on one thread was kept from a core; 0 on several threads, where it cannot be told.

    rows: x [batch, ...] by batch size, for all subjects or by the subject's name. A subject gets at most about
    `seconds` for each batch size, and then fewer `calls`. torch has `threads` threads meanwhile; ONNX Runtime has as
    many as `subjects_of` was told.
    """
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in subjects}
    given = {name: _rows_of(name, rows) for name in subjects}
    for batch in sorted({batch for own in given.values() for batch in own}):
        turns = {name: (subjects[name], own[batch]) for name, own in given.items() if batch in own}
        with _undisturbed(threads):
            times = _take_turns(turns, calls, seconds, TURN if threads > 1 else 1)
        for name, measured in times.items():
            found[name][batch] = summary(measured, threads)
    return found


def reading(times: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """Which figure of `latency` to go by: `median_ms`, or `cpu_ms` where calls waited for a processor that was busy."""
    waited = max((figures["waited"] for by_batch in times.values() for figures in by_batch.values()), default=0.0)
    return "cpu_ms" if waited > BUSY else "median_ms"


def summary(calls: list[Call], threads: int = 1) -> dict[str, float]:
    """What `latency` says of one subject and batch size."""
    wall, cpu = (sorted(times) for times in zip(*calls, strict=True))
    return {
        "median_ms": percentile(wall, 0.5),
        "p95_ms": percentile(wall, 0.95),
        "p99_ms": percentile(wall, 0.99),
        "cpu_ms": percentile(cpu, 0.5),
        "waited": round(max(0.0, 1 - sum(cpu) / sum(wall)), 3) if threads == 1 else 0.0,
        "calls": len(calls),
    }


def percentile(ordered: list[float], share: float) -> float:
    """In ms: the least of the rising seconds that so large a share of them do not exceed."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3, 5)


def subjects_of(
    net: nn.Module, example: Tensor, threads: int = 1, notes: list[str] | None = None
) -> dict[str, Subject]:
    """What to time of a net, by engine: a torch net in `torch` and `onnxruntime`, an `OnnxNet` in `onnxruntime`.

    A net that cannot be exported (torchao's kernels, an operator of its own) is timed in torch alone, and `notes` gets
    the reason. example: x [2 or more, ...].
    """
    return engines(net, as_onnx(net, example, notes), threads)


def as_onnx(net: nn.Module, example: Tensor, notes: list[str] | None = None) -> bytes | None:
    """The net as a file that ONNX Runtime runs, or None with the reason in `notes`."""
    if isinstance(net, Artifact):
        return net.content if isinstance(net, OnnxNet) else None
    if any(is_traceable_wrapper_subclass(parameter) for parameter in net.parameters()):
        reason = "its weights are quantized for torch"
    else:
        try:
            content = to_onnx(net, example)
            session(content, 1)  # exported, it may still use a type that ONNX Runtime has no kernel for
            return content
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    if notes is not None:
        notes.append(f"not timed in ONNX Runtime: {reason}")
    return None


def engines(net: nn.Module, onnx: bytes | None, threads: int) -> dict[str, Subject]:
    """As `subjects_of`, of a net whose ONNX file is made already."""
    subjects: dict[str, Subject] = {} if isinstance(net, OnnxNet) else {"torch": net.eval()}
    return subjects if onnx is None else subjects | {"onnxruntime": of_onnx(onnx, threads)}


def of_onnx(content: bytes, threads: int = 1) -> Subject:
    """A model.onnx in ONNX Runtime, from the tensor it is given to the array it returns."""
    running = session(content, threads)
    return lambda x: running.run(None, {INPUT: x.numpy()})


def _rows_of(name: str, rows: Mapping[Any, Any]) -> Mapping[int, Any]:
    own: Mapping[int, Any] = rows.get(name, {}) if all(isinstance(key, str) for key in rows) else rows
    return own


@contextlib.contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    """torch on so many threads, without gradients, and Python's garbage collection waits."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def _take_turns(
    turns: Mapping[str, tuple[Subject, Any]], calls: int, seconds: float, turn: int
) -> dict[str, list[Call]]:
    """What each call took. The order changes from round to round: a neighbour's weights leave the caches cold.

    On several threads a turn is of several calls after a pause and one that does not count, for an engine's threads
    go on spinning for some milliseconds and would take the cores from the next one.
    """
    for subject, x in turns.values():
        _warm_up(subject, x, seconds / 4)
    times: dict[str, list[Call]] = {name: [] for name in turns}
    spent = dict.fromkeys(turns, 0.0)
    order = random.Random(0)
    while left := [
        name for name in turns if len(times[name]) < calls and (spent[name] < seconds or len(times[name]) < FEWEST)
    ]:
        order.shuffle(left)
        for name in left:
            subject, x = turns[name]
            if turn > 1:
                time.sleep(PAUSE_S)
                subject(x)
            for _ in range(min(turn, calls - len(times[name]))):
                busy, started = time.process_time(), time.perf_counter()
                subject(x)
                took = time.perf_counter() - started
                times[name].append((took, time.process_time() - busy))
                spent[name] += took
                if spent[name] >= seconds and len(times[name]) >= FEWEST:
                    break
    return times


def _warm_up(subject: Subject, x: Any, seconds: float) -> None:
    """Two calls at least: the first one allocates, the second may still choose kernels."""
    until = time.perf_counter() + seconds
    for call in range(WARM_UP):
        if call >= 2 and time.perf_counter() > until:
            return
        subject(x)
