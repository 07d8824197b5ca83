"""What a study is about to do: printed before it starts and by `--dry-run`."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.durations import duration
from trainctl.run.files import megabytes
from trainctl.tuning.wording import clipped, number_text

if TYPE_CHECKING:
    from trainctl.tuning.dimensions import Dimension
    from trainctl.tuning.facts import Facts
    from trainctl.tuning.recipe import Recipe
    from trainctl.tuning.space import Space

_WIDTH = 100
# seconds to build, record and report a net (experiments/benchmarks/sweeps/README.md)
FIXED_S = {"pool": 0.04, "vectorized": 0.01}


@dataclass(frozen=True)
class Ranged:
    """A dimension as it is shown: its name, its values, and the choices without which it is left out."""

    name: str
    values: str
    only_for: str = ""


@dataclass(frozen=True)
class Plan:
    """Trials, dimensions, workers, and what they will take; None where it is not known before."""

    searched: bool
    trials: int | None
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    sampler: str
    stopper: str
    dimensions: tuple[Ranged, ...]
    jobs: int
    executor: str
    remark: str | None  # why nothing is vectorised though it was asked for
    epochs: int | None  # of a trial
    runs: int  # trainings in a trial: folds times seeds
    epoch_s: float | None
    timeout: float | None
    disk: int | None  # bytes in all
    free: int | None
    folder: str
    fixed_s: float = 0.0  # of a training, beside its epochs

    @classmethod
    def make(cls, recipe: Recipe, facts: Facts, folder: Path = Path("runs")) -> Plan:
        """The plan of a recipe whose first trial was measured; `folder` is where the runs go."""
        from trainctl.tuning.search import chosen_executor

        settings = recipe.settings
        executor, remark = chosen_executor(recipe, facts)
        epochs = recipe.config["trainer"].get("max_epochs")
        each = facts.run_bytes
        runs = (settings.folds or 1) * (settings.seeds or 1)
        return cls(
            recipe.searched,
            recipe.budget,
            settings.objectives,
            settings.directions,
            str(settings.sampler["name"]),
            str(settings.stopper["name"]),
            tuple(described(recipe.space)),
            settings.jobs,
            executor,
            remark,
            epochs if isinstance(epochs, int) and epochs > 0 and not facts.at_once else None,
            runs,
            facts.epoch_s,
            settings.timeout,
            None if each is None or recipe.budget is None else each * recipe.budget * runs,
            free_bytes(folder),
            str(folder),
            FIXED_S[executor],
        )

    @property
    def estimate_s(self) -> float | None:
        """Seconds for all trials, each trained to its end by itself; None when something is not known."""
        if self.epoch_s is None or self.epochs is None or self.trials is None:
            return self.timeout
        each = self.epochs * self.epoch_s + self.fixed_s
        whole = self.trials * self.runs * each / max(1, min(self.jobs, self.trials))
        return whole if self.timeout is None else min(whole, self.timeout)

    def to_json(self) -> dict[str, Any]:
        """What `--dry-run --json` prints."""
        return {**asdict(self), "estimate_s": self.estimate_s}

    def lines(self) -> list[str]:
        """The plan as aligned text."""
        rows = [("plan", self._trials()), *self._dimensions(), ("workers", self._workers())]
        rows += [("", self.remark)] if self.remark else []
        rows += [("time", self._time()), ("disk", self._disk()), ("runs", self.folder)]
        return [f"{name:<11} {text}".rstrip() for name, text in rows if text]

    def _trials(self) -> str:
        if not self.searched:
            return f"{self.trials} points, each trained once"
        number = "trials until time is up" if self.trials is None else _count(self.trials, "trial")
        wanted = ", ".join(f"{way} {name}" for way, name in zip(self.directions, self.objectives, strict=True))
        stopper = "" if self.stopper == "none" else f", stopper {self.stopper}"
        each = f", {self.runs} trainings each" if self.runs > 1 else ""
        return f"{number}{each}, sampler {self.sampler}{stopper}, {wanted}"

    def _dimensions(self) -> list[tuple[str, str]]:
        width = max((len(ranged.name) for ranged in self.dimensions), default=0)
        found = []
        for number, ranged in enumerate(self.dimensions):
            only = f"  (only for {ranged.only_for})" if ranged.only_for else ""
            found.append(("" if number else "dimensions", f"{ranged.name:<{width}}  {ranged.values}{only}"))
        return found

    def _workers(self) -> str:
        kind = ", trials of one shape trained as one stacked model" if self.executor == "vectorized" else ""
        return f"{self.jobs}{kind}"

    def _time(self) -> str:
        parts = [] if self.epoch_s is None else [f"{short(self.epoch_s)} an epoch"]
        parts += [] if self.epochs is None else [f"{_count(self.epochs, 'epoch')} a training"]
        if self.estimate_s is not None:
            sooner = self.stopper != "none" or self.executor == "vectorized" or self.timeout is not None
            parts.append(f"{'at most' if sooner else 'about'} {short(self.estimate_s)} in all")
        return ", ".join(parts)

    def _disk(self) -> str:
        free = "" if self.free is None else f"{megabytes(self.free)} free"
        return free if self.disk is None else f"about {megabytes(self.disk)}" + (f", {free}" if free else "")


def described(space: Space) -> list[Ranged]:
    """Each dimension with its values, and the choices without which it is left out."""
    only = conditions(space)
    return [Ranged(d.name, values_text(d), only.get(d.name, "")) for d in space.dimensions]


def values_text(dimension: Dimension) -> str:
    """`mlp, resmlp`, or `1e-4 to 0.1 (log)`."""
    if dimension.kind == "choice":
        if len(dimension.choices) > 8:
            return clipped(f"{len(dimension.choices)} choices: {', '.join(dimension.choices)}", _WIDTH)
        return clipped(", ".join(dimension.choices), _WIDTH)
    step = f"step {number_text(dimension.step)}" if dimension.step not in (None, 1) and dimension.step else ""
    notes = [note for note in ("log" if dimension.log else "", "int" if dimension.kind == "int" else "", step) if note]
    text = f"{number_text(dimension.low)} to {number_text(dimension.high)}"
    return f"{text} ({', '.join(notes)})" if notes else text


def conditions(space: Space) -> dict[str, str]:
    """Name of a dimension -> `model=resmlp`: the choices of a group that alone have its key."""
    found: dict[str, str] = {}
    for group in space.dimensions:
        if not space.is_group(group) or group.joint:
            continue
        active = {choice: _active(space, group, choice) for choice in group.choices}
        for dimension in space.dimensions:
            having = [choice for choice, names in active.items() if dimension.name in names]
            if dimension is not group and 0 < len(having) < len(active):
                found.setdefault(dimension.name, f"{group.name}={','.join(having)}")
    return found


def _active(space: Space, group: Dimension, choice: str) -> set[str]:
    return set(space.point(lambda one: choice if one is group else one.ends()[0]))


def free_bytes(folder: Path) -> int | None:
    """Free bytes where the runs will be; None when the disk does not say."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def short(seconds: float) -> str:
    """A duration that may be far below a second."""
    return duration(seconds) if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
