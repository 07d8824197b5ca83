"""What trainctl costs beside hand-written loops; all in one run, side by side, medians.

    python experiments/benchmarks/speed/run.py [--repeats 5] [--data FOLDER] > table.md

Work W: 40 000 rows, 10 numeric + 4 categorical columns, MLP 2x128, batch 256, 10 epochs with validation each.
`--data` is the folder that holds fashion_mnist/ (default: TRAINCTL_DATA); without it the CNN is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = sys.executable
TRAINCTL = [str(Path(PYTHON).with_name("trainctl"))]
W = [
    "train",
    "model=mlp",
    "model.hidden_dims=[128,128]",
    "data.target=label",
    "data.split.kind=column",
    "data.split.column=part",
    "data.scaling=standard",
    "trainer.max_epochs=10",
    "callbacks=none",
    "--json",
    "-q",
]


def measured(
    command: list[str], cwd: str, env: dict[str, str] | None = None
) -> tuple[dict[str, Any], float, float, float]:
    """The JSON a command prints, its CPU and wall seconds, and its peak memory in MB."""
    read, write = os.pipe()
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, stdout=write, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    os.close(write)
    text = open(read, encoding="utf-8").read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    found = json.loads(text) if text.strip().startswith("{") else {}
    return found, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def spin() -> subprocess.Popen[bytes]:
    """A busy core."""
    return subprocess.Popen([PYTHON, "-c", "while True: pass"])


def table_work(repeats: int, folder: str) -> dict[str, list[float]]:
    csv = f"{folder}/w.csv"
    subprocess.run([PYTHON, str(HERE / "make_table.py"), csv], check=True)
    rows: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for seed in map(str, range(repeats)):
        script, command = [PYTHON, str(HERE / "hand.py"), csv, "10", seed], [*TRAINCTL, *W, f"data.path={csv}"]
        hand, cpu, wall, _peak = measured(script, folder)
        ours, our_cpu, our_wall, _peak = measured([*command, f"seed={seed}"], folder)
        fused, *_ = measured([*script, "fused"], folder)
        add("hand fit CPU s", hand["fit_cpu"])
        add("trainctl fit CPU s", ours["timing"]["fit_cpu_s"])
        add("fit CPU ratio (at most 1.15)", ours["timing"]["fit_cpu_s"] / hand["fit_cpu"])
        add("fit CPU ratio to a script with fused AdamW", ours["timing"]["fit_cpu_s"] / fused["fit_cpu"])
        add("fit wall ratio", ours["timing"]["fit_s"] / hand["fit_wall"])
        add("hand whole CPU s", cpu)
        add("trainctl whole CPU s", our_cpu)
        add("whole, CPU s above the script (at most 3)", our_cpu - cpu)
        add("whole, wall s above the script", our_wall - wall)
        add("hand test accuracy", hand["accuracy"])
        add("trainctl test accuracy", ours["metrics"]["test/accuracy"])
        busy = spin()
        try:
            auto, *_ = measured(command, folder)
            single, *_ = measured([*command, "trainer.threads=1"], folder)
        finally:
            busy.kill()
            busy.wait()
        add(
            "busy core: threads=auto / threads=1, fit wall (at most 1.3)",
            auto["timing"]["fit_s"] / single["timing"]["fit_s"],
        )
        _, bare, bare_wall, _peak = measured([PYTHON, "-c", "import torch, pytorch_lightning"], folder)
        _, fast, fast_wall, _peak = measured(
            [*TRAINCTL, "train", "data=tabular", "model=mlp", "debug=fast", "-q"], folder
        )
        add("debug=fast / importing torch and Lightning, CPU (at most 1.3)", fast / bare)
        add("debug=fast / importing torch and Lightning, wall", fast_wall / bare_wall)
    return rows


def image_work(repeats: int, folder: str, data: str) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    command = [
        *TRAINCTL,
        "train",
        "model=cnn",
        "data=fashion_mnist",
        "data.batch_size=128",
        "trainer.max_epochs=1",
        "callbacks=none",
        "train.test=false",
        "--json",
        "-q",
    ]
    for _ in range(repeats):
        ours, _cpu, _wall, peak = measured(command, folder, {"TRAINCTL_DATA": data})
        record = json.loads((Path(folder) / ours["run"] / "run.json").read_text(encoding="utf-8"))
        threads = str(record["threads"])
        hand, _cpu, _wall, hand_peak = measured(
            [PYTHON, str(HERE / "hand_cnn.py"), f"{data}/fashion_mnist", "1", threads], folder
        )
        speed = 51_000 / ours["timing"]["fit_s"]
        for name, value in {
            "CNN: hand images/s": hand["images_per_s"],
            "CNN: trainctl images/s": speed,
            "CNN: images/s ratio (at least 0.97)": speed / hand["images_per_s"],
            "CNN: fit CPU ratio": ours["timing"]["fit_cpu_s"] / hand["fit_cpu"],
            "CNN: hand peak MB": hand_peak,
            "CNN: trainctl peak MB": peak,
            "CNN: peak memory ratio (at most 1.2)": peak / hand_peak,
            "CNN: threads chosen": float(threads),
        }.items():
            rows.setdefault(name, []).append(value)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", default=os.environ.get("TRAINCTL_DATA"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = table_work(options.repeats, folder)
        if options.data:
            rows |= image_work(min(3, options.repeats), folder, str(Path(options.data).resolve()))
    print("| figure | median | all |\n|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.3g} | {', '.join(f'{v:.3g}' for v in values)} |")
    print(
        f"\nLoad when it ended: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; "
        f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} CPU s in all."
    )


if __name__ == "__main__":
    main()
