from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainctl.errors import DivergedError, ResourceError, RunError
from trainctl.run import machine
from trainctl.run.run import Run


def sentence(call, *arguments: object) -> str:
    with pytest.raises(RunError) as caught:
        call(*arguments)
    return str(caught.value)


def read_record(path: Path) -> dict:
    return json.loads((path / "run.json").read_text())


def test_a_new_run_records_where_it_runs_and_can_be_opened(path: Path) -> None:
    config = {"lr": 1e-5, "name": "1e-3", "z": None, "nested": {"a": [1, 2.0, True]}, "inf": math.inf, "p": Path("x")}
    Run.create(path, "train", config, ["lr=1e-5"], seed=0, extra=(1, math.nan))
    opened = Run.open(path)
    assert opened.status == "running" and opened.verb == "train" and opened.metrics == {}
    assert opened.config == {**config, "p": "x"}
    assert opened.name == "2026-11-20_12-00-00"
    assert opened.record["overrides"] == ["lr=1e-5"]
    assert opened.record["seed"] == 0 and opened.record["extra"] == [1, None]
    assert opened.record["pid"] == os.getpid() and opened.record["host"] == machine.host()
    assert opened.record["versions"]["pytorch-lightning"].startswith("2.")
    assert opened.record["hardware"]["cores"] >= 1 and opened.record["hardware"]["memory"] > 10**8
    assert opened.parent is None and opened.record["git"] is None


def test_config_is_yaml_that_omegaconf_reads_alike(path: Path) -> None:
    from omegaconf import OmegaConf

    config = {"a": "1e-3", "b": 1e-3, "c": "yes", "d": ["${oc.env:HOME}", "12"], "e": "1_0e3", "f": "x\ny", "g": 1e-7}
    Run.create(path, "train", config, [])
    assert OmegaConf.to_container(OmegaConf.load(path / "config.yaml"), resolve=False) == config
    assert Run.open(path).config == {**config, "d": [os.environ["HOME"], "12"]}


def test_secrets_are_not_stored_but_interpolations_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "s3cret")
    config = {"logger": {"api_key": "s3cret", "password": "${oc.env:PW}", "uri": "https://me:s3cret@host/x"}}
    overrides = ["+logger.api_key=s3cret", "logger.password=${oc.env:PW}", "logger/secret=s3cret", "~x", "max_tokens=5"]
    run = Run.create(path, "train", config, overrides)
    assert run.config["logger"] == {**config["logger"], "password": "s3cret"}, "the run itself still needs them"
    assert Run.open(path).config == {"logger": {"api_key": "***", "password": "s3cret", "uri": "https://me:***@host/x"}}
    opened = Run.open(path)
    opened.rewrite_config({**opened.config, "epochs": 5})
    assert Run.open(path).config["epochs"] == opened.config["epochs"] == 5
    assert "password: ${oc.env:PW}" in (path / "config.yaml").read_text()
    monkeypatch.delenv("PW")
    assert sentence(lambda: Run.open(path).config).startswith("config.yaml of the run needs ${oc.env:PW}: ")
    assert Run.open(path).record["overrides"] == [
        "+logger.api_key=***", "logger.password=${oc.env:PW}", "logger/secret=***", "~x", "max_tokens=5"
    ]  # fmt: skip
    assert not any(b"s3cret" in file.read_bytes() for file in path.iterdir())


def test_finish_writes_metrics_manifest_and_the_record_last(run: Run, path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "preprocessing").mkdir()
    (path / "preprocessing" / "spec.json").write_text("{}")
    (path / "train.log").write_text("growing")
    (path / "folds" / "0").mkdir(parents=True)
    (path / "folds" / "0" / "run.json").write_text("{}")
    run.log_metrics({"epoch": 0, "val/loss": 0.5})
    run.finish(
        {"test/accuracy": 0.9, "test/auroc": None, "test/r2": math.nan},
        intervals={"test/accuracy": (0.8, 0.95)},
        timing={"fit_s": 1.5},
        artifacts={"weights": path / "model.safetensors", "spec": "preprocessing/spec.json", "out": "/elsewhere/o.csv"},
        weights_hash="abc",
    )
    opened = Run.open(path)
    assert opened.status == "completed" and opened.record["weights_hash"] == "abc"
    assert opened.metrics == {"test/accuracy": 0.9, "test/auroc": None, "test/r2": None} == run.metrics
    assert opened.record["intervals"] == {"test/accuracy": [0.8, 0.95]}
    assert opened.record["artifacts"] == {"weights": "model.safetensors", "spec": "preprocessing/spec.json"}
    assert opened.record["outputs"] == {"out": "/elsewhere/o.csv"}
    assert set(json.loads((path / "manifest.json").read_text())["files"]) == {
        "config.yaml", "metrics.json", "metrics.jsonl", "model.safetensors", "preprocessing/spec.json"
    }  # fmt: skip
    times = [(path / name).stat().st_mtime_ns for name in ("metrics.json", "manifest.json", "run.json")]
    assert times == sorted(times)


def test_update_keeps_the_other_fields(run: Run, path: Path) -> None:
    run.update(data_hash="abc")
    run.update(seed=0)
    assert (read_record(path)["data_hash"], read_record(path)["seed"], read_record(path)["verb"]) == ("abc", 0, "train")


def test_processes_of_one_run_keep_each_others_fields(run: Run, path: Path) -> None:
    Run.open(path).update(threads=2)
    run.update(seed=0)
    Run.open(path).update(data={"rows": 3})
    run.fail(ValueError("x"), 1, "")
    assert Run.open(path).record | {"threads": 2, "seed": 0, "data": {"rows": 3}} == Run.open(path).record


