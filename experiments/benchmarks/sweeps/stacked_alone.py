"""CPU time per trial of the stacked trainer beside a plain PyTorch loop over the same trials, in one process.

    python experiments/benchmarks/sweeps/stacked_alone.py --trials 32 --hidden 64 --epochs 5
    python experiments/benchmarks/sweeps/stacked_alone.py --categorical 8 --dropout 0.2

The stack makes ready, trains, validates with its metrics after every epoch and hands out the weights; the loop has
fused AdamW, validates the loss and logs nothing. Medians of `--rounds` rounds that take turns.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from trainctl import build
from trainctl.config.compose import compose, plain
from trainctl.data.loader import epoch_order
from trainctl.stacked.measuring import measure_many
from trainctl.stacked.trainer import Member, StackedTrainer


def main() -> None:
    """Print one line per way."""
    given = arguments()
    torch.set_num_threads(given.threads)
    members = trials(given)
    ways: dict[str, Callable[[list[Member], int], None]] = {"stacked": stacked, "plain loop": loop}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds + 1):
        for way, run in ways.items():
            fresh = [Member(copy.deepcopy(m.task), m.data, m.seed) for m in members]
            started = time.process_time()
            run(fresh, given.epochs)
            times[way].append((time.process_time() - started) / given.trials * 1e3)
    for way, found in times.items():
        warm = found[1:]
        print(f"{way}: {median(warm):.2f} CPU ms per trial ({min(warm):.2f}-{max(warm):.2f})")
    print(f"ratio: {median(times['plain loop'][1:]) / median(times['stacked'][1:]):.2f}")


def arguments() -> argparse.Namespace:
    """What is run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--numeric", type=int, default=30)
    parser.add_argument("--categorical", type=int, default=0)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    parser.add_argument("--dropout", type=float, default=0.0, help="of the first trial; the others have a little less")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("words", nargs="*", help="more overrides, such as model=resmlp")
    return parser.parse_args()


def trials(given: argparse.Namespace) -> list[Member]:
    """Members over a range of learning rates."""
    base = [
        "data=synthetic", f"data.rows={given.rows}", f"data.numeric={given.numeric}", f"data.batch_size={given.batch}",
        f"data.categorical={given.categorical}", "trainer.accelerator=cpu", *given.words,
    ]  # fmt: skip
    if not any(word.startswith("model=") for word in given.words):
        base.append(f"model.hidden_dims={given.hidden}")
    made: list[Member] = []
    for number in range(given.trials):
        words = [f"optimizer.lr={0.001 * 1.1**number}"]
        words += [f"model.dropout={given.dropout * (1 - number / 100)}"] if given.dropout else []
        config = plain(compose("train", [*base, *words]))
        data: Any = made[0].data if made else build.data(config)
        data.setup()
        made.append(Member(build.task(config, data.spec, data, fit=True), data, config["seed"]))  # type: ignore[arg-type]
    return made


def stacked(members: list[Member], epochs: int) -> None:
    """All trials at once."""
    trainer = StackedTrainer(members, torch.device("cpu"), epochs)
    for _ in range(epochs):
        trainer.run_epoch()
        outputs, y, losses = trainer.evaluate()
        measure_many(outputs, y, members[0].task.spec)
        trainer.end_epoch(losses)
        trainer.remember(range(len(members)))
    for position in range(len(members)):
        trainer.remembered(position)


def loop(members: list[Member], epochs: int) -> None:
    """One trial after the other."""
    for member in members:
        task, train, val = member.task, member.data.split("train"), member.data.split("val")
        assert train.y is not None and val.y is not None
        optimizer = task._options.optimizer(task.net)
        for epoch in range(epochs):
            order = epoch_order(len(train), member.seed, epoch)
            x, y = train.x[order], train.y[order]
            task.net.train()
            for start in range(0, len(x), member.data.batch_size):
                rows = slice(start, start + member.data.batch_size)
                F.cross_entropy(task.net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
            task.net.eval()
            with torch.no_grad():
                F.cross_entropy(task.net(val.x), val.y).item()


if __name__ == "__main__":
    main()
