"""What a study found: trials ranked, the Pareto front, warnings, study.json and the files beside it.

All that is shown or drawn of a study (cli/render_study.py, reporting/study.py) comes from the content of study.json.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.errors import RunError, TrainctlError
from trainctl.run import directory, files, lines
from trainctl.run.compare import metrics_of, value_of
from trainctl.run.record import plain, plain_overrides
from trainctl.run.run import Run
from trainctl.tuning import experiment
from trainctl.tuning.ranking import boundary_warnings, counts, pareto, rank, ranked

if TYPE_CHECKING:
    from trainctl.tuning.dimensions import Dimension
    from trainctl.tuning.recipe import Recipe
    from trainctl.tuning.rows import Row
    from trainctl.tuning.study import Study

FILE = "study.json"
_DECIDE = ("train.monitor=", "trainer.threads=")  # of the words that every trial gets: on these its figures depend


def content(
    run: Run, recipe: Recipe, study: Study, status: str | None = None, importances: bool = True
) -> dict[str, Any]:
    """The content of study.json; `status` stands in for what the study's trials say."""
    settings, rows = recipe.settings, study.rows()
    objectives, directions = list(settings.objectives), list(settings.directions)
    kept = [word for word in recipe.added if word.startswith(_DECIDE)]
    folder = run.path / "trials" if run.verb == "tune" else run.path
    trials = [_trial(row, objectives, kept, folder) for row in rows]
    if not objectives:
        watched = _watched(trials)
        if watched:
            objectives, directions = [watched[0]], [f"{watched[1]}imize"]
            for trial in trials:
                _set_values(trial, _measured(trial, objectives))
    rank(trials, directions)
    best = next((trial for trial in trials if trial["place"] == 1), None)
    several = len(objectives) > 1
    found: dict[str, Any] = plain(
        {
            "study": files.shown(run.path),
            "verb": run.verb,
            "status": status or ("completed" if study.finished() else "stopped"),
            "objectives": objectives,
            "directions": directions,
            "sampler": settings.sampler,
            "stopper": settings.stopper,
            "seed": settings.seed,
            "budget": recipe.budget,
            "dimensions": [dimension_json(dimension) for dimension in recipe.space.dimensions],
            "trials": trials,
            "best": best,
            "pareto": pareto(trials, directions) if several else [],
            "importances": dict(study.importances()) if importances and settings.objectives else {},
            "warnings": boundary_warnings(recipe.space.dimensions, best["params"]) if best and not several else [],
            "counts": counts(row.state for row in rows),
            "seconds": run.record.get("elapsed_s"),
        }
    )
    return found


def current(run: Run) -> dict[str, Any] | None:
    """The content of study.json as of now: from the storage while a study runs or can go on, else from the file.

    None when neither can be read.
    """
    written = None
    with contextlib.suppress(TrainctlError):
        written = read(run.path)
    if written is not None and run.status == "completed":
        return written
    from trainctl import launch
    from trainctl.tuning.recipe import of_run
    from trainctl.tuning.study import Study

    with contextlib.suppress(TrainctlError):
        recipe = of_run(run, [], launch.Options(str(run.path.parent.parent)))
        shared = recipe.settings.storage is not None
        study = Study.open(run.path, recipe.settings, recipe.space) if shared else Study.open(run.path)
        with contextlib.closing(study):
            return content(run, recipe, study, run.status, importances=False)
    return written


def read(path: Path) -> dict[str, Any]:
    """study.json of a study that ended; RunError when it is missing or damaged."""
    found = files.read_json(path / FILE)
    if not isinstance(found, dict) or not isinstance(found.get("trials"), list):
        raise RunError(f"`{files.shown(path / FILE)}` is damaged: it holds no trials")
    return found


def finish(run: Run, recipe: Recipe, study: Study, found: dict[str, Any], seconds: float) -> None:
    """Write study.json, best.yaml, pareto/ and report.html, and complete the record."""
    from trainctl.reporting import study as report

    found["status"] = "completed"
    files.write_json(run.path / FILE, found)
    artifacts = {"study": FILE}
    if found["best"] is not None:
        artifacts["best"] = "best.yaml"
        write_experiments(run.path, found, experiment.groups(recipe.composer.config_dir))
    with contextlib.suppress(TrainctlError):
        reported = {row.number: row.curve for row in study.rows()}
        again = experiment.command(found["best"]["overrides"]) if found["best"] is not None else ""
        report.write(run, found, curves(found, reported), again)
        artifacts["report"] = "report.html"
    metrics = _metrics_of_best(found)
    fields = {"trials": found["counts"], "budget": found["budget"], "monitor": next(iter(found["objectives"]), None)}
    run.finish(metrics, {}, {"total_s": round(seconds, 3)}, artifacts, **fields)


