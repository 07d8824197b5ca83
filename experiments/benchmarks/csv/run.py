"""Loading a CSV to ready tensors: `data=tabular` against pandas.read_csv plus scikit-learn's ColumnTransformer.

python experiments/benchmarks/csv/run.py [ROWS] [REPEATS]     needs pandas (the `dev` extra); prints a table.
Both read 24 numeric and 6 text columns (1 % of the cells missing), fit on 70 % of the rows and end with float32
features and a target of every row: numbers standardised with medians filled in, categories as codes. Each
measurement is a process of its own; the systems take turns.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

NUMBERS, TEXTS = 24, 6
SYSTEMS = ("trainctl", "trainctl, both scales", "pandas + scikit-learn")


def write(path: Path, rows: int) -> None:
    """A table of normal numbers, skewed numbers, whole numbers and texts."""
    random = np.random.default_rng(0)
    columns: dict[str, pl.Series] = {}
    for index in range(NUMBERS):
        values = random.normal(size=rows)
        values = [values, np.exp(values), np.round(values * 100)][index % 3]
        columns[f"x{index}"] = pl.Series(values).round(5)
    for index in range(TEXTS):
        labels = np.array([f"value_{i}" for i in range(5 * (index + 1))])
        columns[f"c{index}"] = pl.Series(labels[random.integers(len(labels), size=rows)])
    holes = {name: pl.when(pl.Series(random.random(rows) > 0.01)).then(pl.col(name)) for name in columns}
    frame = pl.DataFrame(columns).with_columns(**holes)
    frame.with_columns(y=pl.Series(random.integers(2, size=rows))).write_csv(path)


def ours(path: str, scaling: str) -> None:
    """Import, then read, split, fit and transform as a run does."""
    from trainctl.data.tabular import Tabular

    start, cpu = time.perf_counter(), time.process_time()
    data = Tabular(path, "y", scaling=scaling)
    data.setup()
    finish(start, cpu, len(data.split("train").x))


def theirs(path: str) -> None:
    """The same with pandas and a ColumnTransformer."""
    import pandas
    import torch
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    start, cpu = time.perf_counter(), time.process_time()
    frame = pandas.read_csv(path)
    texts = [f"c{i}" for i in range(TEXTS)]
    numbers = [f"x{i}" for i in range(NUMBERS)]
    coder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
            ("texts", coder, texts),
        ]
    )
    train, rest = train_test_split(frame, train_size=0.7, stratify=frame["y"], random_state=0)
    val, test = train_test_split(rest, train_size=0.5, stratify=rest["y"], random_state=0)
    features = [transformer.fit_transform(train), transformer.transform(val), transformer.transform(test)]
    tensors = [torch.from_numpy(part.astype(np.float32)) for part in features]
    _ = [torch.from_numpy(part["y"].to_numpy()) for part in (train, val, test)]
    finish(start, cpu, len(tensors[0]))


def finish(start: float, cpu: float, rows: int) -> None:
    """One line: wall seconds, CPU seconds, peak memory in MiB, train rows."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - start, time.process_time() - cpu, peak, rows)


def main(rows: int, repeats: int) -> None:
    """Measure and print a Markdown table of medians."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(path, rows)
        print(f"{rows:,} rows, {NUMBERS} numeric and {TEXTS} text columns, {path.stat().st_size / 2**20:.0f} MiB\n")
        found: dict[str, list[list[float]]] = {name: [] for name in SYSTEMS}
        for _ in range(repeats):
            for name in SYSTEMS:
                command = [sys.executable, __file__, "--one", name, str(path)]
                line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[name].append([float(word) for word in line.split()])
    print("| system | wall s | CPU s | peak MiB |\n|---|---|---|---|")
    for name, runs in found.items():
        wall, cpu, peak, _ = (median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        name, path = sys.argv[2:]
        theirs(path) if name == SYSTEMS[2] else ours(path, "both" if name == SYSTEMS[1] else "standard")
    else:
        main(*(int(word) for word in [*sys.argv[1:], "1000000", "3"][:2]))
