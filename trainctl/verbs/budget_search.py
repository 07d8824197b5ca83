"""The setting of a compressor that keeps to a budget.

Settings go from gentle to hard. Size and speed can be judged without training, so for a target the gentlest setting
that reaches it is looked for first; how far the objective falls shows only after fine-tuning, so for `--max-drop`
alone the hardest setting that keeps to it is found by halving. What a method's settings cost is taken to grow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import nn

from trainctl.budgets import Budget
from trainctl.compression import latency, measure
from trainctl.compression.base import Artifact, Compressor
from trainctl.compression.cost import macs
from trainctl.errors import UsageError
from trainctl.verbs import exported, restore
from trainctl.verbs.attempt import Attempt, Node, attempt
from trainctl.verbs.entrants import repeated
from trainctl.verbs.parent import Parent

log = logging.getLogger("trainctl")


@dataclass
class Found:
    """The attempt that was chosen, what of the budget it misses, and a line per setting that was tried."""

    attempt: Attempt
    missed: list[str]
    tried: list[Node] = field(default_factory=list)


def search(parent: Parent, compressor: Compressor) -> Found:
    """One attempt without a budget, or with a setting given by hand; else the best that the search finds."""
    budget = Budget.from_dict(parent.job.arguments.get("budget"))
    by_hand = any(key.startswith("compressor.") for key in parent.given)
    settings = [] if by_hand or not budget else compressor.candidates(parent.net, parent.context(0))
    judge = Judge(parent, budget)
    if not settings:
        return judge.found(attempt(parent, {}))
    if budget.targets or budget.max_latency_ms is not None:
        return judge.found(attempt(parent, gentlest_small_enough(judge, settings)))
    return hardest_good_enough(judge, settings)


@dataclass
class Judge:
    """Measures attempts against a budget, and remembers them."""

    parent: Parent
    budget: Budget
    tried: list[Node] = field(default_factory=list)
    _refusal: UsageError | None = None

    def found(self, made: Attempt) -> Found:
        """The attempt with all that it misses."""
        return Found(made, self.misses(made, with_drop=True), self.tried)

    def attempt(self, settings: Node, trained: bool = True) -> Attempt | None:
        """As `attempt`; None for a setting that is harder than the net can bear."""
        try:
            return attempt(self.parent, settings, trained)
        except UsageError as error:
            self._refusal = error
            log.info("tried %s: %s", self._changed(settings), error)
            return None

    def give_up(self) -> NoReturn:
        """Raise why the last setting could not be had, when none could."""
        assert self._refusal is not None
        raise self._refusal

    def _changed(self, settings: Node) -> str:
        return _text({k: v for k, v in settings.items() if self.parent.config["compressor"].get(k) != v})

    def misses(self, made: Attempt, with_drop: bool) -> list[str]:
        """What the attempt fails; `with_drop` False leaves out the objective, for a net that was not fine-tuned."""
        figures = self.figures(made.net)
        if with_drop:
            figures["drop"] = self.parent.objective.drop(self.parent.own_value, made.value)
        budget = self.budget if with_drop else Budget(None, self.budget.targets, self.budget.max_latency_ms)
        missed = budget.misses(figures)
        self.tried.append({"settings": made.settings, **figures, "missed": missed, "took_s": round(made.took_s, 2)})
        if self.budget:
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            log.info("tried %s: %s%s", self._changed(made.settings), told, "" if missed else "; within the budget")
        return missed

    def figures(self, net: nn.Module) -> dict[str, float]:
        """Times smaller and faster than the parent's net; `latency_ms` of a call where the budget asks for it."""
        parent, example = self.parent, self.parent.context(0).example
        packed = bool(parent.config.get("sparse"))
        found = {"bytes": parent.file.stat().st_size / file_bytes(net, packed)}
        if isinstance(net, Artifact):
            found |= {"parameters": 1.0, "macs": 1.0}  # quantizing changes neither
        else:
            found["parameters"] = _parameters(parent.net) / max(1, _parameters(net))
            found["macs"] = macs(parent.net, example) / max(1, macs(net, example))
        if self.budget.needs_speed:
            found |= self.speed(net)
        return found

    def speed(self, net: nn.Module) -> dict[str, float]:
        """Both nets as they would be run, timed in turns."""
        options, threads = self.parent.config["measure"], self.parent.config["trainer"]["threads"]
        rows = int(options["batch"])
        x, example = repeated(self.parent.calibration, rows), self.parent.calibration[:2]
        assert self.parent.job.source is not None
        parent = exported.as_onnx(self.parent.job.source, self.parent.net, example)
        subjects = {
            "parent": _fastest(latency.engines(self.parent.net, parent, threads)),
            "net": _fastest(latency.subjects_of(net, example, threads)),
        }
        timed = latency.latency(subjects, {rows: x}, int(options["calls"]), threads, float(options["seconds"]))
        read = latency.reading(timed)
        before, after = (timed[name][rows][read] for name in subjects)
        return {"latency": before / after, "latency_ms": after}


def gentlest_small_enough(judge: Judge, settings: list[Node]) -> Node:
    """The first setting that meets the targets, without training; the hardest that can be had when none does.

    UsageError when none can be had.
    """
    low, high = 0, len(settings) - 1
    enough: Node | None = None
    most: Node | None = None
    while low <= high:
        middle = (low + high) // 2
        made = judge.attempt(settings[middle], trained=False)
        if made is None:
            high = middle - 1
        elif judge.misses(made, with_drop=False):
            low, most = middle + 1, settings[middle]
        else:
            high, enough = middle - 1, settings[middle]
    return enough or most or judge.give_up()


def hardest_good_enough(judge: Judge, settings: list[Node]) -> Found:
    """The last setting whose drop is within the budget; the first one, with what it misses, when none is."""
    best: Found | None = None
    gentlest: Found | None = None
    low, high = 0, len(settings) - 1
    while low <= high:
        middle = (low + high) // 2
        made = judge.attempt(settings[middle])
        found = None if made is None else judge.found(made)
        if found is None or found.missed:
            high, gentlest = middle - 1, found or gentlest
        else:
            best, low = found, middle + 1
    return best or gentlest or judge.give_up()


def file_bytes(net: nn.Module, packed: bool) -> int:
    """Bytes of the file that would be written; `packed`: with zeros that take none."""
    return len(net.content if isinstance(net, Artifact) else restore.as_file(net.state_dict(), packed))


def _parameters(net: nn.Module) -> int:
    return measure.parameters_of(net)[0]


def _fastest(subjects: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """ONNX Runtime where the net runs on it."""
    return subjects.get("onnxruntime") or subjects["torch"]


def _text(settings: Node) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "the settings given"
