"""AdamW against Muon (and SGD), each at its best learning rate, in a few epochs, through `trainctl train -m`.

    TRAINCTL_DATA=... python experiments/optimizers/run.py [--seeds 3] [--data adult,...]

The learning rate is chosen on the validation split; the table has the test metric of that one, and the CPU s of a fit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

RATES = {"adamw": "0.001,0.003,0.01", "muon": "0.003,0.01,0.03", "sgd": "0.01,0.03,0.1"}
TASKS = {  # what to train, the metric of the table
    "adult": (["data=tabular", "model=mlp", "trainer.max_epochs=10"], "test/auroc"),
    "california_housing": (["data=california_housing", "model=mlp", "trainer.max_epochs=20"], "test/rmse"),
    "fashion_mnist": (["data=fashion_mnist", "model=mlp", "trainer.max_epochs=5"], "test/accuracy"),
}


def sweep(task: list[str], optimizer: str, seeds: int, runs: Path) -> list[dict[str, Any]]:
    """One record per run: lr, val/loss, the test metrics and the CPU seconds of the fit."""
    words = [f"optimizer={optimizer}", f"optimizer.lr={RATES[optimizer]}", "scheduler=cosine"]
    seed = "seed=" + ",".join(str(number) for number in range(seeds))
    command = [str(Path(sys.executable).with_name("trainctl")), "train", "-m", *task, *words, seed]
    done = subprocess.run(
        [*command, "trainer.threads=1", "--json", "--runs-dir", str(runs)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=runs,
    )
    records = []
    for job in json.loads(done.stdout)["jobs"]:
        folder = runs / job["run"]
        lr = next(float(word.split("=")[1]) for word in job["overrides"] if word.startswith("optimizer.lr="))
        timing = json.loads((folder / "run.json").read_text(encoding="utf-8"))["timing"]
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        records.append({"lr": lr, "cpu": timing["fit_cpu_s"], **metrics.get("metrics", metrics)})
    return records


def row(name: str, metric: str, optimizer: str, records: list[dict[str, Any]]) -> str:
    by_rate = defaultdict(list)
    for record in records:
        by_rate[record["lr"]].append(record)
    lr, best = min(by_rate.items(), key=lambda item: statistics.mean(r["val/loss"] for r in item[1]))
    values = [record[metric] for record in best]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 0 if metric == "test/rmse" else 4
    loss, cpu = statistics.mean(r["val/loss"] for r in best), statistics.median(r["cpu"] for r in records)
    score = f"{metric} {statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"
    return f"| {name} | {optimizer} | {lr:g} | {loss:.4f} | {score} | {cpu:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=",".join(TASKS))
    parser.add_argument("--optimizers", default="adamw,muon")
    given = parser.parse_args()
    os.environ["TRAINCTL_DATA"] = os.path.abspath(os.environ.get("TRAINCTL_DATA", "data"))
    lines = ["| data | optimizer | best lr | val/loss | test | CPU s of a fit |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as runs:
        for name in given.data.split(","):
            words, metric = TASKS[name]
            for optimizer in given.optimizers.split(","):
                lines.append(row(name, metric, optimizer, sweep(words, optimizer, given.seeds, Path(runs))))
                print(lines[-1], file=sys.stderr, flush=True)
    Path(__file__).with_name("table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