def test_resume_makes_a_stopped_run_ours_again(run: Run, path: Path) -> None:
    run.stop(15, "stopped by SIGTERM at epoch 2 step 13")
    record = Run.open(path).record
    assert (record["status"], record["stopped_by"], record["error"]["code"]) == ("stopped", "SIGTERM", 143)
    (path / "checkpoints").mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for folder in (path, path / "checkpoints"):
        (folder / f".tmp-x-{dead.pid}-0123abcd").touch()
    opened = Run.open(path)
    opened.resume(["trainer.max_epochs=5"])
    again = Run.open(path).record
    assert again["status"] == "running" and "error" not in again and "ended" not in again
    assert [item["overrides"] for item in again["resumed"]] == [["trainer.max_epochs=5"]]
    assert not [file for file in path.rglob(".tmp-*")]


def test_fail_keeps_the_traceback_and_the_sentence(run: Run, path: Path) -> None:
    run.fail(DivergedError("loss is nan at epoch 2 step 40"), 6, "Traceback ...\n")
    record = Run.open(path).record
    assert record["status"] == "failed"
    assert record["error"] == {"kind": "DivergedError", "message": "loss is nan at epoch 2 step 40", "code": 6}
    assert (path / "error.txt").read_text() == "Traceback ...\n"


def test_fail_and_stop_never_hide_the_first_error(run: Run, path: Path) -> None:
    shutil.rmtree(path)
    run.fail(ValueError("first"), 1, "")
    run.stop(15, "stopped")
    assert not path.exists()


def test_a_run_directory_that_vanished_ends_the_run(run: Run, path: Path) -> None:
    shutil.rmtree(path)
    expected = "run dir `runs/train/2026-11-20_12-00-00` vanished; stopping"
    for call in (run.update, run.seal, lambda: run.log_metrics({}), lambda: run.finish({}), run.count_test_look):
        assert sentence(call) == expected
    assert sentence(lambda: run.lock().__enter__()) == expected
    assert not path.exists()


def test_a_read_only_run_is_a_resource_error(shared_folder: Path, as_ordinary_user) -> None:
    run = Run.create(shared_folder, "train", {}, [])
    shared_folder.chmod(0o555)
    with as_ordinary_user():
        for name, call in {"run.json": run.update, "metrics.jsonl": lambda: run.log_metrics({})}.items():
            with pytest.raises(ResourceError) as caught:
                call()
            assert str(caught.value) == f"cannot write `{shared_folder}/{name}`: permission denied"


def test_metrics_log_cuts_a_torn_tail(run: Run, path: Path) -> None:
    assert run.metrics_log() == []
    run.log_metrics({"epoch": 0, "val/loss": math.nan})
    with open(path / "metrics.jsonl", "ab") as file:
        file.write(b'{"epoch": 1, "val')
    assert run.metrics_log() == [{"epoch": 0, "val/loss": None}]
    run.log_metrics({"epoch": 1})
    assert (path / "metrics.jsonl").read_text() == '{"epoch": 0, "val/loss": null}\n{"epoch": 1}\n'
    run.log_metrics({"epoch": 2, "note": "line\nend \u2028"})
    run.cut_metrics(1)
    assert run.metrics_log() == [{"epoch": 0, "val/loss": None}, {"epoch": 1}]
    (path / "metrics.jsonl").write_text('{"epoch": 0}\n[1]\n')
    assert sentence(run.metrics_log) == "`runs/train/2026-11-20_12-00-00/metrics.jsonl` is damaged in line 2"


def test_a_log_that_is_one_torn_line_starts_afresh(run: Run, path: Path) -> None:
    (path / "metrics.jsonl").write_text('{"epoch"')
    run.log_metrics({"epoch": 0})
    assert run.metrics_log() == [{"epoch": 0}]


def test_test_looks_are_counted(run: Run, path: Path) -> None:
    assert run.test_looks() == 0
    assert [run.count_test_look(), run.count_test_look("evaluate/x")] == [1, 2]
    assert Run.open(path).test_looks() == 2


def test_only_one_process_holds_a_run(run: Run, path: Path) -> None:
    code = "import sys, pathlib; from trainctl.run.run import Run\n"
    code += "with Run.open(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    message = sentence(lambda: run.lock().__enter__())
    assert re.fullmatch(f"run is in use by pid {holder.pid} on host {machine.host()} since \\d\\d:\\d\\d", message)
    holder.communicate()
    with run.lock():
        assert sentence(lambda: Run.open(path).lock().__enter__()).startswith(f"run is in use by pid {os.getpid()} on")
    with run.lock():
        pass


def test_a_dead_holders_children_are_waited_for(run: Run, path: Path) -> None:
    code = "import os, sys, pathlib, time; from trainctl.run.run import Run\n"
    code += "lock = Run.open(pathlib.Path(sys.argv[1])).lock(); lock.__enter__()\n"
    code += "if os.fork() == 0: time.sleep(0.4)\nos._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with run.lock():
        pass


def test_create_is_cheap(tmp_path: Path) -> None:
    costs = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        begin = time.process_time()
        Run.create(folder, "train", {"a": {"b": 1}}, ["a.b=1"])
        costs.append(time.process_time() - begin)
    assert min(costs) < 0.03


def test_names_of_child_runs(tmp_path: Path) -> None:
    child = tmp_path / "train" / "2026-11-20_12-00-00" / "folds" / "3"
    child.mkdir(parents=True)
    assert Run.create(child, "train", {}, []).name == "2026-11-20_12-00-00/folds/3"


def test_nothing_here_imports_torch() -> None:
    code = "import sys, trainctl.run.directory, trainctl.run.compare, trainctl.run.checkpoints, trainctl.cli.render\n"
    code += "import trainctl.doctor\nassert not {'torch', 'polars', 'numpy', 'yaml', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
