"""`trainctl tune` as a user has it: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import yaml

from trainctl.run.run import Run

TINY = ("data=synthetic", "data.rows=400", "data.numeric=3", "data.categorical=0", "data.batch_size=64",
        "model=linear", "trainer.max_epochs=2", "tune.jobs=2")
LR = "optimizer.lr=tag(log, interval(1e-3,1e-1))"


def tuned(lab, *words):
    """The object that a study prints, which must have ended well."""
    done = lab("tune", *TINY, *words, "--json")
    assert done.code == 0, done.err
    return done.json


def folder_of(lab, found):
    return lab.folder / found["study"]


@pytest.mark.parametrize("executor", ["pool", "vectorized"])
def test_each_trial_is_an_ordinary_run_that_never_saw_the_test_split(lab, executor):
    found = tuned(lab, LR, "tune.trials=4", "sampler=random", f"tune.executor={executor}")
    assert found["status"] == "completed" and found["counts"] == {"completed": 4}
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    for trial in found["trials"]:
        run = Run.open(lab.folder / trial["run"])
        assert (run.verb, run.status, run.path.name) == ("train", "completed", str(trial["number"]))
        assert run.config["optimizer"]["lr"] == trial["params"]["optimizer.lr"]
        assert run.metrics["val/loss"] == pytest.approx(trial["value"])
        assert not any(name.startswith("test/") for name in run.metrics) and run.test_looks() == 0
        assert len(run.metrics_log()) == 2
    best = min(found["trials"], key=lambda trial: trial["value"])
    assert found["best"]["number"] == best["number"]
    evaluated = lab.run("evaluate", best["run"], "split=val")
    assert evaluated.metrics["val/loss"] == pytest.approx(best["value"], rel=1e-5)


@pytest.mark.slow
def test_the_table_the_best_and_the_command_that_trains_it_again(lab):
    done = lab("tune", *TINY, LR, "tune.trials=3", "tune.objective=val/auroc")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["place", "trial", "status"] and "val/auroc" in lines[0]
    (again,) = [line for line in lines if line.startswith("train it again: ")]
    assert again.startswith("train it again: trainctl train data=synthetic ") and "optimizer.lr=" in again
    (study,) = [line.removeprefix("study: ") for line in lines if line.startswith("study: ")]
    for name in ("study.json", "best.yaml", "report.html", "journal.log", "run.json", "manifest.json"):
        assert (lab.folder / study / name).exists(), name
    assert sum(line.startswith("trial ") for line in done.err.splitlines()) == 3


@pytest.mark.slow
def test_best_yaml_is_an_experiment(lab):
    found = tuned(lab, LR, "tune.trials=3")
    best = lab.folder / found["study"] / "best.yaml"
    again = lab.run("train", f"experiment={best}")
    assert again.metrics["val/loss"] == pytest.approx(found["best"]["value"], rel=1e-6)
    assert "test/loss" in again.metrics
    conf = lab.folder / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "best.yaml").write_text(best.read_text(encoding="utf-8"), encoding="utf-8")
    assert lab.run("train", "experiment=best").metrics == again.metrics


@pytest.mark.slow
def test_a_failing_trial_is_told_and_the_study_goes_on(lab):
    done = lab("tune", *TINY, "optimizer=sgd", "optimizer.lr=0.01,1e30,0.1", "sampler=grid", "--json")
    assert done.code == 0, done.err
    assert done.json["counts"] == {"completed": 2, "failed": 1}
    bad = done.json["trials"][1]
    assert bad["status"] == "failed" and bad["why"].startswith("loss is ")
    (told,) = [line for line in done.err.splitlines() if "  failed: " in line]
    assert told.startswith("trial 1/3  failed: loss is ") and told.endswith(f"(see {bad['run']}/train.log)")


@pytest.mark.slow
def test_too_many_failures_give_7(lab):
    done = lab("tune", *TINY, "optimizer=sgd", "optimizer.lr=0.01,1e30,1e31", "sampler=grid")
    assert done.code == 7
    assert done.err.splitlines()[-1] == "trainctl: error: 2 of 3 trials failed; their records say why"
    assert lab("tune", *TINY, "optimizer=sgd", "optimizer.lr=0.01,1e30,1e31", "sampler=grid",
               "tune.max_failure_rate=0.7").code == 0


@pytest.mark.slow
def test_a_stopper_ends_weak_trials_which_keep_their_best_weights(lab):
    found = tuned(lab, "optimizer=sgd", "optimizer.lr=0.1,1e-7,1e-7,1e-7,1e-7,1e-7", "sampler=grid", "tune.jobs=1",
                  "trainer.max_epochs=9", "stopper=asha", "tune.executor=pool")
    stopped = [trial for trial in found["trials"] if trial["status"] == "stopped"]
    assert stopped and found["trials"][0]["status"] == "completed"
    run = Run.open(lab.folder / stopped[0]["run"])
    assert run.status == "completed" and run.record["halted"]["why"] == stopped[0]["why"]
    assert run.record["halted"]["epoch"] == len(run.metrics_log()) < 9
    assert (run.path / "model.safetensors").exists()


@pytest.mark.slow
def test_a_trial_at_its_last_epoch_is_not_stopped_any_more(lab):
    found = tuned(lab, "optimizer=sgd", "optimizer.lr=0.1,1e-7", "sampler=grid", "tune.jobs=1", "tune.executor=pool",
                  "trainer.max_epochs=3", "stopper=asha", "stopper.min_resource=3")
    assert found["counts"] == {"completed": 2}


@pytest.mark.slow
def test_several_objectives_give_a_front(lab):
    found = tuned(lab, "model=mlp", "model.hidden_dims=[4],[16],[64]", "sampler=grid",
                  "tune.objective=[val/loss,parameters]")
    assert found["directions"] == ["minimize", "minimize"] and found["pareto"]
    parameters = [trial["values"][1] for trial in found["trials"]]
    assert parameters == sorted(parameters) and parameters[0] == 3 * 4 + 4 + 4 * 2 + 2


@pytest.mark.slow
def test_folds_and_seeds_give_means(lab):
    found = tuned(lab, LR, "tune.trials=1", "tune.folds=3", "sampler=random")
    run = Run.open(lab.folder / found["trials"][0]["run"])
    values = [Run.open(run.path / "folds" / str(k)).metrics["val/loss"] for k in range(3)]
    assert found["trials"][0]["epochs"] == run.record["epochs"] == 6
    assert found["trials"][0]["value"] == pytest.approx(sum(values) / 3)
    assert not any("test" in name for name in run.metrics)
    found = tuned(lab, LR, "tune.trials=1", "tune.seeds=2", "sampler=random")
    assert found["trials"][0]["value"] == pytest.approx(
        Run.open(lab.folder / found["trials"][0]["run"]).metrics["val/loss"])


@pytest.mark.slow
def test_refit_tests_the_winner_once(lab):
    done = lab("tune", *TINY, LR, "tune.trials=2", "tune.refit=true")
    assert done.code == 0, done.err
    (path,) = (lab.folder / "runs" / "train").iterdir()
    assert "test/loss" in Run.open(path).metrics and Run.open(path).test_looks() == 1
    assert lab("tune", "--resume", "latest:tune", "tune.max_failure_rate=0.1").code == 0
    assert list((lab.folder / "runs" / "train").iterdir()) == [path]


@pytest.mark.slow
def test_a_dry_run_says_the_plan_and_writes_nothing(lab):
    done = lab("tune", *TINY, LR, "model.nothing=1", "--dry-run")
    assert done.code == 2
    done = lab("tune", *TINY, LR, "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = done.json
    assert plan["trials"] == 50 and plan["epoch_s"] > 0 and plan["disk"] > 0
    assert [dimension["name"] for dimension in plan["dimensions"]] == ["optimizer.lr"]
    assert not (lab.folder / "runs").exists()
    said = lab("tune", *TINY, LR, "--dry-run").out.splitlines()
    assert said[0].startswith("plan        50 trials, sampler tpe, minimize val/loss")
    assert any(line.startswith("time ") and "epochs a training" in line for line in said)
    grown = lab("tune", *TINY[:5], "model=forest", "model.num_trees=choice(3,5)", "--dry-run")
    assert grown.code == 0, grown.err
    assert "epoch" not in grown.out, "a forest is fitted at once"


def wait_for(condition, started, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, started.err.read_text(encoding="utf-8")
        time.sleep(0.02)


def study_path(lab):
    (path,) = (lab.folder / "runs" / "tune").iterdir()
    return path


LONG = ("callbacks=none", "tune.trials=6", "sampler=random", "tune.executor=pool", "trainer.max_epochs=40")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_study_goes_on_and_ends_as_an_undisturbed_one(lab, signum):
    undisturbed = tuned(lab, LR, *LONG)
    os.rename(folder_of(lab, undisturbed), lab.folder / "undisturbed")
    started = lab.start("tune", *TINY, LR, *LONG)
    wait_for(lambda: list(lab.folder.glob("runs/tune/*/trials/2/run.json")), started)
    started.send(signum)
    done = started.wait()
    path = study_path(lab)
    if signum != signal.SIGKILL:
        assert done.code == 128 + signum, done.err
        name = signal.Signals(signum).name
        said = done.err.splitlines()[-1]
        assert said.startswith(f"trainctl: error: stopped by {name}: ")
        assert said.endswith(f"go on with `trainctl tune --resume runs/tune/{path.name}`")
    again = lab("tune", "--resume", "latest", "--json")
    assert again.code == 0, again.err
    for one, other in zip(undisturbed["trials"], again.json["trials"], strict=True):
        assert (one["number"], one["params"], one["value"]) == (other["number"], other["params"], other["value"])
    assert len(list(path.glob("trials/*/run.json"))) == 6


@pytest.mark.slow
def test_a_complete_study_is_extended_or_left_alone(lab):
    found = tuned(lab, LR, "tune.trials=2")
    done = lab("tune", "--resume", found["study"])
    assert done.code == 0 and "the study is already complete" in done.err
    more = lab("tune", "--resume", found["study"], "tune.trials=4", "--json")
    assert more.code == 0, more.err
    assert [trial["number"] for trial in more.json["trials"]] == [0, 1, 2, 3]
    for before, now in zip(found["trials"], more.json["trials"], strict=False):
        assert {**before, "place": None} == {**now, "place": None}


@pytest.mark.slow
def test_another_config_is_refused_with_the_difference(lab):
    found = tuned(lab, LR, "tune.trials=1")
    said = lab.sentence(2, "tune", "--resume", found["study"], "data.rows=500")
    assert said.startswith("a resumed study keeps its config; only tune.trials, ")
    path = folder_of(lab, found) / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["data"]["rows"] = 999
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    said = lab.sentence(2, "tune", "--resume", found["study"], "tune.trials=3")
    assert said == "the config differs from the study's: `data.rows` was 999 and is 400; start a new study"


@pytest.mark.slow
def test_two_processes_share_the_work(lab):
    first = lab.start("tune", *TINY, LR, *LONG, "tune.trials=8", "tune.jobs=1", "trainer.max_epochs=300")
    wait_for(lambda: list(lab.folder.glob("runs/tune/*/trials/0/run.json")), first)
    second = lab.start("tune", "--resume", "latest", "tune.jobs=1")
    done = [first.wait(), second.wait()]
    assert [one.code for one in done] == [0, 0], [one.err for one in done]
    assert "another process is at this study; helping it" in done[1].err
    found = json.loads((study_path(lab) / "study.json").read_text(encoding="utf-8"))
    assert found["counts"] == {"completed": 8}
    pids = {Run.open(lab.folder / trial["run"]).record["pid"] for trial in found["trials"]}
    assert len(pids) == 2


@pytest.mark.slow
def test_show_works_while_it_runs_and_after(lab):
    started = lab.start("tune", *TINY, LR, *LONG)
    wait_for(lambda: list(lab.folder.glob("runs/tune/*/trials/1/run.json")), started)
    shown = lab("show", "latest")
    assert shown.code == 0 and "running" in shown.out
    assert started.wait().code == 0
    shown = lab("show", "latest")
    assert shown.code == 0 and "completed" in shown.out
    assert lab("runs", "--json").code == 0


@pytest.mark.slow
def test_a_stuck_trial_is_ended(lab):
    done = lab("tune", *TINY, "trainer.max_epochs=2,10000000", "callbacks=none", "sampler=grid", "tune.trial_timeout=2",
               "tune.executor=pool", "--json")
    assert done.code == 0, done.err
    assert done.json["counts"] == {"completed": 1, "failed": 1}
    assert done.json["trials"][1]["why"] == "took longer than tune.trial_timeout (2 s)"


@pytest.mark.slow
def test_time_is_up(lab):
    done = lab("tune", *TINY, LR, "callbacks=none", "trainer.max_epochs=10000000", "tune.timeout=2", "--json")
    assert done.code == 0, done.err
    assert "time is up (tune.timeout)" in done.err
    assert "completed" not in done.json["counts"] and done.json["counts"]["waiting"] == 2


@pytest.mark.slow
def test_worker_that_is_killed_fails_its_trial_and_is_replaced(lab):
    started = lab.start("tune", *TINY, LR, *LONG, "trainer.max_epochs=300", "tune.jobs=1", "tune.trials=3")
    wait_for(lambda: list(lab.folder.glob("runs/tune/*/trials/0/metrics.jsonl")), started)
    record = Run.open(next(lab.folder.glob("runs/tune/*/trials/0"))).record
    os.kill(record["pid"], signal.SIGKILL)
    done = started.wait()
    assert done.code == 0, done.err
    found = json.loads((study_path(lab) / "study.json").read_text(encoding="utf-8"))
    assert [trial["status"] for trial in found["trials"]] == ["failed", "completed", "completed"]
    assert "killed" in found["trials"][0]["why"] and "signal 9" in found["trials"][0]["why"]
