"""What tests of `export` share: a stranger who has ONNX Runtime alone, and a table that has everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl

from trainctl.run.run import Run

MISSING = ["", "?", "NA", "NULL"]


def refused(result: tuple[int, str, str]) -> tuple[int, str]:
    """Exit code and the last line of stderr without its prefix."""
    return result[0], result[2].strip().splitlines()[-1].removeprefix("trainctl: error: ")


def stranger(model: bytes | Path, table: Path) -> np.ndarray:
    """The outputs for a CSV by ONNX Runtime alone, fed with what the model says it wants; also row by row."""
    runner = onnxruntime.InferenceSession(model if isinstance(model, bytes) else model.read_bytes())
    frame, feed = pl.read_csv(table, null_values=MISSING), {}
    for port in runner.get_inputs():
        column = frame[port.name]
        assert port.shape == ["batch"]
        if port.type == "tensor(string)":
            feed[port.name] = np.array(column.cast(pl.String).fill_null("").str.strip_chars().to_list(), dtype=object)
        elif column.dtype == pl.String:
            seconds = column.str.to_datetime("%Y-%m-%d %H:%M").dt.epoch("s")
            feed[port.name] = seconds.cast(pl.Float64).fill_null(np.nan).to_numpy()
        else:
            feed[port.name] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    whole: np.ndarray = runner.run(None, feed)[0]
    for row in range(5):
        alone = runner.run(None, {name: values[row : row + 1] for name, values in feed.items()})[0]
        assert np.allclose(alone, whole[row : row + 1], rtol=1e-5)
    return whole


def predicted(folder: Any, run: Run, table: Path) -> np.ndarray:
    """What `trainctl predict` gives for a CSV: probabilities [N, C] or values [N]."""
    made = pl.read_parquet(folder.done("predict", run.path, table).path / "predictions.parquet")
    names = [name for name in made.columns if name.startswith("probability_")]
    return made.select(names).to_numpy() if names else made["prediction"].to_numpy()


def messy(path: Path, count: int, seed: int) -> Path:
    """A table with every kind of column, holes, blanks, and (with another seed) texts never seen in training."""
    draw = np.random.default_rng(seed)
    lines = ["wage,few,flag,seen,when,city,rich"]
    for row in range(count):
        wage = "NA" if draw.random() < 0.1 else f"{np.exp(draw.normal()):.4f}"
        seen = "" if draw.random() < 0.1 else draw.choice(["yes", "no"])
        when = "" if draw.random() < 0.1 else f"20{draw.integers(10, 30)}-{draw.integers(1, 13):02}-17 0{row % 10}:30"
        city = draw.choice(["a", " b ", "c d", "?", f"seed {seed}"])
        rich = "yes" if (wage != "NA" and float(wage) > 1) != (seen == "yes") else "no"
        lines.append(f"{wage},{draw.integers(0, 3)},{draw.integers(0, 2)},{seen},{when},{city},{rich}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
