"""The table of README.md from the runs that run.sh left: python3 experiments/datasets/table.py OUT"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHOWN = {"accuracy": 4, "balanced_accuracy": 4, "auroc": 4, "auprc": 4, "rmse": 4, "mae": 4, "r2": 4}
BINARY = ("tabular", "fraud_handbook", "synthetic", "synthetic_sequences")


def number(value: float, digits: int) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.{digits}f}"


def row(name: str, folder: Path, result: dict[str, Any]) -> str:
    data, _, model = name.rpartition("-")
    run = folder / "train" / Path(result["run"]).name
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    sizes = " / ".join(str(part.get("rows", part.get("size"))) for part in record["data"]["splits"].values())
    wanted = [n for n in SHOWN if f"test/{n}" in result["metrics"] and (n != "auprc" or data in BINARY)]
    figures = ", ".join(f"{n} {number(result['metrics'][f'test/{n}'], SHOWN[n])}" for n in wanted)
    timing = result["timing"]
    cost = f"{timing['fit_s']:.1f} | {timing['fit_cpu_s']:.1f} | {record['epochs']} | {record['threads']}"
    return f"| {data} | {model} | {sizes} | {figures} | {cost} |"


def main() -> None:
    out = Path(sys.argv[1])
    print("| data | model | train / val / test | test | fit, s | CPU s | epochs | threads |")
    print("|---|---|---|---|---|---|---|---|")
    for path in sorted(out.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        name = path.stem
        print(row(name, out / name, json.loads(text)) if text.strip() else f"| {name} | | | not finished | | | | |")


if __name__ == "__main__":
    main()
