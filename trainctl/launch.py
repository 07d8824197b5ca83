"""Verb + overrides -> claimed run directory -> verb(job) -> finished record.

Everything a user can get wrong is found before the directory is claimed and before torch is imported; whatever
happens afterwards is written into the record: completed, failed (with error.txt) or stopped.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trainctl import check
from trainctl.check import machine
from trainctl.config import saved
from trainctl.config.compose import compose, plain
from trainctl.errors import (
    SIGNALS,
    Interrupted,
    RunError,
    TrainctlError,
    UsageError,
    obeyed,
    raise_interrupted,
)
from trainctl.run import directory, failures, files
from trainctl.run.run import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("trainctl")

MODEL_VERBS = ("train", "prune", "quantize")  # their runs hold a model that other verbs read
KEPT_ARGUMENTS = ("budget",)  # what is no part of the config, and a run that is resumed needs


@dataclass
class Options:
    """How to run a verb, beside its config; plain values, since worker processes get them as JSON.

    But for `hooks` (verbs.job.Hooks), which stay in this process.
    """

    runs_dir: str = "runs"
    config_dir: str | None = None
    trust: list[str] = field(default_factory=list)
    quiet: bool = False
    allow_data_change: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    hooks: Any = None

    @property
    def config_path(self) -> Path | None:
        """The user's conf folder, when one was named."""
        return Path(self.config_dir) if self.config_dir else None

    def to_dict(self) -> dict[str, Any]:
        """Plain built-ins."""
        return {one.name: deepcopy(getattr(self, one.name)) for one in fields(self) if one.name != "hooks"}


def start(verb: str, overrides: Sequence[str], options: Options, source: Run | None = None) -> Run:
    """Run `verb` on a new run directory; returns the finished run. `source` is the run that the verb reads."""
    started = time.perf_counter()
    content = prepared(verb, overrides, options, source)
    with directory.claimed(Path(options.runs_dir), verb) as path:
        return begin(path, verb, content, overrides, options, source, started)


def prepared(verb: str, overrides: Sequence[str], options: Options, source: Run | None = None) -> dict[str, Any]:
    """What config.yaml will hold; UsageError with all that is wrong, RunError for a source that is not trusted."""
    given = trusted_config(source, options) if source is not None else None
    config = composed(verb, overrides, options, given)
    checked(verb, plain(config), options)
    content: dict[str, Any] = yaml.safe_load(saved.dump(config))
    return content


def begin(
    path: Path, verb: str, content: dict[str, Any], overrides: Sequence[str], options: Options,
    source: Run | None = None, started: float | None = None,
) -> Run:  # fmt: skip
    """Carry out a prepared verb in a directory that is claimed; returns the finished run."""
    kept = {key: options.arguments[key] for key in KEPT_ARGUMENTS if key in options.arguments}
    run = Run.create(path, verb, content, list(overrides), parent=source.path if source else None, **kept)
    with run.lock():
        return carry_out(run, options, source, resume=False, started=started)


def trusted_config(run: Run, options: Options) -> dict[str, Any]:
    """The config of a run that is to be used; relative data files are looked for where the run was made, too."""
    refuse_incomplete(run.config)
    check.refuse_untrusted(run.config, options.trust)
    made_in, data = Path(str(run.record.get("cwd", "."))), run.config["data"]
    for key in ("path", "val_path", "test_path", "root"):
        name = data.get(key)
        if isinstance(name, str) and not os.path.exists(name) and (made_in / name).exists():
            data[key] = str(made_in / name)
    return run.config


def refuse_incomplete(config: dict[str, Any]) -> None:
    """RunError for a config.yaml that cannot be of a trained run."""
    for section in ("data", "task", "trainer"):
        if not isinstance(config.get(section), dict):
            raise RunError(f"config.yaml of the run is damaged: it has no `{section}`")


def has_children(config: dict[str, Any]) -> bool:
    """Whether the run is made of child runs: folds or seeds."""
    return any((config.get("train") or {}).get(kind) for kind in ("folds", "seeds"))


def checked(verb: str, config: dict[str, Any], options: Options) -> None:
    """All problems of a config in one UsageError, before anything is created."""
    problems = check.check(verb, config, options.config_path)
    if problems:
        raise refusal(problems)


def composed(verb: str, overrides: Sequence[str], options: Options, source: dict[str, Any] | None = None) -> DictConfig:
    """The config that the overrides give; when one of them cannot be used, all problems in one UsageError."""
    folder = options.config_path
    try:
        return compose(verb, overrides, folder, source=source)
    except UsageError as error:
        raise refusal(check.check_words(verb, overrides, folder, source) or [str(error)]) from None


