"""predict: labels with probabilities, or values, for each row of a new file or image of a folder.

The file is read, predicted and written piece by piece, so it may be larger than memory.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

from trainctl import build
from trainctl.data.base import Chunk, Data
from trainctl.errors import DataError, UsageError, did_you_mean
from trainctl.metrics import threshold
from trainctl.run import files
from trainctl.tasks.base import Task
from trainctl.verbs import findings, output, restore
from trainctl.verbs.evaluate import num_threads
from trainctl.verbs.forward import forward
from trainctl.verbs.job import Job, Outcome

log = logging.getLogger("trainctl")

SHOW_EVERY_S = 10.0


def predict(job: Job) -> Outcome:
    """Write predictions for `arguments["file"]` to `arguments["out"]` (by default predictions.parquet in the run).

    UsageError for an output that cannot be written, DataError for a file that lacks a column.
    """
    if job.rank > 0:
        return Outcome({})
    started = time.perf_counter()
    assert job.source is not None
    source, given = job.source, job.arguments
    path = Path(given["file"])
    out = Path(given["out"]) if given.get("out") else job.run.path / "predictions.parquet"
    output.check(path, out, bool(given.get("force")))
    torch.set_num_threads(num_threads(job.run, source))
    data, task = restore.restore(source, job.run.config)
    options = job.run.config.get("predict") or {}
    predictor = Predictor(build.trainer(job.run.config, job.run.path), task, data, options)
    job.clock("setup", started)
    started = time.perf_counter()
    rows = predictor.write(path, out)
    job.clock("predict", started)
    log.info("%s: %d rows to %s", path, rows, files.shown(out))
    job.run.update(warnings=list(data.warnings))
    return Outcome({}, {}, {"predictions": str(out.absolute())}, {"rows": rows, "input": str(path)})


class Predictor:
    """Makes tables of predictions. `options`: threshold (of two classes), keep (columns to copy), rows (a piece)."""

    def __init__(self, trainer: Any, task: Any, data: Any, options: dict[str, Any]) -> None:
        if not isinstance(task, Task) or not isinstance(data, Data):
            foreign = type(data if isinstance(task, Task) else task).__name__
            raise UsageError(f"{foreign} is not of trainctl; `predict` needs a built-in task and data module")
        self.trainer, self.task, self.data = trainer, task, data
        cut = threshold.check(options.get("threshold"), len(task.spec.classes))
        if isinstance(cut, str):
            raise UsageError(
                f"`predict.threshold` must be a number between 0 and 1, got '{cut}'; "
                f"`trainctl evaluate RUN evaluate.threshold={cut}` chooses one on the validation split"
            )
        self.threshold, self.rows = cut, int(options.get("rows") or 65536)
        self.copied = [str(name) for name in options.get("keep") or ()]

    def write(self, path: Path, out: Path) -> int:
        """Predict all of `path` into `out`; returns the number of rows."""
        shown, told = time.monotonic(), False
        with output.PredictionFile(out) as written:
            for chunk in self.data.stream(path, self.rows, with_target=False):
                if not told:
                    for sentence in self.data.warnings:
                        log.warning("%s", sentence)
                    told = True
                written.write(self.frame(chunk, path))
                if time.monotonic() - shown > SHOW_EVERY_S:
                    shown = time.monotonic()
                    log.info("predicted %d rows", written.rows)
        return written.rows

    def frame(self, chunk: Chunk, path: Path) -> pl.DataFrame:
        """A line per row: its number or file name, copied columns, prediction and probabilities."""
        outputs = self.task.predict_outputs(forward(self.trainer, self.task, self.data, chunk.x))
        first = pl.Series("row", chunk.rows) if chunk.names is None else pl.Series("file", list(chunk.names))
        made = findings.prediction_columns(outputs, self.task.spec, self.threshold)
        return pl.DataFrame([first, *self._copies(chunk, path, {first.name, *(s.name for s in made)}), *made])

    def _copies(self, chunk: Chunk, path: Path, taken: set[str]) -> list[pl.Series]:
        columns = chunk.frame.columns if chunk.frame is not None else []
        for name in self.copied:
            if name not in columns:
                raise DataError(f"`predict.keep`: no column `{name}` in `{path}`{did_you_mean(name, columns)}")
            if name in taken:
                raise UsageError(f"`predict.keep`: a column `{name}` is made by predict; rename it in `{path}`")
        return [chunk.frame.get_column(name) for name in self.copied]
