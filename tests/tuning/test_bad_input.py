"""A search that cannot be: one sentence and an exit code through the real command line, and nothing written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TINY = ("data=synthetic", "data.rows=200", "data.numeric=3", "data.categorical=0", "data.batch_size=64", "model=mlp",
        "model.hidden_dims=[4]", "trainer.max_epochs=1", "tune.jobs=1", "tune.executor=pool")
LR = "optimizer.lr=tag(log, interval(1e-3,1e-1))"

WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "no dimension": (
        (),
        "nothing to search: no word gives several values; write one as in 'optimizer.lr=tag(log, "
        "interval(1e-4,1e-1))' or `model=mlp,resmlp`",
    ),
    "one choice": (
        ("optimizer.lr=choice(0.1)",),
        "`optimizer.lr=choice(0.1)` gives a single value, which is nothing to search; give two or more, or "
        "write `optimizer.lr=0.1`",
    ),
    "one point": (
        ("optimizer.lr=interval(0.1,0.1)",),
        "`optimizer.lr=interval(0.1,0.1)` is a single point, which is nothing to search; widen it, or write "
        "`optimizer.lr=0.1`",
    ),
    "an empty range": (
        ("model.embedding_dim=range(8,8)",),
        "`model.embedding_dim=range(8,8)` is empty: it gives no value at all",
    ),
    "the wrong way round": (
        ("optimizer.lr=interval(0.1,0.01)",),
        "`optimizer.lr=interval(0.1,0.01)` has its bounds the wrong way round; write "
        "`optimizer.lr=interval(0.01,0.1)`",
    ),
    "log of zero": (
        ("optimizer.lr=tag(log, interval(0,0.1))",),
        "`optimizer.lr=tag(log, interval(0,0.1))` is logarithmic, so that its bounds must be > 0, got 0",
    ),
    "beyond what a key takes": (("model.dropout=interval(0,1.5)",), "`model.dropout` must be ≥ 0 and < 1, got 1.5"),
    "a key that no config has": (
        ("optimizer.lrr=interval(0.01,0.1)",),
        "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?",
    ),
    "a key of no chosen model": (
        ("model=mlp,resmlp", "model.hidden_dim=[4],[8]", "model.widht=4,8"),
        "unknown key `model.widht`; did you mean `model.width`?",
    ),
    "no such file of points": (
        ("@points.csv",),
        "`@points.csv` names no file: `points.csv` does not exist; it must be a CSV file with one point a row",
    ),
    "no such space": (
        (LR, "space=mlp_nass"),
        "no `space` option `mlp_nass`; have: cnn_nas, mlp, mlp_nas, optimizer; did you mean `mlp_nas`?",
    ),
    "an objective of test": (
        (LR, "tune.objective=test/accuracy"),
        "objective `test/accuracy` would tune on the test split; use `val/accuracy`",
    ),
    "the same objective twice": (
        (LR, "tune.objective=[val/loss,val/loss]"),
        "`tune.objective` must name one or more different figures, got ['val/loss', 'val/loss']",
    ),
    "jobs": ((LR, "tune.jobs=0"), "`tune.jobs` must be a whole number ≥ 1 or auto, got 0"),
    "trials": ((LR, "tune.trials=0"), "`tune.trials` must be a whole number ≥ 1, got 0"),
    "folds": ((LR, "tune.folds=1"), "`tune.folds` must be a whole number ≥ 2, got 1"),
    "direction": ((LR, "tune.direction=up"), "`tune.direction` must be one of auto, min, max, got 'up'"),
    "directions": (
        (LR, "tune.direction=[min,max]"),
        "`tune.direction` has 2 entries and `tune.objective` 1; give one each, as in [min]",
    ),
    "timeout": (
        (LR, "tune.timeout=soon"),
        "`tune.timeout` must be a duration such as 10m, 1h30m or 00:01:30:00, got the text 'soon'",
    ),
    "failure rate": ((LR, "tune.max_failure_rate=2"), "`tune.max_failure_rate` must be ≥ 0 and ≤ 1, got 2"),
    "executor": (
        (LR, "tune.executor=vectorised"),
        "`tune.executor` must be one of auto, pool, vectorized, got 'vectorised'; did you mean `vectorized`?",
    ),
    "sampler": (
        (LR, "sampler=tpee"),
        "no `sampler` option `tpee`; have: cmaes, gp, grid, nsga2, qmc, random, tpe; did you mean `tpe`?",
    ),
    "sampler's name": (
        (LR, "sampler.name=tpee"),
        "`sampler.name` must be one of tpe, random, grid, qmc, gp, cmaes, nsga2, got 'tpee'; did you mean `tpe`?",
    ),
    "sampler's new option": (
        (LR, "+sampler.n_startups=5"),
        "`sampler` has no parameter `n_startups`; it has: name, n_startup_trials, n_ei_candidates, multivariate, "
        "group, constant_liar",
    ),
    "stopper": (
        (LR, "stopper=ashaa"),
        "no `stopper` option `ashaa`; have: asha, hyperband, median, none; did you mean `asha`?",
    ),
    "stopper's option": (
        (LR, "stopper=asha", "stopper.reduction_factor=1"),
        "`stopper.reduction_factor` must be a whole number ≥ 2, got 1",
    ),
    "stopper of several objectives": (
        (LR, "stopper=asha", "tune.objective=[val/loss,parameters]"),
        "`stopper=asha` takes one objective, the study has 2; use `stopper=none`",
    ),
    "sampler of several objectives": (
        (LR, "sampler=cmaes", "tune.objective=[val/loss,parameters]"),
        "`sampler=cmaes` takes one objective, the study has 2; use `sampler=nsga2`",
    ),
    "grid of a range": (
        (LR, "sampler=grid"),
        "`optimizer.lr=tag(log, interval(0.001,0.1))` is a continuous range, which a grid cannot run through; list "
        "the values, as in `optimizer.lr=1,2,3` or `optimizer.lr=range(1,10)`",
    ),
    "folds of time": (
        (LR, "tune.folds=3", "data.split.kind=time", "data.split.column=t"),
        "`data.split.kind=time` cannot be folded; use random, stratified, group or hash",
    ),
    "folds and seeds": (
        (LR, "tune.folds=3", "tune.seeds=3"),
        "`tune.folds` and `tune.seeds` are both set; choose one of them",
    ),
    "storage": (
        (LR, "tune.storage=redis://localhost"),
        "`tune.storage` begins with `redis://`, which is no storage; have: journal://, postgresql://, mysql://, "
        "mariadb://, sqlite://",
    ),
    "storage without a database": (
        (LR, "tune.storage=postgresql://user@localhost"),
        "`tune.storage` names no database; give one, as in postgresql://user@host/database",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_search_that_cannot_be(lab, case):
    words, sentence = WORDS[case]
    assert lab.sentence(2, "tune", *TINY, *words) == sentence
    assert os.listdir(lab.folder) == []


SMALL = ("data=tabular", "data.path=small.csv", "data.target=y", "model=linear", "trainer.max_epochs=1", "tune.jobs=1")


def test_an_objective_that_nothing_is_called_is_refused_before_the_data_are_looked_for(lab):
    said = lab.sentence(2, "tune", *SMALL, LR, "tune.objective=val/acuracy")
    assert said.startswith("objective `val/acuracy` is not produced; have: val/loss, val/accuracy, ")
    assert said.endswith("; did you mean `val/accuracy`?")
    assert os.listdir(lab.folder) == []


@pytest.mark.slow
def test_an_objective_that_the_task_does_not_produce_is_refused_before_any_trial(lab):
    rows = ["a,y", *(f"{i % 7},{i / 3}" for i in range(60))]
    (lab.folder / "small.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    said = lab.sentence(2, "tune", *SMALL, LR, "tune.objective=val/auroc")
    assert "`val/auroc` is not produced" in said and ", val/rmse, " in said
    assert left(lab.folder) == ["small.csv"]


def left(folder: Path) -> list[str]:
    """Files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_storage_that_does_not_answer(lab):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        said = lab.sentence(5, "tune", *TINY, LR, f"tune.storage=postgresql://user:secret@127.0.0.1:{port}/db")
    assert said == (
        f"storage postgresql at 127.0.0.1:{port} does not answer: Connection refused; start it or check `tune.storage`"
    )
    assert left(lab.folder) == []