def refusal(problems: Sequence[str]) -> UsageError:
    """One sentence of all problems."""
    count = f"{len(problems)} problems in the config: " if len(problems) > 1 else ""
    return UsageError(count + "; ".join(problems))


def carry_out(run: Run, options: Options, source: Run | None, resume: bool, started: float | None = None) -> Run:
    """The run's verb, in this process or over several; then its record says how it ended."""
    started = time.perf_counter() if started is None else started
    with failures.recorded(run), signals_raise():
        if run.verb == "train" and has_children(run.config):
            from trainctl import repeat

            repeat.run_all(run, options, source)
            return run
        # predict streams its file, and a compression changes its net: one process does it in order
        count = processes(run.config) if run.verb in ("train", "evaluate") else 1
        if count > 1:
            from trainctl import supervisor

            supervisor.run(run, options, source, resume, count)
            return Run.open(run.path)
        work(run, options, source, resume, started)
    return run


def work(run: Run, options: Options, source: Run | None, resume: bool, started: float, rank: int = 0) -> None:
    """Import the verb, do it, and finish the record (rank 0)."""
    importing = time.perf_counter()
    user_code_importable(options)
    verb: Callable[..., Any] = getattr(importlib.import_module(f"trainctl.verbs.{run.verb}"), run.verb)
    quieten()
    job_module = importlib.import_module("trainctl.verbs.job")
    job = job_module.Job(run, source, resume, options.quiet or rank > 0, options.allow_data_change, rank)
    job.arguments = options.arguments
    job.hooks = options.hooks or job.hooks
    job.clock("import", importing)
    outcome = verb(job)
    if rank > 0:
        return
    from trainctl.reporting import report

    report.write(run, outcome.metrics, outcome.intervals, status="completed")
    job.clock("total", started)
    artifacts = {**outcome.artifacts, "report": "report.html"}
    run.finish(outcome.metrics, outcome.intervals, job.timing, artifacts, **outcome.fields)


@contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP raise Interrupted wherever we are; during fit the Signals callback takes over.

    Where a library swallows it, `Job.clock` raises it again, at the latest before the run is completed; where one makes
    another error of it, it is made Interrupted again.
    """
    previous = {signum: signal.signal(signum, raise_interrupted) for signum in SIGNALS}
    try:
        yield
    except BaseException as error:
        signum = obeyed()
        if signum is None or isinstance(error, Interrupted | TrainctlError):
            raise
        raise Interrupted(signum) from error
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def processes(config: dict[str, Any]) -> int:
    """Worker processes that the trainer config asks for on this machine; several GPUs by `devices=auto` too."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return max(1, len(devices))
    if devices in ("auto", -1, "-1"):
        return max(1, machine.gpus()) if trainer.get("accelerator") in ("auto", "gpu", "cuda") else 1
    return int(devices)


def user_code_importable(options: Options) -> None:
    """`_target_: my_pkg.MyNet` is found beside the user's conf folder and in the current directory."""
    folders = [os.getcwd()] + ([str(Path(options.config_dir).resolve().parent)] if options.config_dir else [])
    sys.path.extend(f for f in folders if f not in sys.path)


def quieten() -> None:
    """Lightning and torch remark on what trainctl decides on purpose; what matters to a user is said by us."""
    import warnings

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch|torchmetrics)(\.|$)")



def opened(runs_dir: Path, name: str, verb: str | Sequence[str] | None = None) -> Run:
    """The run that `name` means; with `verb` (one or several), a bare `latest` means the latest of those."""
    verbs = (verb,) if isinstance(verb, str) else tuple(verb or ())
    run = Run.open(directory.resolve(runs_dir, name, verbs))
    if verbs and run.verb not in verbs:
        if run.verb == "compress" and run.record.get("best"):
            best = files.shown(run.path / run.record["best"])
            raise RunError(f"`{files.shown(run.path)}` is a search; name one of its points, e.g. the best: `{best}`")
        raise RunError(f"`{run.path}` is a run of `{run.verb}`; name a `{verbs[0]}` run, as `latest:{verbs[0]}`")
    return run


def fine_tune(source: Run, overrides: Sequence[str], options: Options) -> Run:
    """A new run with the source's data, model and task unless the overrides choose others, from its weights."""
    if source.verb == "quantize":
        raise RunError(f"`{source.name}` is quantized and cannot be trained further; name its parent instead")
    chosen = {word.partition("=")[0].lstrip("+~") for word in overrides}
    kept = [f"{group}=from_run" for group in ("data", "model", "task") if group not in chosen]
    return start("train", [*kept, *overrides], options, source)
