"""compress: a small search over pruning and quantizing, within a budget; every point is a run of its own.

First a scan of how sensitive each layer is. Then the run itself is quantized, in 8 bits and, where layers bear it, in
4; and pruned ones are: how much is pruned is found by halving, each point fine-tuned with the run as its teacher, until
the time is used up. All points are measured side by side in the end; those that no other beats in accuracy, bytes and
time at once are the Pareto front.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl import launch, pareto, resuming
from trainctl.budgets import Budget
from trainctl.config import listing
from trainctl.durations import duration, seconds
from trainctl.errors import DataError, ResourceError, RunError, TrainctlError, UsageError
from trainctl.pace import Pace, Tried
from trainctl.pareto import Point
from trainctl.reporting import report
from trainctl.run import directory, failures, files
from trainctl.run.manifest import Manifest
from trainctl.run.record import plain_overrides
from trainctl.run.run import Run

log = logging.getLogger("trainctl")

RECORD = "compress.json"
DEFAULT_DROP = 0.01  # without `--max-drop`
LEAST_TIME_S = 20.0
SENSITIVE, CHEAP = 20.0, 0.1  # a layer is kept whole when half of it costs 20 budgets and it is under a tenth of all
MEASURED = 0.4  # of `measure.seconds` for each point alone: all are measured again beside each other
FEW = 0.1  # of all weights: where fewer can have 4 bits, it is not worth a point


def compress(source: Run, overrides: Sequence[str], options: launch.Options, budget: Budget) -> Run:
    """Search, and leave a run whose `trials/` are the points; compress.json has the front and the best of them."""
    if budget.max_drop is None:
        budget = Budget(DEFAULT_DROP, budget.targets, budget.max_latency_ms)
    content = launch.prepared("compress", overrides, options, source)
    _check_quantizers(content["compress"]["quantizers"], options, source)
    with directory.claimed(Path(options.runs_dir), "compress") as path:
        run = Run.create(path, "compress", content, list(overrides), source.path, budget=budget.to_dict())
        with run.lock(), failures.recorded(run), launch.signals_raise():
            Search(run, source, list(overrides), options, budget).run_all()
    return run


def resume(run: Run, options: launch.Options) -> Run:
    """Go on with a search that was interrupted; points that are complete are kept. RunError for a damaged record."""
    launch.trusted_config(run, options)
    source = resuming.compressed_by(run)
    budget = Budget.from_dict(run.record["budget"])
    with run.lock():
        if run.status == "completed":
            log.warning("the search is complete already")
            return run
        with failures.kept_when_refused(run):
            run.resume()
            with failures.recorded(run), launch.signals_raise():
                Search(run, source, list(run.record["overrides"]), options, budget).run_all()
    return run


@dataclass
class Search:
    """One search: `points` are the child runs so far, each with what it is; `pruned` those of `prune`, by amount.

    four_bits_s: what the latest point with 4 bits took. spent: seconds before a resume.
    """

    run: Run
    source: Run
    overrides: list[str]
    options: launch.Options
    budget: Budget
    points: list[tuple[Run, str]] = field(default_factory=list)
    failed: list[Point] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    pruned: dict[float, list[Run]] = field(default_factory=dict)
    four_bits_s: float = 0.0
    spent: float = 0.0

    def run_all(self) -> None:
        """Scan, search, compare, and finish the record."""
        started = time.perf_counter()
        launch.user_code_importable(self.options)
        launch.quieten()
        rows, value = self._scan()
        limit = self._time_limit()
        log.info("searching for about %s", duration(limit))
        self._quantize(self.source, "")
        self._four_bits(rows, self.source)
        hardest = self._prune(started + limit, _kept_whole(rows, self.budget.max_drop or DEFAULT_DROP))
        if (best := min(self.pruned.get(hardest, []), key=pareto.drop, default=None)) is not None:
            self._four_bits(rows, best, f"channels {hardest:g}, ", started + limit)
        if not self.points:
            why = "; ".join(f"{one['what']}: {one['error']}" for one in self.failed) or "none was asked for"
            raise UsageError(f"no point could be made of `{files.shown(self.source.path)}`: {why}")
        content = self._compared(rows, value)
        content["took_s"] = round(self._now() - started, 1)
        files.write_json(self.run.path / RECORD, content)
        self._finish(content)

    def _scan(self) -> tuple[list[Point], float]:
        job = importlib.import_module("trainctl.verbs.job").Job(self.run, self.source, quiet=self.options.quiet)
        rows, value = importlib.import_module("trainctl.verbs.sensitivity").scan(job)
        for row in sorted(rows, key=lambda row: -row["drop"]["half"])[:5]:
            told = ", ".join(f"{name} {drop:.4f}" for name, drop in row["drop"].items())
            log.info("sensitivity of `%s` (%.0f %% of the weights): %s", row["layer"], 100 * row["share"], told)
        return rows, value

    def _time_limit(self) -> float:
        asked = seconds(self.run.config["compress"].get("max_time"))
        return asked or max(LEAST_TIME_S, pareto.took(self.source, "fit_s"))

    def _quantize(self, parent: Run, made: str) -> Run | None:
        """Quantize by each quantizer; returns the one that dropped least, for the search to go by."""
        runs = []
        for name in self.run.config["compress"]["quantizers"]:
            child = self._child("quantize", parent, [f"compressor={name}"], f"{made}{', ' if made else ''}{name}")
            runs += [child] if child is not None else []
        return min(runs, key=pareto.drop, default=None)

    def _four_bits(self, rows: list[Point], parent: Run, made: str = "", deadline: float = math.inf) -> None:
        """4-bit weights in linear layers, 8 bits in those that the scan finds too sensitive; none where few are left.

        All layers together may drop as much as the budget allows, so each alone may by its share of the weights.
        """
        if not self.run.config["compress"]["four_bits"]:
            return
        linear = [row for row in rows if row["kind"] == "Linear"]
        limit = self.budget.max_drop or DEFAULT_DROP
        eight = [row for row in linear if row["drop"]["int4"] > limit * max(row["share"], 1 / len(linear))]
        late = self._now() + self.four_bits_s + self._comparing() > deadline and not self._place().exists()
        if late or sum(row["share"] for row in linear if row not in eight) < FEW:
            return
        words = ["compressor=int4_weight_only", f"compressor.eight={_list(row['layer'] for row in eight)}"]
        told = f", {len(eight)} of {len(linear)} layers in 8 bits" if eight else ""
        child = self._child("quantize", parent, words, f"{made}int4_weight_only{told}")
        self.four_bits_s = pareto.took(child, "total_s") if child is not None else 0.0

    def _prune(self, deadline: float, whole: list[str]) -> float:
        """Prune and quantize at shares of the multiply-adds found by halving, as long as there is time.

        What is left of it goes into a longer fine-tuning of the hardest one within the budget, which is returned.
        """
        amounts, given = sorted(self.run.config["compress"]["amounts"]), self.run.config["compress"]["epochs"]
        every = int(self.run.config["trainer"]["max_epochs"])
        epochs = given or -(-every // 2)
        low, high = 0, len(amounts) - 1
        while low <= high:  # halving ends with a point within the budget, where there is one
            middle = (low + high) // 2
            room = self._room(amounts[middle], epochs, given or -(-epochs // 2), deadline)
            if not room:
                break
            worst = self._pruned(amounts[middle], room, whole)
            low, high = (middle + 1, high) if worst <= (self.budget.max_drop or 0.0) else (low, middle - 1)
        hardest = amounts[max(0, low - 1)] if amounts else math.nan
        made = [one.epochs for one in self.pace.tried if one.amount == hardest]
        if made and not given and (room := self._room(hardest, every, -(-3 * made[0] // 2), deadline)):
            self._pruned(hardest, room, whole, f", {room} epochs")
        return hardest

    def _room(self, amount: float, most: int, least: int, deadline: float) -> int:
        """Epochs for a point that there is time for; what was decided before an interruption stands."""
        with contextlib.suppress(RunError):
            words = dict(word.partition("=")[::2] for word in Run.open(self._place()).record.get("overrides", []))
            same = words.get("compressor.amount") == str(amount)
            return int(words.get("trainer.max_epochs", 0)) if same else 0
        return self.pace.epochs(amount, most, least, deadline - self._now() - self._comparing())

    def _pruned(self, amount: float, epochs: int, whole: list[str], told: str = "") -> float:
        """Prune, and quantize the result; returns the larger drop of both."""
        started, words = self._now(), self._pruning(amount, epochs, whole)
        pruned = self._child("prune", self.source, words, f"channels {amount:g} of the multiply-adds{told}")
        child = pruned and self._quantize(pruned, f"channels {amount:g}{told}")
        if pruned is not None:
            self.pace.tried.append(Tried(amount, epochs, self._now() - started, pareto.took(pruned, "fit_s")))
            self.pruned.setdefault(amount, []).append(pruned)
        drops = [pareto.drop_of(one, self.source) for one in (pruned, child) if one is not None]
        return max(drops, default=math.inf)

    def _comparing(self) -> float:
        """Seconds that the comparison of all points will take, about: each was measured beside its parent already.

        The first point also measured the run itself, and in another way than the comparison does.
        """
        return sum(pareto.took(child, "measure_s") for child, _ in self.points[1:])

    def _pruning(self, amount: float, epochs: int, whole: list[str]) -> list[str]:
        ways = ["compressor=channels", "compressor.target=macs", "compressor.importance=taylor"]
        ways += ["compressor.global_ranking=true", "compressor.round_to=auto", f"compressor.amount={amount}"]
        kept = [f"compressor.exclude={_list(whole)}"] if whole else []
        return [*ways, "distill=true", *kept, f"trainer.max_epochs={epochs}"]

    def _child(self, verb: str, parent: Run, words: list[str], what: str) -> Run | None:
        """One point; None, with the reason in the record, when it fails."""
        if files.is_gone(self.run.path):
            raise files.vanished(self.run.path)
        path = self._place()
        number = int(path.name)
        own = ("compress.", "trainer.max_epochs", "measure.")
        passed = [word for word in self.overrides if not word.lstrip("+").startswith(own)]
        measure = self.run.config["measure"]
        measure = {**measure, "seconds": MEASURED * measure["seconds"]}
        given = [*words, *(f"measure.{key}={value}" for key, value in measure.items()), *passed]
        log.info("point %d: %s", number, what)
        try:
            child = self._made_before(path, verb, parent, given)
            if child is None:
                content = launch.prepared(verb, given, self.options, parent)
                path.mkdir(parents=True)
                child = launch.begin(path, verb, content, given, self.options, parent)
        except TrainctlError as error:
            if error.exit_code >= 128 or isinstance(error, DataError | ResourceError):
                raise  # no other point would fare better
            log.warning("point %d (%s) failed: %s", number, what, error)
            self.failed.append({"point": number, "what": what, "error": str(error)})
            return None
        self.points.append((child, what))
        return child

    def _place(self) -> Path:
        """Where the next point goes."""
        return self.run.path / "trials" / str(len(self.points) + len(self.failed))

    def _made_before(self, path: Path, verb: str, parent: Run, given: list[str]) -> Run | None:
        """The same point, of a search that is resumed; what else is in its place goes."""
        with contextlib.suppress(RunError):
            child = Run.open(path)
            same = (child.verb, child.record["overrides"]) == (verb, plain_overrides(given))
            same = same and child.parent is not None and child.parent.resolve() == parent.path.resolve()
            manifest = Manifest.read(path)
            for relative in manifest.files if same else ():
                manifest.verify(path / relative, relative)
            if same and child.status == "completed":
                log.info("it was made before: %s", files.shown(path))
                self.spent += pareto.took(child, "total_s")
                return child
            if same and child.status in ("stopped", "crashed"):
                log.info("it was begun before: %s", files.shown(path))
                return resuming.resume(child, [], self.options)
        shutil.rmtree(path, ignore_errors=True)
        return None

    def _now(self) -> float:
        return time.perf_counter() + self.spent

    def _compared(self, rows: list[Point], value: float) -> dict[str, Any]:
        """All points measured side by side, the front, the best within the budget, and what the closest one misses."""
        points = pareto.compared(self.source, self.points, self.run.config["measure"])
        for point in points:
            point["missed"] = self.budget.misses(point["figures"])
        best = pareto.best(points[1:])
        assert best is not None
        objective, budget = {"name": self.points[0][0].record.get("monitor"), "value": value}, self.budget.to_dict()
        return {
            "schema": 1, "objective": objective, "budget": budget, "sensitivity": rows, "points": points,
            "failed": self.failed, "best": best["number"], "gate": {"budget": budget, "missed": best["missed"]},
        }  # fmt: skip

    def _finish(self, content: dict[str, Any]) -> None:
        best, _ = self.points[content["best"] - 1]
        metrics = dict(best.metrics)
        child = best.path.relative_to(self.run.path).as_posix()
        fields = {"points": len(self.points), "best": child, "gate": content["gate"]}
        report.write(self.run, metrics, {}, status="completed")
        artifacts = {"compress": RECORD, "report": "report.html"}
        self.run.finish(metrics, {}, {"total_s": content["took_s"]}, artifacts, **fields)


def _check_quantizers(names: Sequence[str], options: launch.Options, source: Run) -> None:
    """UsageError for a name that is no option, or that prunes."""
    known = {file.stem: file for file in listing.files("compressor", listing.folders(options.config_path))}
    for name in names:
        if name not in known:
            launch.prepared("quantize", [f"compressor={name}"], options, source)  # says what there is
        elif not listing.quantizes(known[name]):
            raise UsageError(f"`compress.quantizers`: `{name}` prunes; name methods of `quantize`, such as int8")


def _list(layers: Iterable[str]) -> str:
    """Names for an override; quoted, since a layer of a sequence may be called 12."""
    return f"[{','.join(repr(name) for name in layers)}]"


def _kept_whole(rows: list[Point], max_drop: float) -> list[str]:
    """Layers that are cheap to keep and dear to cut."""
    limit = SENSITIVE * max(max_drop, 1e-3)
    return [row["layer"] for row in rows if row["drop"]["half"] > limit and row["share"] < CHEAP]