def test_a_server_that_refuses(lab, postgres):
    url = postgres.url()
    said = lab.sentence(5, "tune", *TINY, LR, f"tune.storage={url}_gone")
    assert said == (
        f'storage postgresql at 127.0.0.1:{postgres.port} refuses: database "{url.rpartition("/")[2]}_gone" does not '
        "exist; check `tune.storage`"
    )
    assert left(lab.folder) == []


@pytest.mark.slow
def test_another_space_under_the_name_of_a_shared_study(lab, postgres):
    shared = (f"tune.storage={postgres.url()}", "tune.study=ours", "tune.trials=1", "sampler=random")
    assert lab("tune", *TINY, LR, *shared).code == 0
    before = left(lab.folder)
    assert lab.sentence(2, "tune", *TINY, "optimizer.lr=0.1,0.2", *shared) == (
        "the study has optimizer.lr in [0.001, 0.1] (log), this command optimizer.lr one of 0.1, 0.2; use the same "
        "words, or another `tune.study=`"
    )
    assert left(lab.folder) == before


def test_runs_that_are_no_search(lab):
    run = lab.train("trainer.max_epochs=1")
    name = f"runs/train/{run.path.name}"
    assert lab.sentence(4, "tune", "--resume", name) == (
        f"`{name}` is a run of `train`; name a `tune` run, as `latest:tune`"
    )
    assert lab.sentence(4, "tune", "--resume", "latest") == (
        "no `tune` run in `runs`; `trainctl tune` makes one"
    )
    assert lab.sentence(2, "tune", "--resume", name, "--dry-run") == (
        "`--dry-run` plans a new study; leave out `--resume RUN`"
    )


