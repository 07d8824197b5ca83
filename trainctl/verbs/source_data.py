"""The data of a job: set up, described in the record, and compared with what a resumed run saw."""

from __future__ import annotations

import logging
from typing import Any

from trainctl import build
from trainctl.data.base import Data
from trainctl.errors import DataError
from trainctl.verbs.job import Job
from trainctl.verbs.restore import PREPROCESSING

log = logging.getLogger("trainctl")


def prepare(job: Job, config: dict[str, Any]) -> Any:
    """The data module, set up; its preprocessing is kept in the run and its decisions are shown.

    A fine-tuned run on the same kind of data keeps its source's preprocessing: the weights expect it.
    """
    folder = job.run.path / PREPROCESSING
    kept = folder if job.resume and folder.is_dir() else None
    if job.source is not None and kept is None and job.source.config["data"].get("_target_") == config["data"].get("_target_"):
        parents = job.source.path / PREPROCESSING
        kept = parents if parents.is_dir() else None
    data = build.data(config, kept)
    if not isinstance(data, Data):
        return data
    data.setup()
    if job.rank == 0 and not job.resume:
        description = data.describe()
        data.save(folder)
        job.run.update(data=description, warnings=list(description.get("warnings", [])))
        show(description)
    return data


def show(description: dict[str, Any]) -> None:
    """Sizes, what was dropped and why, and warnings, a line each."""
    sizes = ", ".join(f"{name} {part['rows']}" for name, part in description["splits"].items())
    log.info("data: %s rows", sizes)
    for line in description.get("lines", []):
        log.info("data: %s", line)
    for sentence in description.get("warnings", []):
        log.warning("%s", sentence)


def check_unchanged(job: Job, data: Any) -> None:
    """DataError when a resumed run would go on with other rows than it began with."""
    if not job.resume or not isinstance(data, Data) or job.allow_data_change:
        return
    before = (job.run.record.get("data") or {}).get("splits", {})
    for name, part in before.items():
        now = data.content_hash(name)
        if part.get("sha256") != now:
            raise DataError(
                f"data differs from the run's ({name}: sha256 {str(part.get('sha256'))[:12]}, now {now[:12]}); "
                "pass `--allow-data-change` to go on all the same"
            )
