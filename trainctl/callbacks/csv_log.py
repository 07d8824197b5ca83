"""logger=csv: the figures as `metrics.csv` in the run; a resumed run goes on in the same file.

Lightning's CSVLogger deletes the file it finds.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class CSVLog(Logger):
    """`<save_dir>/<name>.csv` with a column per figure and `step`; rows are appended as they come.

    Rows that an interrupted run wrote beyond the place it resumes from are dropped with the first new row.
    """

    def __init__(self, save_dir: str, name: str = "metrics") -> None:
        super().__init__()
        self.path = Path(save_dir) / f"{name}.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def version(self) -> str:
        """There is one version: the run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a figure that is new makes a new column."""
        row = {"step": step, **metrics}
        if self._columns is None:
            before = [old for old in self._read() if step is None or not old["step"] or int(old["step"]) < step]
            self._rewrite([*before, row])
        elif not set(row) <= set(self._columns):
            self._rewrite([*self._read(), row])
        else:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if None not in row and None not in row.values()]  # a killed run's last line

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
