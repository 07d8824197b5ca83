"""`train -m hydra/launcher=...`: every point of a grid as a full run below one directory, through Hydra's launcher.

Without Hydra's own settings among the words, `train -m` runs on the worker processes of `trainctl.tuning`.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from trainctl import launch
from trainctl.config import overrides as grammar
from trainctl.config import saved
from trainctl.config.compose import compose, plain, searchpath
from trainctl.config.listing import folders as config_folders
from trainctl.config.mistakes import text
from trainctl.errors import Interrupted, Stopped, TrainctlError, UsageError
from trainctl.run import compare, directory, files
from trainctl.run.run import Run

log = logging.getLogger("trainctl")


@dataclass
class Sweep:
    """A finished sweep: its directory and a row per job, best first."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Jobs that did not complete."""
        return sum(row["status"] != "completed" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The content of sweep.json and of `--json`."""
        return {"sweep": str(self.path), "status": "failed" if self.failed else "completed", "jobs": self.rows}


def wants_hydra(words: Sequence[str]) -> bool:
    """Whether a launcher, or another setting of Hydra's own, is asked for."""
    return any(word.lstrip("+~").startswith(("hydra.", "hydra/", "hydra=")) for word in words)


def sweep(verb: str, words: Sequence[str], options: launch.Options) -> Sweep:
    """Run every point; a failing job does not stop the others. UsageError before anything runs."""
    jobs = grammar.points([w for w in words if not w.startswith("hydra")])
    for job in _telling(jobs):
        launch.checked(verb, plain(compose(verb, job, options.config_path)), options)
    path = directory.claim(Path(options.runs_dir), verb)
    files.write_json(path / "sweep.json", {"status": "running", "overrides": list(words), "jobs": []})
    log.info("sweep: %d runs below %s", len(jobs), path)
    try:
        _through_hydra(verb, words, options, path)
    except Interrupted as interrupted:
        begun = _ranked(path, len(jobs))
        files.write_json(path / "sweep.json", {"status": "stopped", "overrides": list(words), "jobs": begun})
        raise Stopped(interrupted.signum, f"sweep stopped by {interrupted}; what finished is below `{path}`") from None
    except HydraException as error:
        if any(path.glob("*/run.json")):
            raise
        shutil.rmtree(path, ignore_errors=True)  # a launcher that Hydra does not have, or a key that it has not
        raise UsageError(f"Hydra cannot start the sweep: {str(error).splitlines()[0]}") from error
    result = Sweep(path, _ranked(path, len(jobs)))
    files.write_json(path / "sweep.json", {**result.to_dict(), "overrides": list(words)})
    return result


def _telling(jobs: list[list[str]]) -> list[list[str]]:
    """The first point, and for each further value of each dimension one point that has it: every typo is in there."""
    seen: set[str] = set()
    chosen = []
    for job in jobs:
        if not seen.issuperset(job):
            seen.update(job)
            chosen.append(job)
    return chosen


def _through_hydra(verb: str, words: Sequence[str], options: launch.Options, path: Path) -> None:
    folders = config_folders(options.config_path)
    settings = [
        f"hydra.sweep.dir='{path.resolve()}'",
        "hydra.sweep.subdir=${hydra.job.num}",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
        *searchpath(folders),
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folders[0]), version_base="1.3", job_name=verb):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        task = partial(job, verb=verb, options=options.to_dict(), cwd=os.getcwd())
        hydra.multirun(
            config_name=verb,
            task_function=task,
            overrides=[*settings, *map(text, grammar.parse(words))],
            with_log_configuration=False,
        )


def job(config: DictConfig, *, verb: str, options: dict[str, Any], cwd: str) -> dict[str, Any]:
    """One point, in whatever process the launcher chose; its failure is written to its own record."""
    os.chdir(cwd)
    setting = HydraConfig.get()
    path, words = Path(setting.runtime.output_dir), list(setting.overrides.task)
    config = copy.deepcopy(config)
    with open_dict(config):
        config.pop("hydra", None)
    relative = Path(os.path.relpath(path, cwd))
    path = relative if not relative.parts[:1] == ("..",) else path
    try:
        run = Run.create(path, verb, yaml.safe_load(saved.dump(config)), words)
        launch_options = launch.Options(**options)
        launch.checked(verb, plain(config), launch_options)
        with run.lock():
            launch.carry_out(run, launch_options, None, resume=False)
        log.info("job %s completed: %s", path.name, " ".join(words))
        return {"status": "completed"}
    except Stopped as stopped:
        # past Hydra, which takes every Exception for one job's failure
        raise Interrupted(stopped.signum) from None
    except TrainctlError as error:
        log.warning("job %s failed: %s", path.name, error)
    except Exception as error:
        log.warning("job %s failed: %s: %s (see %s)", path.name, type(error).__name__, error, path / "error.txt")
    return {"status": "failed"}


def _ranked(path: Path, count: int) -> list[dict[str, Any]]:
    folders = [path / str(number) for number in range(count)]
    runs = [directory.read(folder) for folder in folders if folder.exists()]
    metric, mode = _objective(runs)
    rows = []
    for ranked in compare.rank(runs, metric, mode):
        run, error = ranked.run, (ranked.run.record.get("error") or {}).get("message")
        row = {"run": str(run.path), "status": run.status, "overrides": run.record.get("overrides", [])}
        rows.append({**row, "metric": metric, "value": ranked.value, "place": ranked.place})
        if error:
            rows[-1]["error"] = error
    return rows


def _objective(runs: Sequence[Run]) -> tuple[str, str]:
    """The metric that picked the best checkpoints, as the first finished run recorded it."""
    for run in runs:
        if run.status == "completed" and run.record.get("monitor"):
            return str(run.record["monitor"]), str(run.record["mode"])
    return "val/loss", "min"
