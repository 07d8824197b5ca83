"""The command line itself: exit codes, one JSON object, tracebacks on request, and terminals that are not there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "from trainctl.cli.app import main; main()"
COMMANDS = {
    ("trian",): "no such command 'trian'; did you mean 'train'?",
    ("train", "--bogus"): "no such option: --bogus (Possible options: --verbose); see `trainctl train --help`",
    ("train", "--seed", "3"): "no such option: --seed; see `trainctl train --help`",
    ("train", "--resume"): "option '--resume' requires an argument; see `trainctl --help`",
    ("train", "--resume", "x", "--from", "y"): "choose one of `-m`, `--resume RUN` and `--from RUN`",
    ("evaluate",): "missing argument 'RUN'; see `trainctl evaluate --help`",
    ("predict", "latest"): "missing argument 'FILE'; see `trainctl predict --help`",
    ("predict", "latest", "/etc/hostname", "-o", "x.txt"): (
        "cannot write `x.txt`: predictions are .csv, .parquet or .jsonl; e.g. `-o x.csv`"
    ),
    ("runs", "--since", "soon"): (
        "cannot read the time `soon`; write a date like 2026-11-20, or an age like 30m, 2h or 3d"
    ),
    ("runs", "--status", "done"): "no status `done`; one of running, completed, failed, stopped, crashed, damaged",
    ("list", "modl"): (
        "no group `modl`; have: callbacks, compressor, data, debug, experiment, logger, model, optimizer, sampler, "
        "scheduler, space, stopper, task, "
        "trainer; did you mean `model`?"
    ),
    ("config", "check", "trian"): (
        "no verb `trian`; have: compress, evaluate, export, predict, prune, quantize, train, tune; "
        "did you mean `train`?"
    ),
    ("config", "why", "optimizer.lrr"): "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?",
}
MISSING_RUNS = {
    ("train", "--resume", "latest"): "no `train` run in `runs`; `trainctl train` makes one",
    ("evaluate", "latest"): "no `train` run in `runs`; `trainctl train` makes one",
    ("show", "nope"): "no run `nope` in `runs`; there are no runs yet",
    ("show", ""): "the run's name is empty; type a path, a run id, a unique prefix or `latest`",
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_wrong_commands(here, words):
    assert here.refused(2, *words) == COMMANDS[words]


@pytest.mark.parametrize("words", MISSING_RUNS, ids=" ".join)
def test_runs_that_are_not_there(here, words):
    assert here.refused(4, *words) == MISSING_RUNS[words]


def test_without_words_the_help_is_shown(here):
    for words, line in (((), "Usage: trainctl [OPTIONS] COMMAND [ARGS]..."), (("config",), "Usage: trainctl config ")):
        done = here(*words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(line)


def test_help_lists_every_exit_code(here):
    done = here("--help")
    assert done.code == 0
    listed = re.findall(r"^ +(\d+) +(.*)$", done.out, re.MULTILINE)
    assert [int(code) for code, _ in listed] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143]
    assert dict(listed)["8"] == "a limit that you set was not met"


def broken_model(folder: Path) -> None:
    """A `model=broken` whose forward pass fails for a reason that is not the user's."""
    (folder / "their.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, spec):\n"
        "        super().__init__()\n"
        "        self.w = torch.nn.Parameter(torch.zeros(1))\n"
        "    def forward(self, x):\n"
        "        raise ValueError('first line\\nsecond line')\n",
        encoding="utf-8",
    )
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "broken.yaml").write_text("_target_: their.Net\n", encoding="utf-8")


def test_code_1_an_internal_error_keeps_its_traceback_in_the_run(shell):
    broken_model(shell.folder)
    sentence = shell.error(1, *shell.quick, "model=broken")
    assert sentence == "internal error: ValueError: first line (see error.txt of the run, or use --traceback)"
    run = shell.run()
    text = (run / "error.txt").read_text(encoding="utf-8")
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: first line\nsecond line\n")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "failed"
    assert record["error"] == {"kind": "ValueError", "message": "first line\nsecond line", "code": 1}


def test_a_traceback_is_shown_on_request_only(shell):
    broken_model(shell.folder)
    assert "Traceback" not in shell(*shell.quick, "model=broken", "-v").err
    done = shell(*shell.quick, "model=broken", "--traceback")
    assert done.code == 1
    assert "Traceback (most recent call last):\n" in done.err
    assert done.err.splitlines()[-1].startswith("trainctl: error: internal error: ValueError: first line ")
    done = shell(*shell.quick, "model.hiden_dims=[8]", "--traceback")
    assert done.code == 2
    assert "Traceback (most recent call last):\n" in done.err
    assert done.err.splitlines()[-1] == (
        "trainctl: error: unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?"
    )


