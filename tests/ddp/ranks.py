"""Ranks of gloo groups, forked from a process that imports torch once: `python ranks.py FOLDER WORLD_SIZE...`.

Each rank r of a group of w evaluates 1 to 40 rows, fits nets on odd splits, and writes what it
found to FOLDER/w-r.json.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from trainctl import build, launch, metrics
from trainctl.data.base import Data, Split
from trainctl.data.spec import DataSpec
from trainctl.optimizers import parameter_groups
from trainctl.tasks.classification import Classification
from trainctl.tasks.sharding import Sharded
from trainctl.tasks.training import Training
from trainctl.verbs import inference

ROWS = range(1, 41)
SPEC = DataSpec(kind="table", numeric=("a", "b"), target="class", classes=("no", "maybe", "yes"))


class Numbers(Data):
    """Two numbers a row, three classes; as many rows in val and test as asked for."""

    def __init__(self, train: int, rest: int) -> None:
        super().__init__(batch_size=4, eval_batch_size=5)
        self.sizes = {"train": train, "val": rest, "test": rest}

    def load(self) -> dict[str, Split]:
        self.spec = SPEC
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(64, 2, generator=draw), torch.arange(64) % 3
        return {name: Split(x[:n], y[:n], np.arange(n)) for name, n in self.sizes.items()}


def task(norm: type[nn.Module] = nn.BatchNorm1d) -> Classification:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), norm(8), nn.ReLU(), nn.Linear(8, 3))

    def optimizer(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameter_groups(net, 0.3), 0.01)

    return Classification(net, SPEC, Training(optimizer, gradient_clip_val=0.1))


def trainer(world_size: int, **options: Any) -> pl.Trainer:
    node = {"accelerator": "cpu", "devices": world_size, "strategy": "ddp" if world_size > 1 else "auto",
            "precision": "32-true", "max_epochs": 2, **options}
    return build.trainer({"trainer": node}, Path.cwd())


def evaluated(world_size: int) -> dict[int, dict[str, float | None]]:
    """Number of rows and every metric of them, for each of ROWS."""
    found = {}
    made, evaluating = task(), trainer(world_size)
    for rows in ROWS:
        outputs, y = inference.outputs(evaluating, made, Numbers(30, rows))
        assert y.tolist() == [i % 3 for i in range(rows)]
        report = metrics.evaluate_outputs(outputs, y, SPEC, 0, 0)
        found[rows] = {"rows": report.rows, **report.metrics}
    return found


def fit(made: Classification, fitting: pl.Trainer) -> dict[str, float]:
    """Figures after two epochs, when rank 0 has one validation batch more than the others."""
    data = Numbers(30, 10 * fitting.world_size + 1)
    data.trainer = fitting
    data.chunked, data.chunk = True, 3
    fitting.fit(made, datamodule=data)
    return {name: float(value) for name, value in fitting.callback_metrics.items()}


def fitted(world_size: int) -> dict[str, Any]:
    """Figures and weights; the same net with its weights whole and in shards."""
    made = task()
    found: dict[str, Any] = {"batch norm": fit(made, trainer(world_size))}
    found["weights"] = [p.tolist() for p in made.net.parameters()]
    if world_size == 2:
        fitting = trainer(world_size, strategy=Sharded())
        found["whole"] = fit(task(nn.LayerNorm), trainer(world_size))
        found["sharded"] = fit(task(nn.LayerNorm), fitting)
        found["decayed"] = [len(group["params"]) for group in fitting.optimizers[0].param_groups]
    return found


def rank(folder: Path, number: int, world_size: int, port: int) -> None:
    signal.alarm(100)  # ranks that wait for each other for ever
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
                   "LOCAL_RANK": str(number), "WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"}
    launch.quieten()
    found = {"evaluated": evaluated(world_size), "fitted": fitted(world_size)}
    (folder / f"{world_size}-{number}.json").write_text(json.dumps(found), encoding="utf-8")


def main(folder: Path, world_sizes: list[int]) -> int:
    torch.set_num_threads(1)
    for world_size in world_sizes:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for number in range(world_size):
            child = os.fork()
            if not child:
                code = 1
                try:
                    rank(folder, number, world_size, port)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        if any([os.waitpid(child, 0)[1] for child in children]):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]))
