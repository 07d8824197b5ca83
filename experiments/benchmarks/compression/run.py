"""Size, speed and accuracy of compressed nets: `python run.py OUT [NET...]` trains each net, compresses it by each
method, and writes OUT/results.json and OUT/table.md.

All commands are trainctl's own. Times are measured in the end, of all runs of a net in one process and in turns, on
one thread. What is there already is not made again, so a call that was interrupted goes on; `--only-tables` measures
nothing. Texts and images are read below TRAINCTL_DATA; the table is the census one that ships with trainctl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ONE = ["trainer.threads=1"]
NETS = {
    "mlp": ["data=tabular", "model=mlp", "model.hidden_dims=[512,512,512]", "model.dropout=0.2",
            "trainer.max_epochs=10"],
    "cnn": [
        "data=fashion_mnist", "model=cnn", "model.channels=[64,128]", "model.num_blocks=2", "model.hidden_dim=32",
        "data.batch_size=128", "trainer.limit_batches=80", "trainer.max_epochs=8", "scheduler=one_cycle",
        "optimizer.lr=0.003",
    ],
    "resnet": [
        "data=fashion_mnist", "model=resnet", "model.channels=[32,64,128,256]", "model.num_blocks=2",
        "data.batch_size=128", "trainer.limit_batches=60", "trainer.max_epochs=8", "scheduler=one_cycle",
        "optimizer.lr=0.002",
    ],
    "transformer": [
        "data=trec", "model=transformer", "model.dim=256", "model.hidden_dim=1024", "trainer.max_epochs=15",
        "model.dropout=0.3",
    ],
    "lstm": ["data=trec", "model=lstm", "model.token_dim=300", "model.hidden_dim=300", "trainer.max_epochs=10",
             "model.dropout=0.3"],
}  # fmt: skip
MACS = ["compressor=channels", "compressor.target=macs", "compressor.global_ranking=true",
        "compressor.importance=taylor", "compressor.round_to=auto", "distill=true"]  # fmt: skip
TUNED = {"resnet": 8, "cnn": 8}  # epochs of fine-tuning after pruning; half of the run's for the others
# name -> (verb, words, the point it begins from)
METHODS: dict[str, tuple[str, list[str], str | None]] = {
    "int8_static": ("quantize", ["compressor=int8_static"], None),
    "int8": ("quantize", ["compressor=int8"], None),
    "int8_dynamic": ("quantize", ["compressor=int8_dynamic"], None),
    "int8_weight_only": ("quantize", ["compressor=int8_weight_only"], None),
    "int4_weight_only": ("quantize", ["compressor=int4_weight_only"], None),
    "magnitude 80 %": ("prune", ["compressor=magnitude", "compressor.amount=0.8", "distill=true"], None),
    "magnitude 90 %": ("prune", ["compressor=magnitude", "compressor.amount=0.9", "distill=true"], None),
    "2:4": ("prune", ["compressor=nm", "distill=true"], None),
    "channels 1/4": ("prune", [*MACS, "compressor.amount=0.75"], None),
    "channels 1/5": ("prune", [*MACS, "compressor.amount=0.8"], None),
    "channels 1/10": ("prune", [*MACS, "compressor.amount=0.9"], None),
    "channels 1/4, int8": ("quantize", ["compressor=int8"], "channels 1/4"),
    "channels 1/5, int8": ("quantize", ["compressor=int8"], "channels 1/5"),
    "channels 1/10, int8": ("quantize", ["compressor=int8"], "channels 1/10"),
    "compress": ("compress", [], None),
}
CHANNELS = ["channels 1/4", "channels 1/10", "channels 1/4, int8", "channels 1/10, int8"]
WANTED = {
    "mlp": ["int8_static", "int8", "int8_dynamic", "int4_weight_only", "magnitude 80 %", "magnitude 90 %", "2:4",
            *CHANNELS, "compress"],
    "cnn": ["int8_static", "int8", "int8_dynamic", "magnitude 80 %", "magnitude 90 %", "2:4", *CHANNELS, "compress"],
    "resnet": ["int8_static", "int8", *CHANNELS, "channels 1/5", "channels 1/5, int8", "compress"],
    "transformer": ["int8_static", "int8", "int8_dynamic", "int8_weight_only", "int4_weight_only", "magnitude 80 %",
                    "magnitude 90 %", "2:4", "channels 1/4", "channels 1/5", "channels 1/4, int8", "channels 1/5, int8",
                    "compress"],
    "lstm": ["int8_static", "int8", "int8_dynamic", "magnitude 80 %", "compress"],
}  # fmt: skip
QUICK = ["measure.calls=200", "measure.seconds=0.5"]


def trainctl(words: list[str]) -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, the object of `--json`, and the last line of stderr."""
    command = [sys.executable, "-c", "from trainctl.cli.app import main; main()", *words, "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, last


def made(folder: Path, name: str, words: list[str]) -> dict[str, Any]:
    """What a command gave, made now or read from an earlier call: {run, seconds} or {error}."""
    known = folder / "made.json"
    table: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    if "run" not in table.get(name, {}):
        started = time.perf_counter()
        code, result, last = trainctl([*words, "--runs-dir", str(folder / "runs")])
        found = {"run": result["run"], "code": code} if result else {"error": last, "code": code}
        table[name] = {**found, "seconds": round(time.perf_counter() - started, 1)}
        known.write_text(json.dumps(table, indent=1))
        print(f"{folder.name}: {name}: {table[name]}", flush=True)
    return dict(table[name])


def measure(folder: Path, net: str) -> list[dict[str, Any]]:
    """A row per point of a net, with figures of one `trainctl benchmark` over all of them."""
    parent = made(folder, "parent", ["train", *NETS[net], *ONE])
    epochs = [word for word in NETS[net] if word.startswith("trainer.max_epochs=")][0].split("=")[1]
    points = {"float32": parent}
    for name in WANTED[net]:
        verb, words, source = METHODS[name]
        begun = points.get(source) if source else parent
        if not begun or "run" not in begun:
            continue
        tuned = [f"trainer.max_epochs={TUNED.get(net, max(2, int(epochs) // 2))}"] if verb == "prune" else []
        asked = ["--max-drop", "0.01"] if verb == "compress" else QUICK
        points[name] = made(folder, name, [verb, begun["run"], *words, *tuned, *asked])
    compared = {name: _net_of(point) for name, point in points.items() if "run" in point}
    runs = list(compared.values())
    code, found, last = trainctl(["benchmark", *runs, "-n", "200", "--batch", "1,64", "--threads", "1"])
    if found is None:
        raise SystemExit(f"benchmark of {net} failed ({code}): {last}")
    return [row(name, points[name], one) for name, one in zip(compared, found["runs"], strict=True)]


def _net_of(point: dict[str, Any]) -> str:
    """The run that holds the net: of a search, its best point."""
    record = json.loads((Path(point["run"]) / "run.json").read_text())
    return str(Path(point["run"]) / record["best"]) if record["verb"] == "compress" else str(point["run"])


def row(name: str, point: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    path = Path(one["run"])
    figures = json.loads((path / "metrics.json").read_text())
    test = figures.get("test/accuracy")
    if test is None:  # the points of `compress` have not looked at test
        _, result, _ = trainctl(["evaluate", str(path), "--runs-dir", str(path.parents[3] / "runs")])
        test = result["metrics"]["test/accuracy"] if result else None
    engines = {name: {b: t["median_ms"] for b, t in times.items()} for name, times in one["latency"]["1"].items()}
    kept = {key: one[key] for key in ("parameters", "non_zeros", "macs", "bytes", "zstd_bytes", "peak_memory_mb")}
    return {"method": name, "test/accuracy": test, **kept, "latency_ms": engines, "seconds": point["seconds"]}


def table(net: str, rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: ratios to the float32 net in ONNX Runtime and in eager torch."""
    first = rows[0]
    lines = [f"### {net}", "", "| method | test accuracy | points | bytes | zstd | multiply-adds | "
             "x1 ORT | x64 ORT | x1 eager | x64 eager | took |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for one in rows:
        own = one["latency_ms"].get("onnxruntime") or one["latency_ms"]["torch"]
        cells = [one["method"], f"{one['test/accuracy']:.4f}",
                 f"{100 * (one['test/accuracy'] - first['test/accuracy']):+.2f}",
                 f"{first['bytes'] / one['bytes']:.2f}x", f"{first['zstd_bytes'] / one['zstd_bytes']:.2f}x",
                 f"{first['macs'] / one['macs']:.2f}x" if one["macs"] else "-"]
        for engine in ("onnxruntime", "torch"):
            cells += [f"{first['latency_ms'][engine][b] / own[b]:.2f}" for b in ("1", "64")]
        lines.append("| " + " | ".join([*cells, f"{one['seconds']:.0f} s"]) + " |")
    return [*lines, ""]


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--only-tables", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for net in [] if options.only_tables else options.nets:
        folder = options.out / net
        folder.mkdir(exist_ok=True)
        results[net] = measure(folder, net)
        kept.write_text(json.dumps(results, indent=1) + "\n")
    lines = [line for net in NETS if net in results for line in table(net, results[net])]
    (options.out / "table.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
