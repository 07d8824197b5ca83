"""`train -m`: a grid of runs below one directory, ranked; failures and signals."""

from __future__ import annotations

import json
import signal
import time

import pytest

from trainctl.run.run import Run

QUICK = ("data=synthetic", "data.rows=600", "data.batch_size=64", "trainer.threads=1", "trainer.max_epochs=2")


def sweep_of(done):
    (line,) = [line for line in done.out.splitlines() if line.startswith("sweep: ")]
    return line.removeprefix("sweep: ")


def record(lab, path, name="study.json"):
    return json.loads((lab.folder / path / name).read_text(encoding="utf-8"))


def test_every_point_is_a_run_and_the_table_is_ranked(lab):
    done = lab("train", "-m", *QUICK, "seed=1,2", "model=mlp,linear")
    assert done.code == 0, done.err
    path = sweep_of(done)
    written = record(lab, path)
    assert (written["status"], len(written["trials"])) == ("completed", 4)
    jobs = sorted(written["trials"], key=lambda job: job["place"])
    runs = [Run.open(lab.folder / job["run"]) for job in jobs]
    assert sorted(run.path.name for run in runs) == ["0", "1", "2", "3"]
    assert {(run.config["seed"], run.config["model"]["_target_"].rsplit(".", 1)[1]) for run in runs} == {
        (seed, model) for seed in (1, 2) for model in ("MLP", "Linear")}
    values = [run.metrics["val/loss"] for run in runs]
    assert values == sorted(values) == [job["value"] for job in jobs]
    assert [job["place"] for job in jobs] == [1, 2, 3, 4]
    assert written["objectives"] == ["val/loss"]
    lines = done.out.splitlines()
    assert "val/loss" in lines[0] and lines[1].split()[0] == "1"


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["pool", "vectorized"])
def test_a_job_of_a_sweep_is_the_run_one_would_start_alone(lab, executor):
    done = lab("train", "-m", *QUICK, "seed=1,2", f"tune.executor={executor}", "--json")
    (job,) = [job for job in done.json["jobs"] if "seed=2" in job["overrides"]]
    alone = lab.run("train", *QUICK, "seed=2")
    found = Run.open(lab.folder / job["run"]).metrics
    assert list(found) == list(alone.metrics)
    if executor == "pool":
        assert found == alone.metrics
    else:
        assert found == pytest.approx(alone.metrics, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), [
    (("model.dropout=choice(0.1,0.3)",), [0.1, 0.3]),
    (("model.hidden_dims=[8],[16]",), [[8], [16]]),
    (("trainer.max_epochs=range(1,4)",), [1, 2, 3]),
])
def test_what_hydra_calls_a_sweep(lab, words, expected):
    done = lab("train", "-m", *QUICK, *words, "--json")
    assert done.code == 0, done.err
    group, key = words[0].partition("=")[0].split(".")
    found = [Run.open(lab.folder / job["run"]).config[group][key] for job in done.json["jobs"]]
    assert sorted(found) == expected


