"""Run directories that are in use, moved, gone, unwritable or a stranger's (rows 44 to 49 and 53)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

OUTSIDE = "manifest of `runs/train/{}` points outside the run dir; refused"
LONG = ("trainer.max_epochs=100000", "callbacks=none")
ON = ("train", "--resume", "latest", "callbacks.early_stopping.patience=99999")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


# 44: in use


def test_row_44_one_writer_at_a_time(spoiled):
    run = spoiled.run()
    first = spoiled.start(*ON, "trainer.max_epochs=100000")
    first.wait_for("epoch 5/")
    said = spoiled.error(4, "train", "--resume", "latest")
    holder = f"pid {first.pid} on host {socket.gethostname()}"
    assert re.fullmatch(rf"run is in use by {re.escape(holder)} since \d\d:\d\d", said)
    first.send(signal.SIGTERM)
    assert first.wait().code == 143
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "stopped"


def test_of_two_that_resume_at_once_one_goes_on(spoiled):
    words = (*ON, "trainer.max_epochs=60")
    ended = [started.wait() for started in [spoiled.start(*words), spoiled.start(*words)]]
    codes = sorted(done.code for done in ended)
    assert codes in ([0, 4], [0, 0]), [done.err for done in ended]  # the second may come when the first is done
    rows = (spoiled.run() / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(1, 61))


@pytest.mark.slow
def test_fifty_starts_in_one_second_make_fifty_directories(shell):
    words = (*shell.quick, "trainer.max_epochs=1", "data.rows=60")
    started = [shell.start(*words, "--json") for _ in range(50)]
    ended = [one.wait() for one in started]
    assert [done.code for done in ended] == [0] * 50
    runs = {done.json["run"] for done in ended}
    assert len(runs) == 50
    assert {path.name for path in (shell.folder / "runs" / "train").iterdir()} == {Path(run).name for run in runs}
    assert len({json.loads((shell.folder / run / "run.json").read_text())["pid"] for run in runs}) == 50


# 45, 46, 47: moved, gone, read-only


def test_row_45_a_run_that_was_moved_or_copied_works(spoiled):
    name = spoiled.run().name
    os.rename(spoiled.folder / "runs", spoiled.folder / "else where")
    run = f"else where/train/{name}"
    assert spoiled("evaluate", run).code == 0
    assert spoiled("train", "--resume", run, "trainer.max_epochs=4").code == 0
    shutil.copytree(spoiled.folder / run, spoiled.folder / "copy")
    assert spoiled("train", "--resume", "copy", "trainer.max_epochs=5").code == 0
    assert spoiled("evaluate", "copy").code == 0
    assert not (spoiled.folder / "runs" / "train").exists()


def test_row_46_a_run_removed_while_it_runs(shell):
    started = shell.start(*shell.quick, *LONG)
    started.wait_for("epoch 2/")
    name = shell.run().name
    os.rename(shell.run(), shell.folder / "trash")
    done = started.wait()
    assert done.code == 4
    assert done.err.splitlines()[-1] == f"trainctl: error: run dir `runs/train/{name}` vanished; stopping"
    assert "Traceback" not in done.err
    assert list((shell.folder / "runs").rglob("*.ckpt")) == []


@pytest.mark.parametrize("part", ["checkpoints", "."])
def test_row_47_a_run_that_became_read_only(shell, part):
    started = shell.start(*shell.quick, *LONG, bound_by_modes=True)
    started.wait_for("epoch 2/")
    run = shell.run()
    (run / part).chmod(0o555)
    done = started.wait()
    (run / part).chmod(0o755)
    assert done.code == 5, done.err
    file = "checkpoints/last.ckpt" if part == "checkpoints" else "manifest.json"
    assert re.fullmatch(
        rf"trainctl: error: cannot write `runs/train/{run.name}/{file}`: permission denied at epoch \d+; "
        r"earlier checkpoints are good",
        done.err.splitlines()[-1],
    )
    again = shell("train", "--resume", "latest", "trainer.max_epochs=12")
    assert again.code in (0, 2), again.err  # 2: it had done more than 12 already
    assert "`prev`" not in again.err


def test_row_47_a_place_where_nothing_may_be_made(shell):
    (shell.folder / "runs").mkdir(mode=0o555)
    assert shell.error(5, *shell.quick, bound_by_modes=True) == "cannot write `runs/train`: permission denied"
    assert list((shell.folder / "runs").iterdir()) == []


# 48: names


@pytest.mark.parametrize("name", ["a 😀=b", "line\nbreak", "-x", "a'b\"c", "d" * 100 + "/" + "e" * 150])
def test_row_48_strange_names_work(shell, name):
    done = shell(*shell.quick, "--runs-dir", name, "--json")
    assert done.code == 0, done.err
    assert shell("evaluate", "latest", "--runs-dir", name).code == 0
    assert shell("train", "--resume", "latest", "--runs-dir", name, "trainer.max_epochs=4").code == 0


def test_row_48_names_that_are_too_long(here):
    assert here.refused(2, *here.quick, "--runs-dir", "x" * 300) == (
        f"name too long: `{'x' * 40}...` has 300 bytes, at most 255 fit"
    )
    deep = "/".join(["d" * 200] * 25)
    sentence = here.refused(2, *here.quick, "--runs-dir", deep)
    assert sentence.startswith(f"path too long: `{deep[:40]}...` has ")
    assert sentence.endswith(" bytes, at most 4095 fit")


def test_a_runs_dir_that_is_a_file(here):
    (here.folder / "f").write_text("", encoding="utf-8")
    for name in ("f", "f/x"):
        assert here.refused(2, *here.quick, "--runs-dir", name) == (
            f"`{name}` is not a directory; pass another one with `--runs-dir`"
        )


# 49: a stranger's run


@pytest.mark.parametrize("path", ["../../../secret", "/etc/passwd", "preprocessing/../../x"])
@pytest.mark.parametrize("verb", ["evaluate", "show", "predict"])
def test_row_49_paths_that_lead_outside(spoiled_here, path, verb):
    run = spoiled_here.run()
    words = (verb, "latest", "file.csv") if verb == "predict" else (verb, "latest")
    (spoiled_here.folder / "file.csv").write_text("a\n", encoding="utf-8")
    kept = (run / "run.json").read_bytes()
    edit(run / "run.json", lambda record: record["artifacts"].update(weights=path))
    assert spoiled_here.refused(4, *words) == OUTSIDE.format(run.name)
    (run / "run.json").write_bytes(kept)
    edit(run / "manifest.json", lambda manifest: manifest["files"].update({path: {"size": 1, "sha256": "0"}}))
    assert spoiled_here.refused(4, *words) == OUTSIDE.format(run.name)


@pytest.mark.parametrize("name", ["model.safetensors", "run.json", "config.yaml", "preprocessing", "checkpoints"])
def test_row_49_links_that_lead_outside(spoiled_here, name):
    run = spoiled_here.run()
    os.rename(run / name, spoiled_here.folder / name)
    os.symlink(spoiled_here.folder / name, run / name)
    for words in (("evaluate", "latest"), ("train", "--resume", "latest", "trainer.max_epochs=5")):
        assert spoiled_here.refused(4, *words) == OUTSIDE.format(run.name)


def test_row_49_a_link_in_the_checkpoints(spoiled_here):
    run = spoiled_here.run()
    os.rename(run / "checkpoints" / "last.ckpt", spoiled_here.folder / "last.ckpt")
    os.symlink(spoiled_here.folder / "last.ckpt", run / "checkpoints" / "last.ckpt")
    assert spoiled_here.refused(4, "train", "--resume", "latest", "trainer.max_epochs=5") == OUTSIDE.format(run.name)


TARGETS = [
    "os.system", "builtins.open", "torch.load", "pathlib.Path.unlink", "torch.hub.load", "numpy.load", "my_pkg.X",
    "trainctl.run.files.write_atomic", "trainctl.models.mlp.torch.load", "trainctl.launch.start",
]  # fmt: skip


def name_in_config(run: Path, target: str) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["_target_"] = target
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_strangers_config_may_not_name(spoiled_here, target):
    name_in_config(spoiled_here.run(), target)
    (spoiled_here.folder / "file.csv").write_text("a\n", encoding="utf-8")
    package = target.split(".")[0]
    for words in (
        ("evaluate", "latest"),
        ("predict", "latest", "file.csv"),
        ("train", "--from", "latest"),
        ("train", "--resume", "latest", "trainer.max_epochs=5"),
    ):
        assert spoiled_here.refused(4, *words) == (
            f"the run's config names `{target}` (`model._target_`), which is not on the list of trusted components; "
            f"pass `--trust {package}` if you trust that package and where the run comes from"
        )


def test_a_trusted_package_is_let_through(spoiled):
    name_in_config(spoiled.run(), "my_pkg.X")
    (spoiled.folder / "my_pkg.py").write_text("from trainctl.models.mlp import MLP as X\n", encoding="utf-8")
    assert spoiled.refused(4, "evaluate", "latest", "--trust", "my_pk").startswith("the run's config names `my_pkg.X`")
    assert spoiled("evaluate", "latest", "--trust", "my_pkg").code == 0
    assert spoiled("train", "--resume", "latest", "trainer.max_epochs=4", "--trust", "my_pkg").code == 0


def test_a_config_with_code_in_it_is_not_read(spoiled_here):
    run = spoiled_here.run()
    mark = spoiled_here.folder / "executed"
    text = f"model: !!python/object/apply:os.mkdir ['{mark}']\n"
    (run / "config.yaml").write_text(text, encoding="utf-8")
    assert spoiled_here.refused(4, "evaluate", "latest") == (
        f"`runs/train/{run.name}/config.yaml` is damaged: it is not YAML of plain values"
    )
    assert not mark.exists()


def test_records_that_are_damaged(spoiled_here):
    run = spoiled_here.run()
    where = f"runs/train/{run.name}"
    for file, text, sentence in (
        ("config.yaml", "{}", "config.yaml of the run is damaged: it has no `data`"),
        ("metrics.json", "[]", f"`{where}/metrics.json` is damaged: it is not a mapping"),
        ("manifest.json", "[]", f"`{where}/manifest.json` is damaged: it is not a manifest"),
        ("run.json", "{", f"`{where}/run.json` is damaged: it is not JSON"),
        ("run.json", "{}", f"`{where}/run.json` is damaged: it lacks `verb` or `status`"),
    ):
        kept = (run / file).read_bytes()
        (run / file).write_text(text, encoding="utf-8")
        verb = "show" if file == "metrics.json" else "evaluate"
        assert spoiled_here.refused(4, verb, "latest") == sentence
        (run / file).write_bytes(kept)
    (run / "run.json").unlink()
    assert spoiled_here.refused(4, "evaluate", run) == f"`{where}` is not a run directory: it has no run.json"


def test_names_of_runs_that_do_not_exist(spoiled):
    name = spoiled.run().name
    assert spoiled("evaluate", "latest").code == 0
    evaluated = spoiled.run("evaluate")
    assert spoiled.refused(4, "evaluate", "nope") == (
        f"no run `nope` in `runs`; the latest are: train/{name}, evaluate/{evaluated.name}"
    )
    assert spoiled.refused(4, "show", "latest:tarin") == "no `tarin` run in `runs`; did you mean `train`?"
    assert spoiled.refused(4, "show", "20") == (
        f"`20` fits 2 runs: evaluate/{evaluated.name}, train/{name}; type more of the name"
    )
    assert spoiled.refused(4, "train", "--resume", evaluated) == (
        f"`{evaluated}` is a run of `evaluate`; name a `train` run, as `latest:train`"
    )
    assert spoiled.refused(4, "evaluate", "/etc") == "`/etc` is not a run directory: it has no run.json"


# 53: killed


def test_row_53_after_a_kill_the_next_one_says_so_and_goes_on(shell):
    started = shell.start(*shell.quick, "trainer.max_epochs=40", "callbacks=none")
    started.wait_for("epoch 3/")
    started.send(signal.SIGKILL)
    assert started.wait().code == -9
    done = shell("train", "--resume", "latest")
    assert done.code == 0, done.err
    first, second = done.err.splitlines()[:2]
    assert first == "warning: the run ended without a word (killed, or the machine went down); going on with it"
    assert re.fullmatch(r"resuming from `(last|prev)`: \d+ epochs done, step \d+", second)
    assert not [path for path in shell.run().rglob("*") if path.name.startswith(".tmp")]


def test_a_run_killed_before_its_first_checkpoint_cannot_be_resumed(shell):
    started = shell.start("train", "data=synthetic", "data.rows=3000000")
    while not list(shell.folder.rglob("run.json")):
        time.sleep(0.005)
    started.send(signal.SIGKILL)
    assert started.wait().code == -9
    assert shell.refused(4, "train", "--resume", "latest") == (
        f"run `runs/train/{shell.run().name}` has no checkpoint: it ended before its first one"
    )
