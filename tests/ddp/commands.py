"""Work for two ranks, what a run of it left, and signals to its processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

# everything that has state: dropout, a schedule by steps, accumulation, averaged weights, patience
WORK = [
    "train", "data=synthetic", "data.rows=1501", "data.batch_size=16", "trainer=ddp_sim", "trainer.max_epochs=12",
    "model.dropout=0.2", "ema=0.99", "scheduler=cosine", "trainer.accumulate_grad_batches=2",
    "task.label_smoothing=0.1", "trainer.gradient_clip_val=1.0", "trainer.threads=1",
]
SMALL = ["data=synthetic", "data.rows=303", "trainer.max_epochs=2"]
LONG = ["train", "data=synthetic", "data.rows=60000", "trainer=ddp_sim", "trainer.max_epochs=300", "callbacks=none"]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def rows(run: Path) -> list[dict[str, Any]]:
    """The epochs' figures; how long they took may differ."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def record(run: Path) -> dict[str, Any]:
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def only_run(folder: Path, verb: str = "train") -> Path:
    (run,) = (folder / "runs" / verb).iterdir()
    return run


def workers(pid: int) -> list[int]:
    """The ranks of a command, in order, once both have started."""
    for _ in range(2000):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        ranks = [int(child) for child in children if b"trainctl.worker" in read(f"/proc/{child}/cmdline")]
        if len(ranks) == 2:
            return ranks
        time.sleep(0.005)
    raise AssertionError("no two workers")


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def gone(pids: list[int], within: float) -> bool:
    """Whether none of the processes is left after so many seconds; zombies count as gone."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(read(f"/proc/{pid}/cmdline") for pid in pids):
            return True
        time.sleep(0.02)
    return False


def send(pid: int, ranks: list[int], how: str) -> None:
    """`SIGTERM parent`, `SIGINT everyone`, `SIGKILL rank 1`."""
    name, _, whom = how.partition(" ")
    for target in {"parent": [pid], "everyone": [pid, *ranks], "rank 1": ranks[1:]}[whom]:
        os.kill(target, signal.Signals[name])
