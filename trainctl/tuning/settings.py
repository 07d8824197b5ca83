"""What a search is asked for: the `tune` node of the config as plain values, and what it adds to every trial.

`train -m` has the same settings with nothing to search: all points, no objective, tests as in any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.check import machine, monitors
from trainctl.durations import seconds
from trainctl.errors import UsageError, did_you_mean
from trainctl.metrics import names

NODES = ("tune", "sampler", "stopper", "space")  # of a tune config; the rest is the trials'
MEASURED = ("parameters", "latency_ms")  # objectives that are measured on the net, not by the task
# of a trial's epochs: earlier, the best trials are mostly not among the best third yet (benchmarks/sweeps/quality.py)
FIRST_LOOK = 2 / 9
PER_SWEEP = ("tune.jobs", "tune.executor", "tune.stack", "tune.trial_timeout", "tune.timeout")  # `train -m` takes them


@dataclass(frozen=True)
class Settings:
    """A search: budget, workers, objectives, sampler and stopper. `objectives` is empty when nothing is searched."""

    objectives: tuple[str, ...]
    directions: tuple[str, ...]  # minimize or maximize, one each
    sampler: dict[str, Any]
    stopper: dict[str, Any]
    seed: int
    trials: int | None
    timeout: float | None
    jobs: int
    gpus: int
    folds: int | None
    seeds: int | None
    trial_timeout: float | None
    max_failure_rate: float
    executor: str
    stack: int
    storage: str | None
    study_name: str | None
    refit: bool
    heartbeat: float

    @classmethod
    def from_config(cls, config: dict[str, Any], searched: bool) -> Settings:
        """The settings of a composed tune config; UsageError for an objective or direction that cannot be."""
        tune = config["tune"]
        objectives = _objectives(config) if searched else ()
        jobs, gpus = _jobs(tune["jobs"], config["trainer"])
        return cls(
            objectives,
            _directions(tune["direction"], objectives, config),
            dict(config["sampler"]) if searched else {"name": "grid"},
            _stopper(config) if searched else {"name": "none"},
            int(config["seed"]),
            tune["trials"] if searched else None,
            seconds(tune["timeout"], "tune.timeout"),
            jobs,
            gpus,
            tune["folds"] if searched else None,
            tune["seeds"] if searched else None,
            seconds(tune["trial_timeout"], "tune.trial_timeout"),
            float(tune["max_failure_rate"]) if searched else 0.0,
            tune["executor"],
            tune["stack"],
            tune["storage"] if searched else None,
            tune["study"] if searched else None,
            bool(tune["refit"]) if searched else False,
            float(tune.get("heartbeat") or 5.0),
        )

    def threads(self, config: dict[str, Any]) -> int | None:
        """Threads of a trial, so that the workers do not fight over cores; None leaves the choice to the trial."""
        if config["trainer"].get("threads", "auto") != "auto":
            return None
        return max(1, machine.cores() // self.jobs) if self.jobs > 1 else None

    def trial_words(self, config: dict[str, Any], typed: Sequence[str]) -> list[str]:
        """Override words that every trial gets beside its point; what was typed is left as it is."""
        given = {word.lstrip("+~").partition("=")[0] for word in typed}
        threads = self.threads(config)
        words: dict[str, Any] = {"trainer.threads": threads} if threads is not None else {}
        if self.objectives:
            watched = next((name for name in self.objectives if name not in MEASURED), None)
            monitor = config["train"].get("monitor", "auto")
            words |= {"train.test": "false"} | ({"train.monitor": watched} if watched and monitor == "auto" else {})
        if self.folds:
            words |= {"train.folds": self.folds, "data.split.fold_as": "val"}
        if self.seeds:
            words |= {"train.seeds": self.seeds}
        return [f"{key}={value}" for key, value in words.items() if key not in given]


def head(word: str) -> str:
    """The first part of an override's key: `tune` of `tune.jobs=2`, `hydra` of `hydra/launcher=joblib`."""
    return word.lstrip("+~").partition("=")[0].replace("/", ".").partition(".")[0]


def _stopper(config: dict[str, Any]) -> dict[str, Any]:
    """The stopper's options; its first look, where none is given, as a share of a trial's epochs."""
    options = dict(config["stopper"])
    if options.get("min_resource", 1) is None:
        epochs = config["trainer"].get("max_epochs")
        options["min_resource"] = max(1, round(FIRST_LOOK * epochs)) if isinstance(epochs, int) else 1
    return options


def _objectives(config: dict[str, Any]) -> tuple[str, ...]:
    wanted, monitor = config["tune"]["objective"], config["train"].get("monitor", "auto")
    wanted = ("val/loss" if monitor == "auto" else monitor) if wanted == "auto" else wanted
    chosen = tuple(wanted) if isinstance(wanted, list) else (wanted,)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"`tune.objective` must name one or more different figures, got {wanted}")
    have = [*monitors.produced(config), *MEASURED]
    for name in chosen:
        if isinstance(name, str) and name.startswith("test/"):
            raise UsageError(f"objective `{name}` would tune on the test split; use `val/{name.partition('/')[2]}`")
        if name not in have and len(have) > len(MEASURED):
            hint = did_you_mean(str(name), have)
            raise UsageError(f"objective `{name}` is not produced; have: {', '.join(have)}{hint}")
    return chosen


def _directions(wanted: str | list[str], objectives: tuple[str, ...], config: dict[str, Any]) -> tuple[str, ...]:
    given = wanted if isinstance(wanted, list) else [wanted] * len(objectives)
    if len(given) != len(objectives):
        raise UsageError(
            f"`tune.direction` has {len(given)} entries and `tune.objective` {len(objectives)}; give one each, as in "
            f"[{','.join(['min'] * len(objectives))}]"
        )
    monitor, mode = config["train"].get("monitor"), config["train"].get("mode", "auto")
    found = []
    for name, direction in zip(objectives, given, strict=True):
        if direction == "auto":
            direction = mode if name == monitor and mode != "auto" else direction_of(name)
        if direction not in ("min", "max"):
            raise UsageError(f"`tune.direction` must be auto, min or max, got '{direction}'")
        found.append(f"{direction}imize")
    return tuple(found)


def direction_of(name: str) -> str:
    """`min` when less of a figure is better."""
    return "min" if name in MEASURED or "loss" in name else names.mode(name)


def _jobs(wanted: int | str, trainer: dict[str, Any]) -> tuple[int, int]:
    """Worker processes, and the GPUs that they share out (0: none)."""
    devices = trainer.get("devices", 1)
    each = devices if isinstance(devices, int) and not isinstance(devices, bool) else 1
    gpus = machine.gpus() if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") else 0
    if wanted != "auto":
        return int(wanted), gpus
    return max(1, (gpus or machine.cores()) // max(1, each)), gpus
