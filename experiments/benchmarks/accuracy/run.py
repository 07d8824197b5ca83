"""Does the default `model=mlp` keep up with scikit-learn on the same split and preprocessing?

    TRAINCTL_DATA=... python experiments/benchmarks/accuracy/run.py [--seeds 3] [--data adult,california_housing]

Every trainctl row is `trainctl train data=... seed=...` with defaults. scikit-learn then reads that run's config and
gets the same tensors: categories one-hot (native for the trees), a numeric target standardised on train.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch.nn import functional

from trainctl import build

DATA = {"adult": "tabular", "california_housing": "california_housing", "fashion_mnist": "fashion_mnist"}
Scores = dict[str, float]


def trainctl(data: str, seed: int, runs: Path, extra: list[str]) -> tuple[Scores, dict[str, Any]]:
    """Scores on test and the run's resolved config."""
    command = [str(Path(sys.executable).with_name("trainctl")), "train", f"data={data}", f"seed={seed}", *extra]
    done = subprocess.run(
        [*command, "--json", "--runs-dir", str(runs)], stdout=subprocess.PIPE, text=True, check=True, cwd=runs
    )
    answer = json.loads(done.stdout)
    names = {"test/accuracy": "accuracy", "test/auroc": "AUC", "test/rmse": "RMSE"}
    scores = {short: answer["metrics"][name] for name, short in names.items() if name in answer["metrics"]}
    config = yaml.safe_load((runs / answer["run"] / "config.yaml").read_text(encoding="utf-8"))
    return {**scores, "CPU s": answer["timing"]["fit_cpu_s"]}, config


class Splits:
    """The splits of a run as NumPy arrays for scikit-learn."""

    def __init__(self, config: dict[str, Any]) -> None:
        data = build.data(config)
        data.setup()
        self.spec = data.spec
        self.parts = {name: data.split(name) for name in ("train", "test")}

    def x(self, name: str, one_hot: bool) -> np.ndarray:
        x = self.parts[name].x
        if self.spec.kind == "image":
            scaled = (x.float() / 255 - torch.tensor(self.spec.mean)[:, None, None]) / torch.tensor(self.spec.std)[
                :, None, None
            ]
            return scaled.flatten(1).numpy()
        if not one_hot:
            return x.numpy()
        first = len(self.spec.numeric)
        codes = [functional.one_hot(x[:, first + i].long(), c.size) for i, c in enumerate(self.spec.categories)]
        return torch.cat([x[:, :first], *codes], 1).numpy()

    def y(self, name: str) -> np.ndarray:
        return self.parts[name].y.numpy()


def scikit(kind: str, splits: Splits, seed: int) -> Scores:
    """Scores on test of scikit-learn's `mlp` or `trees` with default settings."""
    spec, one_hot, start = splits.spec, kind == "mlp", time.process_time()
    x, y, x_test, y_test = splits.x("train", one_hot), splits.y("train"), splits.x("test", one_hot), splits.y("test")
    codes = list(range(len(spec.numeric), spec.num_features))
    if spec.target == "number":
        model = (
            MLPRegressor(random_state=seed)
            if one_hot
            else HistGradientBoostingRegressor(random_state=seed, categorical_features=codes)
        )
        model.fit(x, (y - spec.target_mean) / spec.target_std)
        error = model.predict(x_test) * spec.target_std + spec.target_mean - y_test
        return {"RMSE": float(np.sqrt(np.mean(error**2))), "CPU s": time.process_time() - start}
    model = (
        MLPClassifier(random_state=seed)
        if one_hot
        else HistGradientBoostingClassifier(random_state=seed, categorical_features=codes or None)
    )
    chances = model.fit(x, y).predict_proba(x_test)
    scores = {"accuracy": float((chances.argmax(1) == y_test).mean()), "CPU s": time.process_time() - start}
    return scores | ({"AUC": float(roc_auc_score(y_test, chances[:, 1]))} if len(spec.classes) == 2 else {})


def compare(name: str, seeds: int, runs: Path, extra: list[str]) -> dict[str, list[Scores]]:
    rows: dict[str, list[Scores]] = {
        "trainctl model=mlp": [],
        "scikit-learn MLP": [],
        "scikit-learn HistGradientBoosting": [],
    }
    for seed in range(seeds):
        scores, config = trainctl(DATA[name], seed, runs, extra)
        rows["trainctl model=mlp"].append(scores)
        splits = Splits(config)
        if len(splits.spec.classes) != 2:
            scores.pop("AUC", None)
        rows["scikit-learn MLP"].append(scikit("mlp", splits, seed))
        if name != "fashion_mnist":  # 784 columns: minutes, and no contest for a tree
            rows["scikit-learn HistGradientBoosting"].append(scikit("trees", splits, seed))
        print(name, seed, {key: values[-1] for key, values in rows.items() if values}, file=sys.stderr, flush=True)
    return rows


def table(name: str, rows: dict[str, list[Scores]]) -> str:
    lines = []
    for system, results in rows.items():
        for metric in ("accuracy", "AUC", "RMSE"):
            values = [scores[metric] for scores in results if metric in scores]
            if values:
                digits = 0 if metric == "RMSE" else 4
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cpu = statistics.mean(scores["CPU s"] for scores in results)
                score = f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"
                lines.append(f"| {name} | {metric} | {system} | {score} | {cpu:.1f} |")
    return "\n".join(sorted(lines, key=lambda line: line.split("|")[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("overrides", nargs="*", help="further overrides of `trainctl train`, to try other defaults")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn says that its MLP has not converged after its 200 epochs
    torch.set_num_threads(1)
    os.environ["TRAINCTL_DATA"] = os.path.abspath(os.environ.get("TRAINCTL_DATA", "data"))
    lines = ["| data | metric (test) | system | mean ± sd | CPU s |", "|---|---|---|---|---|"]
    results = {}
    with tempfile.TemporaryDirectory() as runs:
        for name in given.data.split(","):
            results[name] = compare(name, given.seeds, Path(runs), given.overrides)
            lines.append(table(name, results[name]))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (given.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
