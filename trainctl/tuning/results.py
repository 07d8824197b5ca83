"""What a study found: trials ranked, the Pareto front, warnings, study.json and the files beside it.

All that is shown or drawn of a study (cli/render_study.py, reporting/study.py) comes from the content of study.json.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.errors import RunError, TrainctlError
from trainctl.run import directory, files, lines
from trainctl.run.compare import metrics_of, value_of
from trainctl.run.record import plain, plain_overrides
from trainctl.run.run import Run
from trainctl.tuning import experiment
from trainctl.tuning.wording import number_text, setting

if TYPE_CHECKING:
    from trainctl.tuning.recipe import Recipe
    from trainctl.tuning.space import Dimension
    from trainctl.tuning.study import Row, Study

FILE = "study.json"
NEAR = 0.02  # of a range: so close to a bound, the best may lie beyond it
STATES = ("completed", "stopped", "failed", "running", "waiting")


def content(
    run: Run, recipe: Recipe, study: Study, status: str | None = None, importances: bool = True
) -> dict[str, Any]:
    """The content of study.json; `status` stands in for what the study's trials say."""
    settings, rows = recipe.settings, study.rows()
    objectives, directions = list(settings.objectives), list(settings.directions)
    kept = [
        word for word in recipe.added if word.startswith(("train.monitor=", "trainer.threads="))
    ]  # they decide bits
    trials = [_trial(row, kept) for row in rows]
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
        study = Study.open(run.path, recipe.settings, recipe.space)
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
        report.write(run, found, curves(found, {row.number: row.curve for row in study.rows()}))
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


def counts(states: Iterable[str]) -> dict[str, int]:
    """How many trials are in each state; states that no trial is in are left out."""
    found = dict.fromkeys(STATES, 0)
    for state in states:
        found[state] = found.get(state, 0) + 1
    return {state: number for state, number in found.items() if number}


def rank(trials: Sequence[dict[str, Any]], directions: Sequence[str]) -> None:
    """Set each trial's `place` by its first value: from 1 for those that completed, None for the others."""
    sign = -1.0 if directions and directions[0] == "maximize" else 1.0
    good = [trial for trial in trials if trial["status"] == "completed" and trial["value"] is not None]
    for trial in trials:
        trial["place"] = None
    for place, trial in enumerate(sorted(good, key=lambda trial: sign * trial["value"]), start=1):
        trial["place"] = place


def ranked(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials by place; those without one behind, stopped before failed, by number."""
    return sorted(trials, key=lambda t: (t["place"] is None, t["place"] or 0, STATES.index(t["status"]), t["number"]))


def dominates(one: Sequence[float], other: Sequence[float], signs: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better; a sign is 1.0 where less is better."""
    pairs = [(sign * a, sign * b) for a, b, sign in zip(one, other, signs, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[int]:
    """Numbers of the completed trials that no other beats in every objective, best in the first objective first."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    good = [t for t in trials if t["status"] == "completed" and t["values"] and None not in t["values"]]
    # sorted so, a trial can be beaten only by one before it
    good.sort(key=lambda t: ([sign * value for sign, value in zip(signs, t["values"], strict=True)], t["number"]))
    front: list[Mapping[str, Any]] = []
    for trial in good:
        if not any(dominates(better["values"], trial["values"], signs) for better in front):
            front.append(trial)
    return [trial["number"] for trial in front]


def boundary_warnings(dimensions: Iterable[Dimension], params: Mapping[str, Any]) -> list[str]:
    """A sentence for each range that the best point lies at an end of."""
    found = []
    for dimension in dimensions:
        end = _end(dimension, params.get(dimension.name))
        if end is not None:
            text = setting(dimension.name, params[dimension.name])
            bounds = f"[{number_text(dimension.low)}, {number_text(dimension.high)}]"
            found.append(f"the best {text} lies at the {end} end of {bounds}; widen it")
    return found


def _end(dimension: Dimension, value: Any) -> str | None:
    """`upper` or `lower`; None away from the ends, and at a lower end of 0: nothing lies below it."""
    if dimension.kind == "choice" or not isinstance(value, int | float) or dimension.high <= dimension.low:
        return None
    if dimension.kind == "int":
        share = 1.0 if value >= dimension.high else 0.0 if value <= dimension.low else 0.5
    else:
        low, high, at = (math.log(v) if dimension.log else v for v in (dimension.low, dimension.high, value))
        share = (at - low) / (high - low)
    if share >= 1 - NEAR:
        return "upper"
    return "lower" if share <= NEAR and dimension.low != 0 else None


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
        if not curve and name is not None and trial["run"]:
            rows = lines.read(Path(trial["run"]) / "metrics.jsonl")
            curve = {row["epoch"]: row[name] for row in rows if isinstance(row.get(name), int | float)}
        result[trial["number"]] = sorted(curve.items())
    return result


def _trial(row: Row, kept: Sequence[str]) -> dict[str, Any]:
    trial: dict[str, Any] = {"number": row.number, "status": row.state}
    _set_values(trial, list(row.values or []))
    words = plain_overrides([*row.words, *kept])
    trial |= {"params": dict(row.params), "overrides": words, "run": row.run}
    return {**trial, "epochs": _epochs(row), "seconds": row.seconds, "host": row.host, "why": row.why}


def _set_values(trial: dict[str, Any], values: list[float | None]) -> None:
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    trial |= {"value": finite[0] if finite else None, "values": finite}


def _epochs(row: Row) -> int | None:
    """Epochs that a trial trained, as far as its run or its reports say."""
    if row.run:
        with contextlib.suppress(TrainctlError, OSError):
            logged = [line["epoch"] for line in lines.read(Path(row.run) / "metrics.jsonl") if "epoch" in line]
            if logged:
                return len(set(logged))
    return len(row.curve) or None


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