def write_experiments(path: Path, found: Mapping[str, Any], groups: Sequence[str]) -> None:
    """best.yaml, and pareto/<number>.yaml for every trial on the front."""
    best = found["best"]
    title = f"the best trial ({best['number']}) of {found['study']}"
    files.write_atomic(path / "best.yaml", experiment.text(best["overrides"], groups, title))
    if found["pareto"]:
        (path / "pareto").mkdir(exist_ok=True)
    for trial in found["trials"]:
        if trial["number"] in found["pareto"]:
            title = f"trial {trial['number']}, on the Pareto front of {found['study']}"
            text = experiment.text(trial["overrides"], groups, title)
            files.write_atomic(path / "pareto" / f"{trial['number']}.yaml", text)


def sweep_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `train -m --json` prints: every job, best first."""
    metric = next(iter(found["objectives"]), "val/loss")
    jobs = []
    for trial in ranked(found["trials"]):
        job = {"run": trial["run"], "status": trial["status"], "overrides": trial["overrides"]}
        jobs.append({**job, "metric": metric, "value": trial["value"], "place": trial["place"]})
        if trial["why"]:
            jobs[-1]["error"] = trial["why"]
    bad = any(trial["status"] == "failed" for trial in found["trials"])
    return {"sweep": found["study"], "status": "failed" if bad else found["status"], "jobs": jobs}


def dimension_json(dimension: Dimension) -> dict[str, Any]:
    """A dimension for study.json: its choices, or its range."""
    if dimension.kind == "choice":
        return {"name": dimension.name, "kind": "choice", "choices": list(dimension.choices)}
    found: dict[str, Any] = {"name": dimension.name, "kind": dimension.kind}
    found |= {"low": dimension.low, "high": dimension.high, "log": dimension.log}
    return found if dimension.step is None else {**found, "step": dimension.step}


def curves(found: Mapping[str, Any], reported: Mapping[int, Mapping[int, float]]) -> dict[int, list[tuple[int, float]]]:
    """Trial number -> (epoch, first objective) pairs: as reported to the study, else as the trial's run logged them."""
    name = next(iter(found["objectives"]), None)
    result = {}
    for trial in found["trials"]:
        curve = {int(epoch): value for epoch, value in reported.get(trial["number"], {}).items()}
        if not curve and name is not None:
            logged = _logged(trial["run"])
            curve = {epoch: row[name] for epoch, row in logged.items() if isinstance(row.get(name), int | float)}
        result[trial["number"]] = sorted(curve.items())
    return result


def _trial(row: Row, objectives: Sequence[str], kept: Sequence[str], folder: Path) -> dict[str, Any]:
    own = folder / str(row.number)
    place = row.run or (files.shown(own) if own.is_dir() else None)  # one that runs has no word of it yet
    logged = _logged(place)
    trial: dict[str, Any] = {"number": row.number, "status": row.state}
    values: list[float | None] = list(row.values or [])
    if row.state == "running" and logged:
        values = [logged[max(logged)].get(name) for name in objectives]  # as far as it is
    _set_values(trial, values)
    trial |= {"params": dict(row.params), "overrides": plain_overrides([*row.words, *kept]), "run": place}
    trial |= {"epochs": row.epochs or len(logged) or len(row.curve) or None, "seconds": row.seconds}
    return {**trial, "host": row.host, "why": row.why}


def _set_values(trial: dict[str, Any], values: list[float | None]) -> None:
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    trial |= {"value": finite[0] if finite else None, "values": finite}


def _logged(place: str | None) -> dict[int, dict[str, Any]]:
    """A trial's metrics.jsonl by epoch; empty when it lies elsewhere."""
    if place is None:
        return {}
    with contextlib.suppress(TrainctlError, OSError):
        return {row["epoch"]: row for row in lines.read(Path(place) / "metrics.jsonl") if "epoch" in row}
    return {}


def _watched(trials: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Monitor and mode of the first run that completed, for points that were not searched for."""
    for trial in trials:
        if trial["status"] == "completed" and trial["run"]:
            record = directory.read(Path(trial["run"])).record
            if record.get("monitor"):
                return str(record["monitor"]), str(record.get("mode", "min"))
    return None


def _measured(trial: Mapping[str, Any], names: Sequence[str]) -> list[float | None]:
    if trial["status"] != "completed" or not trial["run"]:
        return []
    metrics = metrics_of(directory.read(Path(trial["run"])))
    return [value_of(metrics, name) for name in names]


def _metrics_of_best(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The best trial's values under their names: what `trainctl runs` shows of a study."""
    if found["best"] is None:
        return {}
    return dict(zip(found["objectives"], found["best"]["values"], strict=False))
