"""The data of a job: set up, described in the record, and compared with what a resumed run saw."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainctl import build
from trainctl.data.base import Data
from trainctl.errors import DataError
from trainctl.run.run import Run
from trainctl.verbs.job import Job
from trainctl.verbs.kept_data import KeptData
from trainctl.verbs.restore import PREPROCESSING

log = logging.getLogger("trainctl")


def prepare(job: Job, config: dict[str, Any]) -> Any:
    """The data module, set up; its preprocessing is kept in the run and its decisions are shown.

    A fine-tuned run on the same kind of data keeps its source's preprocessing: the weights expect it.
    """
    folder: Path | None = job.run.path / PREPROCESSING
    if not job.resume and job.source is not None and same_kind(job.source.config, config):
        folder = job.source.path / PREPROCESSING
    elif not job.resume:
        folder = None
    folder = folder if folder is not None and folder.is_dir() else None
    if folder is None and job.hooks.kept is not None and job.rank == 0 and not job.resume:
        return kept_already(job, job.hooks.kept, config)
    data = build.data(config, folder)
    if not isinstance(data, Data):
        return data
    data.fine_tuned = not job.resume and job.source is not None
    data.setup()
    if job.rank == 0 and not job.resume:
        description = data.describe()
        data.save(job.run.path / PREPROCESSING)
        job.run.update(data=description, warnings=list(description.get("warnings", [])))
        show(description)
    return data


def kept_already(job: Job, kept: KeptData, config: dict[str, Any]) -> Any:
    """As `prepare`, of data that this process has set up for an earlier job."""
    data, fitted = kept.lend(config)
    if fitted is not None:
        fitted.write(job.run.path / PREPROCESSING)
        description = fitted.description
        job.run.update(data=description, warnings=list(description.get("warnings", [])))
        show(description)
    return data


def same_kind(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two configs name the same data module."""
    return bool(one["data"].get("_target_") == other["data"].get("_target_"))


def show(description: dict[str, Any]) -> None:
    """Sizes, what was dropped and why, and warnings, a line each."""
    for line in lines_of(description):
        log.info("%s", line)
    for sentence in description.get("warnings", []):
        log.warning("%s", sentence)


def lines_of(description: dict[str, Any]) -> list[str]:
    """The sizes of the splits, and what was dropped and why, as lines to show."""
    sizes = ", ".join(f"{name} {part['rows']}" for name, part in description["splits"].items())
    return [f"data: {sizes} rows", *(f"data: {line}" for line in description.get("lines", []))]


def warn_of_change(source: Run, data: Data) -> None:
    """Say which splits hold other rows than those the source run was trained on: its test rows may be among train."""
    other = [name for name, _, _ in changed_splits(source, data)]
    if other:
        log.warning(
            "the data has changed since `%s` was made (%s), so rows of its test split may be used; figures before and "
            "after are both of the data as it is now", source.name, ", ".join(other),
        )  # fmt: skip


def changed_splits(run: Run, data: Data) -> Iterator[tuple[str, str, str]]:
    """(split, sha256 in the run's record, sha256 now) of the splits that hold other rows than the run's did."""
    for name, part in ((run.record.get("data") or {}).get("splits") or {}).items():
        before, now = str(part.get("sha256")), data.content_hash(name)
        if before != now:
            yield name, before, now


def check_unchanged(job: Job, data: Any) -> None:
    """DataError when a resumed run would go on with other rows than it began with."""
    if not job.resume or not isinstance(data, Data) or job.allow_data_change:
        return
    train = job.run.verb == "train"
    way = "pass `--allow-data-change` to go on all the same" if train else f"`trainctl {job.run.verb}` again"
    for name, before, now in changed_splits(job.run, data):
        raise DataError(f"data differs from the run's ({name}: sha256 {before[:12]}, now {now[:12]}); {way}")