@pytest.mark.slow
def test_a_failing_job_stops_no_other_and_gives_7(lab):
    done = lab("train", "-m", *QUICK, "optimizer=sgd", "optimizer.lr=1e30,0.01", "--json")
    assert done.code == 7
    assert done.err.splitlines()[-1] == "trainctl: error: 1 of 2 jobs failed; their records say why"
    good, bad = done.json["jobs"]
    assert (good["status"], bad["status"]) == ("completed", "failed")
    assert bad["error"].startswith("loss is ") and bad["value"] is None
    assert done.json["status"] == "failed"
    assert Run.open(lab.folder / bad["run"]).record["error"]["code"] == 6
    assert "Traceback" in (lab.folder / bad["run"] / "error.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_json_is_one_object_and_names_the_sweep(lab):
    done = lab("train", "-m", *QUICK, "seed=1,2", "--json")
    assert set(done.json) == {"sweep", "status", "jobs"}
    listed = lab("runs", "--all", "--json").json["runs"]
    assert {entry["run"] for entry in listed} == {done.json["sweep"], *(job["run"] for job in done.json["jobs"])}


@pytest.mark.parametrize(("words", "said"), [
    (("model.hiden_dims=[8],[16]",), "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?"),
    (("model=mlp,mpl",), "no `model` option `mpl`; have: "),
    (("optimizer.lr=0.1,-1",), "`optimizer.lr` must be > 0 or auto, got -1"),
])
def test_a_mistake_creates_nothing(lab, words, said):
    assert lab.sentence(2, "train", "-m", *QUICK, *words).startswith(said)
    assert not (lab.folder / "runs").exists()


@pytest.mark.slow
def test_processes_of_joblib(lab):
    done = lab("train", "-m", *QUICK, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "--json")
    assert done.code == 0, done.err
    assert [job["status"] for job in done.json["jobs"]] == ["completed"] * 2
    pids = {Run.open(lab.folder / job["run"]).record["pid"] for job in done.json["jobs"]}
    assert len(pids) == 2
    assert (lab.folder / done.json["jobs"][0]["run"] / "train.log").exists()


def test_a_launcher_that_is_not_installed_is_a_sentence(lab):
    said = lab.sentence(2, "train", "-m", *QUICK, "seed=1,2", "hydra/launcher=ray")
    assert said == "Hydra cannot start the sweep: In 'hydra/config': Could not find 'hydra/launcher/ray'"
    assert not list(lab.folder.glob("runs/train/*"))


TWO_LONG = ("trainer.max_epochs=1,100000,99999", "callbacks=none")


def until_the_second_runs(lab, started):
    """Wait for a record of the first job and epochs of the second."""
    deadline = time.monotonic() + 60
    while not (list(lab.folder.glob("runs/train/*/0/manifest.json"))
               and list(lab.folder.glob("runs/train/*/1/metrics.jsonl"))):
        time.sleep(0.05)
        assert time.monotonic() < deadline, started.err.read_text(encoding="utf-8")
    time.sleep(0.3)  # the first job's record follows its manifest


@pytest.mark.slow
def test_a_signal_ends_the_sweep_which_can_be_resumed(lab):
    started = lab.start("train", "-m", *QUICK, *TWO_LONG)
    until_the_second_runs(lab, started)
    started.send(signal.SIGTERM)
    done = started.wait()
    assert done.code == 143, done.err
    (path,) = (lab.folder / "runs" / "train").iterdir()
    assert done.err.splitlines()[-1].startswith("trainctl: error: stopped by SIGTERM: ")
    assert done.err.splitlines()[-1].endswith(f"go on with `trainctl train --resume runs/train/{path.name}`")
    assert [trial["status"] for trial in record(lab, path)["trials"]] == ["completed", "waiting", "waiting"]
    assert Run.open(path).status == Run.open(path / "1").status == "stopped"
    again = lab.start("train", "-m", "--resume", str(path))
    again.wait_for("in flight when it ended" if "in flight" in done.err else "plan ")
    time.sleep(4)
    again.send(signal.SIGKILL)
    assert again.wait().code == -9
    assert len(Run.open(path / "1").metrics_log()) > 1


@pytest.mark.slow
def test_a_signal_ends_the_jobs_of_joblib_and_keeps_what_is_done(lab):
    started = lab.start("train", "-m", *QUICK, *TWO_LONG, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    started.wait_for("sweep: 3 runs below")
    until_the_second_runs(lab, started)
    started.send(signal.SIGTERM)
    done = started.wait()
    assert done.code == 143, done.err
    (path,) = (lab.folder / "runs" / "train").iterdir()
    assert done.err.splitlines()[-1] == (
        f"trainctl: error: sweep stopped by SIGTERM; what finished is below `runs/train/{path.name}`"
    )
    written = record(lab, path, "sweep.json")
    assert written["status"] == "stopped"
    assert written["jobs"][0]["status"] == "completed" and written["jobs"][0]["run"].endswith("/0")
    assert {Run.open(path / "1").status} <= {"stopped", "crashed"}
    time.sleep(0.5)
    before = sorted((path / "1").rglob("*"))
    time.sleep(0.5)
    assert sorted((path / "1").rglob("*")) == before
