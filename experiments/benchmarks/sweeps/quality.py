"""How many training epochs until `sampler=tpe stopper=asha` has what 64 random full-length trials find?

    python experiments/benchmarks/sweeps/quality.py [--data FOLDER] [--results FILE] [--seeds 5] [--quick]

6 000 rows of adult, of california_housing, and digits; an MLP with four dimensions; val/loss. Random: 64 trials of 27
epochs. Search: 130 trials of at most 27 epochs, one at a time, which takes about as many epochs in all. Epochs are
counted over the trials' curves in the order they were trained in. FILE keeps what is done (a line for each data set and
seed); begun again, the rest is run.
FOLDER (default: TRAINCTL_DATA) holds adult/ and california_housing/; without it only digits is used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
from measure import ENV, TRAINCTL, machine, middle, table

TRIALS, SEARCHED, EPOCHS, ROWS = 64, 130, 27, 6000
TABLES = {
    "adult": ("adult/adult_train.csv.gz", "income", "class"),
    "california_housing": ("california_housing/housing.csv.gz", "median_house_value", "number"),
}
SPACE = [
    "optimizer.lr=tag(log, interval(1e-4,1e-1))",
    "optimizer.weight_decay=tag(log, interval(1e-5,1))",
    "model.dropout=interval(0,0.5)",
    "model.hidden_dims=choice([32],[64],[128],[256])",
]


def data_words(name: str, source: Path | None, folder: Path) -> list[str]:
    """The words that choose a data set; tables are cut to the same 6 000 rows for all."""
    if name == "digits":
        return ["data=digits"]
    assert source is not None
    path, target, kind = TABLES[name]
    cut = folder / f"{name}.parquet"
    frame = pl.read_csv(source / path, null_values=["?"], infer_schema_length=None)
    frame.sample(ROWS, seed=0, shuffle=True).write_parquet(cut)
    return [f"data.path={cut}", f"data.target={target}", f"data.target_kind={kind}"]


def curves(words: list[str], folder: Path) -> list[list[float]]:
    """The val/loss of every epoch of every trial of a new study, in the order of the trials."""
    command = [*TRAINCTL, "tune", *words, *SPACE, f"trainer.max_epochs={EPOCHS}", "callbacks=none", "trainer.threads=1"]
    command += ["tune.objective=val/loss", "tune.jobs=1", "--json", "-q"]
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    study = folder / json.loads(done.stdout)["study"]
    found = []
    for trial in sorted((study / "trials").iterdir(), key=lambda path: int(path.name)):
        lines = (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found.append([json.loads(line)["val/loss"] for line in lines])
    return found


def until(found: list[list[float]], target: float) -> int | None:
    """Epochs trained up to the one that reached the target, None when none did."""
    count = 0
    for curve in found:
        for value in curve:
            count += 1
            if value is not None and value <= target:
                return count
    return None


def compare(name: str, words: list[str], seed: int, trials: int, searched: int) -> dict[str, Any]:
    """One data set and seed: both studies."""
    with tempfile.TemporaryDirectory() as folder:
        place, words = Path(folder), [*words, f"seed={seed}"]
        random = curves([*words, "sampler=random", "stopper=none", f"tune.trials={trials}"], place)
        tpe = [*words, "sampler=tpe", "stopper=asha", "tune.executor=pool", f"tune.trials={searched}"]
        search = curves(tpe, place)
    best = min(min(curve) for curve in random)
    return {
        "data": name,
        "seed": seed,
        "best_random": best,
        "epochs_random": sum(map(len, random)),
        "random_until": until(random, best),
        "best_search": min(min(curve) for curve in search),
        "epochs_search": sum(map(len, search)),
        "search_until": until(search, best),
    }


def summary(results: list[dict[str, Any]]) -> str:
    rows: list[list[object]] = []
    for name in dict.fromkeys(result["data"] for result in results):
        these = [result for result in results if result["data"] == name]
        shares = [(r["search_until"] or float("inf")) / r["epochs_random"] for r in these]
        texts = [f"{share:.2f}" if share != float("inf") else "not reached" for share in shares]
        fixed = middle(r["best_search"] for r in these)
        random = middle(r["random_until"] / r["epochs_random"] for r in these)
        best, all_epochs = middle(r["best_random"] for r in these), middle(r["epochs_search"] for r in these)
        rows.append([name, best, fixed, all_epochs, middle(shares), ", ".join(texts), random])
    head = ["data", "best val/loss of random", "of the search", "epochs of the whole search"]
    head += ["share of random's epochs until as good (at most 0.5)", "by seed", "random's own share until its best"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("TRAINCTL_DATA"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, a quarter of the trials")
    options = parser.parse_args()
    source = Path(options.data).resolve() if options.data else None
    results: list[dict[str, Any]] = []
    if options.results and options.results.exists():
        results = [json.loads(line) for line in options.results.read_text(encoding="utf-8").splitlines()]
    done = {(result["data"], result["seed"]) for result in results}
    names = [*(TABLES if source else ()), "digits"]
    part = 4 if options.quick else 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as both:
        words = {name: data_words(name, source, Path(folder)) for name in names}
        todo = [(n, s) for s in range(1 if options.quick else options.seeds) for n in names if (n, s) not in done]
        for result in both.map(lambda t: compare(t[0], words[t[0]], t[1], TRIALS // part, SEARCHED // part), todo):
            results.append(result)
            print(json.dumps(result), flush=True)
            if options.results:
                with open(options.results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
    print(f"\n{summary(results)}\n\n{machine()}")


if __name__ == "__main__":
    main()
