"""What a measurement leaves in the run's directory, for people, the report and the next verb.

predictions.parquet, confusion.json and calibration.json (classes), errors.json (numbers).
`train` and `evaluate` share it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainctl.data.spec import DataSpec
from trainctl.metrics import Report, classification
from trainctl.run import files
from trainctl.verbs import output

_SAMPLE = 600
_HISTOGRAM_BINS = 48


def keep(
    folder: Path,
    report: Report,
    outputs: Tensor,
    y: Tensor,
    spec: DataSpec,
    rows: np.ndarray | None = None,
    threshold: float | None = None,
) -> dict[str, str]:
    """Write the files of one measured set of rows into `folder`; returns {artifact name: file name}.

    outputs: probabilities [N, C] or values [N]; rows: row numbers in the source, by default 0..N-1.
    """
    frame = pl.DataFrame({"row": np.arange(len(y)) if rows is None else rows})
    frame = frame.with_columns(target_column(y, spec).alias("target"), *prediction_columns(outputs, spec, threshold))
    write_parquet(frame, folder / "predictions.parquet")
    kept = {"predictions": "predictions.parquet"}
    if spec.target == "class":
        confusion = {"classes": list(spec.classes), "counts": report.confusion, "threshold": threshold}
        content: dict[str, Any] = {"confusion": confusion, "calibration": report.calibration}
    else:
        content = {"errors": error_shape(outputs, y, spec.target_name)}
    for name, value in content.items():
        files.write_json(folder / f"{name}.json", value)
        kept[name] = f"{name}.json"
    return kept


def target_column(y: Tensor, spec: DataSpec) -> pl.Series:
    """Class names, or numbers in the user's unit."""
    return _names(y, spec) if spec.target == "class" else pl.Series(y.double().numpy())


def prediction_columns(outputs: Tensor, spec: DataSpec, threshold: float | None = None) -> list[pl.Series]:
    """`prediction`, and for classes `probability_<class>` each."""
    if spec.target == "number":
        return [pl.Series("prediction", outputs.reshape(-1).numpy())]
    predicted = _names(classification.labels(outputs, threshold), spec).alias("prediction")
    parts = outputs.float().numpy()
    return [predicted, *(pl.Series(f"probability_{name}", parts[:, i]) for i, name in enumerate(spec.classes))]


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a table so that a reader sees the old file or the new one; ResourceError when it cannot be written."""
    temporary = files.temp_path(path)
    try:
        with output.explained(path):
            frame.write_parquet(temporary, compression="zstd")
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def error_shape(outputs: Tensor, y: Tensor, target_name: str) -> dict[str, Any]:
    """Histogram of prediction minus target over its middle 99 %, and an even sample of (target, prediction)."""
    predicted, y = outputs.reshape(-1).double(), y.double()
    error = predicted - y
    if not len(y):
        return {"target": target_name, "edges": [], "counts": [], "beyond": 0, "sample": []}
    # torch.quantile refuses more than 16 million values, a picture needs far fewer
    low, high = np.quantile(error[:: max(1, len(y) // 100_000)].numpy(), [0.005, 0.995])
    counts, edges = np.histogram(error.numpy(), _HISTOGRAM_BINS, (low, high) if high > low else None)
    index = torch.linspace(0, len(y) - 1, min(_SAMPLE, len(y))).round().long()
    return {
        "target": target_name,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "beyond": len(y) - int(counts.sum()),
        "sample": torch.stack([y[index], predicted[index]], 1).tolist(),
    }


def _names(index: Tensor, spec: DataSpec) -> pl.Series:
    return pl.Series(spec.classes, dtype=pl.String).gather(index.numpy())
