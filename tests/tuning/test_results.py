"""What a study found: ranking, front, boundaries, study.json, best.yaml, and the study as other commands see it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainctl import launch
from trainctl.config import saved
from trainctl.config.compose import compose
from trainctl.run import directory
from trainctl.run.run import Run
from trainctl.tuning import experiment, ranking, recipe, results
from trainctl.tuning.dimensions import Dimension
from trainctl.tuning.study import Study

LR = "optimizer.lr=tag(log, interval(1e-4,1e-1))"
GROUPS = ["data", "debug", "experiment", "logger", "model", "optimizer"]


class Searched:
    """A study in a folder of its own, told how its trials ended as the loop of a search would."""

    def __init__(self, folder: Path, *words: str, searched: bool = True) -> None:
        self.recipe = recipe.read(words, launch.Options(str(folder)), searched)
        path = folder / ("tune" if searched else "train") / "2026-11-20_12-00-00"
        path.mkdir(parents=True)
        fields = {} if searched else {"sweep": len(self.recipe.points or [])}
        self.run = Run.create(path, path.parent.name, self.recipe.config, list(words), **fields)
        self.trials = path / "trials" if searched else path
        self.study = Study.create(path, self.recipe.settings, self.recipe.space, self.recipe.points)

    def end(self, *values: float, fail: str = "", stop: str = "", **metrics: float) -> None:
        """One more trial, with a run of two epochs; `metrics` are those of a run that nobody searched for."""
        trial = self.study.next()
        assert trial is not None
        path = self.trials / str(trial.number)
        path.mkdir(parents=True)
        watched = {"monitor": "val/loss", "mode": "min"}
        child = Run.create(path, "train", {"seed": 0}, trial.words, parent=self.run.path, **watched)
        for epoch in (1, 2):
            child.log_metrics({"epoch": epoch, "val/accuracy": epoch / 10})
        if fail:
            child.fail(ValueError(fail), 6, "Traceback")
            self.study.fail(trial, fail, str(path), 1.0)
            return
        child.finish({name.replace("_", "/"): value for name, value in metrics.items()})
        if stop:
            self.study.stop(trial, 2, stop, list(values), str(path), 1.0)
        else:
            self.study.complete(trial, list(values), str(path), 1.0)

    def content(self) -> dict[str, Any]:
        return results.content(self.run, self.recipe, self.study)

    def finish(self) -> dict[str, Any]:
        found = self.content()
        results.finish(self.run, self.recipe, self.study, found, 12.5)
        return found


Searching = Callable[..., Searched]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searching:
    monkeypatch.chdir(tmp_path)
    return lambda *words, **more: Searched(Path("runs"), "data=synthetic", *words, **more)


def ended(number: int, *values: float | None, status: str = "completed") -> dict[str, Any]:
    return {"number": number, "status": status, "value": values[0] if values else None, "values": list(values)}


def test_places_are_given_to_trials_that_completed_or_were_stopped() -> None:
    trials = [ended(0, 0.5), ended(1, status="failed"), ended(2, 0.9, status="stopped"), ended(3, 0.7), ended(4, 0.5)]
    ranking.rank(trials, ["maximize"])
    assert [trial["place"] for trial in trials] == [3, None, 1, 2, 4]
    assert [trial["number"] for trial in ranking.ranked(trials)] == [2, 3, 0, 4, 1]
    ranking.rank(trials, ["minimize"])
    assert [trial["place"] for trial in trials] == [1, None, 4, 3, 2]


def test_without_a_value_there_is_no_place() -> None:
    trials = [ended(0, 0.5, status="stopped"), ended(1, 0.7, status="stopped"), ended(2, status="failed")]
    trials += [ended(3, 0.9, status="running"), ended(4, None), ended(5, status="stopped")]
    ranking.rank(trials, ["maximize"])
    assert [trial["place"] for trial in trials] == [2, 1, None, None, None, None]


def test_the_front_has_what_nothing_beats() -> None:
    trials = [ended(0, 0.8, 100), ended(1, 0.9, 300), ended(2, 0.7, 200), ended(3, 0.8, 100), ended(4, 0.95, None),
              ended(5, 0.99, 50, status="failed"), ended(6, 0.6, 10)]  # fmt: skip
    assert ranking.pareto(trials, ["maximize", "minimize"]) == [1, 0, 3, 6]
    assert ranking.pareto(trials, ["minimize", "minimize"]) == [6]
    many = [ended(i, float(i), float(1000 - i)) for i in range(1000)]
    assert len(ranking.pareto(many, ["maximize", "maximize"])) == 1000


@pytest.mark.parametrize(("dimension", "value", "sentence"), [
    (Dimension("optimizer.lr", "float", low=1e-4, high=0.1, log=True), 0.0998,
     "the best optimizer.lr=0.0998 lies at the upper end of [1e-4, 0.1]; widen it"),
    (Dimension("optimizer.lr", "float", low=1e-4, high=0.1, log=True), 1.1e-4,
     "the best optimizer.lr=1.1e-4 lies at the lower end of [1e-4, 0.1]; widen it"),
    (Dimension("model.width", "int", low=16, high=256), 256,
     "the best model.width=256 lies at the upper end of [16, 256]; widen it"),
    (Dimension("model.width", "int", low=16, high=256), 255, None),
    (Dimension("model.dropout", "float", low=0, high=0.5), 0.0, None),
    (Dimension("model.dropout", "float", low=0, high=0.5), 0.491,
     "the best model.dropout=0.491 lies at the upper end of [0, 0.5]; widen it"),
    (Dimension("model.dropout", "float", low=0, high=0.5), 0.48, None),
    (Dimension("model", "choice", ("mlp", "cnn")), "cnn", None),
    (Dimension("model.num_blocks", "int", low=1, high=4), None, None),
])
def test_a_best_point_at_an_end_is_told(dimension: Dimension, value: Any, sentence: str | None) -> None:
    found = ranking.boundary_warnings([dimension], {} if value is None else {dimension.name: value})
    assert found == ([] if sentence is None else [sentence])


def test_study_json_holds_all(search: Searching) -> None:
    made = search("model=mlp,linear", LR, "tune.trials=4", "tune.objective=val/accuracy")
    made.end(0.5)
    made.end(0.7)
    made.end(fail="loss is nan at epoch 2 step 40 (lr 1)")
    made.end(0.4, stop="val/accuracy 0.4 is below the median")
    found = made.finish()
    assert json.loads((made.run.path / "study.json").read_text(encoding="utf-8")) == found
    assert results.read(made.run.path) == found
    assert {key: found[key] for key in ("study", "status", "objectives", "directions", "seed", "budget", "counts")} == {
        "study": "runs/tune/2026-11-20_12-00-00", "status": "completed", "objectives": ["val/accuracy"],
        "directions": ["maximize"], "seed": 0, "budget": 4, "counts": {"completed": 2, "stopped": 1, "failed": 1},
    }  # fmt: skip
    assert found["dimensions"] == [
        {"name": "model", "kind": "choice", "choices": ["mlp", "linear"]},
        {"name": "optimizer.lr", "kind": "float", "low": 1e-4, "high": 0.1, "log": True},
    ]
    best = found["best"]
    assert best == found["trials"][1]
    assert (best["number"], best["place"], best["values"], best["epochs"], best["run"]) == (
        1, 1, [0.7], 2, "runs/tune/2026-11-20_12-00-00/trials/1")  # fmt: skip
    assert best["overrides"][:2] == ["data=synthetic", f"model={best['params']['model']}"]
    assert "train.monitor=val/accuracy" in best["overrides"] and "train.test=false" not in best["overrides"]
    assert [trial["why"] for trial in found["trials"]] == [
        None, None, "loss is nan at epoch 2 step 40 (lr 1)", "val/accuracy 0.4 is below the median"]  # fmt: skip


def test_the_record_of_a_finished_study_is_a_run(search: Searching) -> None:
    made = search(LR, "tune.trials=2", "tune.objective=val/accuracy")
    made.end(0.5)
    made.end(0.7)
    made.finish()
    run = Run.open(made.run.path)
    assert (run.status, run.metrics, run.record["trials"]) == ("completed", {"val/accuracy": 0.7}, {"completed": 2})
    assert set(run.record["artifacts"]) == {"study", "best", "report"}
    (listed,) = directory.list_runs(Path("runs"))
    assert listed.path == Path("runs/tune/2026-11-20_12-00-00")
    assert [child.path.name for child in directory.children(listed)] == ["0", "1"]


def test_best_yaml_is_an_experiment_with_the_winners_config(search: Searching, tmp_path: Path) -> None:
    words = ["model=mlp,resmlp", LR, "model.dropout=interval(0,0.5)", "data.rows=500", "optimizer=sgd"]
    others = ["debug=fast", "trainer.max_epochs=7", "experiment=digits_linear"]
    made = search(*words, *others, "tune.trials=3", "tune.objective=val/accuracy")
    for value in (0.3, 0.9, 0.5):
        made.end(value)
    found = made.finish()
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = (made.run.path / "best.yaml").read_text(encoding="utf-8")
    (tmp_path / "conf" / "experiment" / "best.yaml").write_text(text, encoding="utf-8")
    winner = yaml.safe_load(saved.dump(compose("train", found["best"]["overrides"])))
    for word in ("experiment=best", f"experiment={made.run.path}/best.yaml"):
        assert yaml.safe_load(saved.dump(compose("train", [word]))) == winner, word
    # and the command
    title, command = text.splitlines()[1].removeprefix("# ").split(": ", 1)
    assert title == "the best trial (1) of runs/tune/2026-11-20_12-00-00"
    assert shlex.split(command) == ["trainctl", "train", *found["best"]["overrides"]]


def test_every_trial_on_the_front_has_its_file(search: Searching) -> None:
    made = search(LR, "tune.trials=3", "tune.objective=[val/accuracy,parameters]")
    for values in ((0.5, 100.0), (0.7, 300.0), (0.6, 400.0)):
        made.end(*values)
    found = made.finish()
    assert (found["pareto"], found["warnings"], found["best"]["number"]) == ([1, 0], [], 1)
    assert sorted(path.name for path in (made.run.path / "pareto").iterdir()) == ["0.yaml", "1.yaml"]
    best, same = ((made.run.path / name).read_text(encoding="utf-8") for name in ("best.yaml", "pareto/1.yaml"))
    assert best.splitlines()[2:] == same.splitlines()[2:]
    assert Run.open(made.run.path).metrics == {"val/accuracy": 0.7, "parameters": 300.0}


@pytest.mark.parametrize(("words", "text"), [
    ([], "{}\n"),
    (["model=mlp", "model.hidden_dims=[8,8]", "seed=1"],
     "defaults:\n- override /model: mlp\nmodel:\n  hidden_dims:\n  - 8\n  - 8\nseed: 1\n"),
    (["+data.note='1e-3'", "optimizer.lr=1e-3", "optimizer.lr=2e-3"],
     "data:\n  note: '1e-3'\noptimizer:\n  lr: 0.002\n"),
    (["logger=[csv,tensorboard]", "train.monitor=null"],
     "defaults:\n- override /logger:\n  - csv\n  - tensorboard\ntrain:\n  monitor: null\n"),
    (["experiment=adult_mlp", "debug=null", "model={dropout:0.1}", "model.dropout=0.2"],
     "defaults:\n- /experiment/adult_mlp\n- _self_\n- override /debug: null\nmodel:\n  dropout: 0.2\n"),
])  # fmt: skip
def test_words_as_a_file(words: list[str], text: str) -> None:
    head = ["# @package _global_", f"# title: {experiment.command(words)}"]
    assert experiment.text(words, GROUPS, "title") == "\n".join(head) + "\n" + text


def test_what_a_file_cannot_say_is_left_to_the_command_line() -> None:
    text = experiment.text(["~callbacks.best", "model.hidden_dims.0=5", "seed=1"], GROUPS, "title")
    unsaid = "# to be added on the command line: '~callbacks.best' model.hidden_dims.0=5"
    assert text.splitlines()[2:] == [unsaid, "seed: 1"]


def test_a_grid_is_ranked_by_what_its_runs_watched(search: Searching) -> None:
    made = search("seed=1,2,3", searched=False)
    made.end(val_loss=0.5, val_accuracy=0.9)
    made.end(fail="out of memory")
    made.end(val_loss=0.3, val_accuracy=0.8)
    found = made.content()
    assert (found["objectives"], found["directions"], found["status"]) == (["val/loss"], ["minimize"], "completed")
    told = results.sweep_json(found)
    assert (told["sweep"], told["status"]) == ("runs/train/2026-11-20_12-00-00", "failed")
    assert [job["overrides"][1] for job in told["jobs"]] == ["seed=3", "seed=1", "seed=2"]
    assert [[job.get(key) for key in ("status", "metric", "value", "place", "error")] for job in told["jobs"]] == [
        ["completed", "val/loss", 0.3, 1, None],
        ["completed", "val/loss", 0.5, 2, None],
        ["failed", "val/loss", None, None, "out of memory"],
    ]
    assert [Path(job["run"]).name for job in told["jobs"]] == ["2", "0", "1"]


def test_a_running_study_is_read_from_its_journal_and_a_lost_journal_from_the_file(search: Searching) -> None:
    made = search(LR, "tune.trials=3", "tune.objective=val/accuracy")
    made.end(0.5)
    waiting = made.study.next()
    assert waiting is not None
    child = made.trials / "1"
    child.mkdir()
    Run.create(child, "train", {}, []).log_metrics({"epoch": 1, "val/accuracy": 0.25})
    now = results.current(Run.open(made.run.path))
    assert now is not None
    assert (now["status"], now["counts"], now["best"]["number"]) == ("running", {"completed": 1, "running": 1}, 0)
    assert (now["trials"][1]["values"], now["trials"][1]["epochs"]) == ([0.25], 1)
    (made.run.path / "journal.log").unlink()
    assert results.current(Run.open(made.run.path)) is None
    (made.run.path / "study.json").write_text(json.dumps({**now, "status": "stopped"}), encoding="utf-8")
    assert results.current(Run.open(made.run.path)) == {**now, "status": "stopped"}


def test_secrets_are_in_no_file(search: Searching) -> None:
    made = search("seed=1,2", "logger=mlflow", "logger.mlflow.tracking_uri='https://ada:hush@host'", "tune.trials=2")
    made.end(0.5)
    made.finish()
    for name in ("study.json", "best.yaml", "report.html"):
        text = (made.run.path / name).read_text(encoding="utf-8")
        assert "hush" not in text and "ada:***@host" in text, name