@pytest.mark.slow
def test_code_7_some_jobs_of_a_sweep_failed(shell):
    words = (*shell.quick, "optimizer=sgd", "-m", "optimizer.lr=0.1,1e30,0.05")
    done = shell(*words, "--json")
    assert done.code == 7
    assert done.err.splitlines()[-1] == "trainctl: error: 1 of 3 jobs failed; their records say why"
    result = done.json
    assert result["status"] == "failed"
    assert sorted(job["status"] for job in result["jobs"]) == ["completed", "completed", "failed"]
    (failed,) = (job for job in result["jobs"] if job["status"] == "failed")
    assert failed["error"].startswith("loss is nan at epoch 1 step ")
    assert {path.name for path in Path(shell.folder, result["sweep"]).iterdir()} >= {"0", "1", "2", "study.json"}


@pytest.mark.slow
def test_a_sweep_of_one_column_choice_runs(shell):
    table = "a,b,y\n" + "".join(f"{i % 7}.5,{i * i % 11}.25,{'yes' if i % 2 else 'no'}\n" for i in range(80))
    (shell.folder / "x.csv").write_text(table, encoding="utf-8")
    words = ("train", "data.path=x.csv", "data.target=y", "trainer.max_epochs=1", "trainer.threads=1")
    done = shell(*words, "-m", "seed=1,2", "data.columns.b=categorical")
    assert done.code == 0, done.err


def test_json_is_one_object_and_everything_else_is_on_stderr(shell):
    done = shell(*shell.quick, "--json")
    assert done.code == 0
    assert set(done.json) >= {"run", "verb", "status", "parent", "metrics", "intervals", "timing", "artifacts"}
    assert "epoch 3/3" in done.err
    quiet = shell(*shell.quick, "--json", "-q")
    assert quiet.json["status"] == "completed" and quiet.err == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [(2, ("train", "model=mlq")), (3, ("train", "data.path=none.csv")), (4, ("evaluate", "nope"))],
)
def test_after_a_failure_json_is_nothing_on_stdout(shell, code, words):
    assert shell.refused(code, *words, "--json") != ""


def test_a_reader_that_leaves_ends_nothing(shell):
    """`trainctl train | head -c 0`: the reader is gone before the table is printed."""
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)
    started = shell.start(*shell.quick, out=pipe)
    os.close(os.open(pipe, os.O_RDONLY))
    done = started.wait()
    pipe.unlink()
    assert done.code == 0, done.err
    assert json.loads((shell.run() / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


@pytest.mark.slow
def test_a_pipe_that_takes_both_streams_and_closes(shell):
    command = f"{sys.executable} -c '{HEAD}' {' '.join(shell.quick)} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=shell.folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert json.loads((shell.run() / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


ENVIRONMENTS = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "TERM=dumb": {"TERM": "dumb"},
    "no TERM": {"TERM": None},
    "no HOME": {"HOME": None, "USER": None, "LOGNAME": None},
    "TMPDIR that is not there": {"TMPDIR": "/nonexistent"},
    "empty": dict.fromkeys(("HOME", "USER", "LOGNAME", "LANG", "TERM", "SHELL", "TMPDIR", "XDG_CACHE_HOME", "PWD")),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_poor_environments(shell, name):
    done = shell(*shell.quick, "--json", env=ENVIRONMENTS[name])
    assert done.code == 0, done.err
    assert shell("evaluate", "latest", env=ENVIRONMENTS[name]).code == 0
    assert "\x1b" not in done.err and "\r" not in done.err


def test_a_strict_umask_is_kept(shell):
    assert shell(*shell.quick, umask=0o077).code == 0
    assert shell("evaluate", "latest", umask=0o077).code == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in shell.run().rglob("*")}
    assert {str(path): mode for path, mode in modes.items() if mode} == {}


def test_the_command_to_resume_with_can_be_typed_as_it_stands(shell):
    started = shell.start(*shell.quick, "trainer.max_epochs=100000", "callbacks=none", "--runs-dir", "my runs'")
    started.wait_for("epoch 2/")
    started.send(signal.SIGTERM)
    done = started.wait()
    assert done.code == 143
    command = re.search(r"resume with `(trainctl train --resume .*)`$", done.err.splitlines()[-1])
    assert command is not None
    typed = shlex.split(command[1])
    assert typed[:3] == ["trainctl", "train", "--resume"]
    assert shell.error(2, *typed[1:], "trainer.max_epochs=1").startswith("the run has done ")


def test_few_open_files_are_enough(shell):
    assert shell(*shell.quick, limits={"RLIMIT_NOFILE": 64}).code == 0


def test_text_of_others_cannot_break_the_line(here):
    told = "no run `a\\nb\\x1b[31m\\x07` in `runs`; there are no runs yet"
    assert here.refused(4, "show", "a\nb\x1b[31m\x07") == told