@pytest.mark.slow
def test_a_search_is_not_resumed_as_a_training_nor_with_other_words(lab):
    found = lab("tune", *TINY, LR, "tune.trials=1", "sampler=random", "--json").json
    before = {path: (lab.folder / path).read_bytes() for path in left(lab.folder)}
    assert lab.sentence(4, "train", "--resume", found["study"]) == (
        f"`{found['study']}` is a run of `tune`; name a `train` run, as `latest:train`"
    )
    assert lab.sentence(2, "tune", "--resume", found["study"], "optimizer.lr=0.1,0.2") == (
        "a resumed study keeps its config; only tune.trials, tune.timeout, tune.jobs, tune.trial_timeout, "
        "tune.max_failure_rate, tune.executor, tune.stack, tune.refit may change, got `optimizer.lr=0.1,0.2`"
    )
    assert before == {path: (lab.folder / path).read_bytes() for path in left(lab.folder)}


@pytest.mark.slow
def test_a_study_locked_by_another_process_is_not_waited_for_without_end(lab):
    found = lab("tune", *TINY, LR, "tune.trials=1", "sampler=random", "--json").json
    study = lab.folder / found["study"]
    held = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    impatient = "from trainctl.tuning import journal; journal.WAIT_S = 0.3; from trainctl.cli.app import main; main()"
    holder = subprocess.Popen([sys.executable, "-c", held, str(study / "journal.log")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        done = subprocess.run([sys.executable, "-c", impatient, "tune", "--resume", study, "tune.trials=2"],
                              cwd=lab.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        f"trainctl: error: study `{found['study']}/journal.log` is locked by pid {holder.pid}, and has been for too "
        "long; end that process, or try again later"
    )
    assert not (study / "trials" / "1").exists()


def test_words_of_a_search_for_a_grid(lab):
    assert lab.sentence(2, "train", "-m", *TINY[:-2], "optimizer.lr=0.1,0.2", "tune.trials=5") == (
        "`tune.trials=5` is for `trainctl tune`; `train -m` runs every point and takes tune.jobs, tune.executor, "
        "tune.stack, tune.trial_timeout, tune.timeout"
    )
    assert os.listdir(lab.folder) == []
