from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainctl.errors import RunError
from trainctl.run.run import Run

CREATE = "import sys, pathlib; from trainctl.run.run import Run; p = pathlib.Path(sys.argv[1]); p.mkdir(); "
CREATE += "run = Run.create(p, 'train', {}, []); "

CREATE = "import sys, pathlib; from trainctl.run.run import Run; p = pathlib.Path(sys.argv[1]); p.mkdir(); "
CREATE += "run = Run.create(p, 'train', {}, []); "


def sentence(call, *arguments: object) -> str:
    with pytest.raises(RunError) as caught:
        call(*arguments)
    return str(caught.value)


def test_verify_finds_every_kind_of_damage(run: Run, path: Path) -> None:
    weights = path / "model.safetensors"
    weights.write_bytes(b"x" * 8_000_000)
    run.finish({})
    assert run.verify("model.safetensors") == weights
    with open(weights, "r+b") as file:
        file.write(b"y")
    assert sentence(run.verify, "model.safetensors") == "`model.safetensors` fails its checksum"
    os.truncate(weights, 4_000_000)
    assert sentence(run.verify, "model.safetensors") == "`model.safetensors` is damaged (size 4 of 8 MB)"
    os.truncate(weights, 7_999_999)
    assert sentence(run.verify, "model.safetensors") == "`model.safetensors` is damaged (size 7999999 of 8000000 B)"
    weights.unlink()
    assert sentence(run.verify, "model.safetensors") == (
        "`model.safetensors` is missing from its run; restore it or run again"
    )
    assert sentence(run.verify, "other") == ("`other` is not in the manifest of `runs/train/2026-11-20_12-00-00`")


def test_a_run_that_was_moved_or_copied_works(run: Run, path: Path, tmp_path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"weights")
    child = tmp_path / "runs" / "evaluate" / "2026-11-20_13-00-00"
    child.mkdir(parents=True)
    Run.create(child, "evaluate", {}, [], parent=Path("runs/train/2026-11-20_12-00-00"))
    run.finish({"val/loss": 1.0}, artifacts={"weights": "model.safetensors"})
    shutil.copytree(tmp_path / "runs", tmp_path / "ru=ns é\n2")
    shutil.rmtree(tmp_path / "runs")
    moved = tmp_path / "ru=ns é\n2" / "train" / "2026-11-20_12-00-00"
    assert Run.open(moved).verify("model.safetensors").read_bytes() == b"weights"
    assert Run.open(tmp_path / "ru=ns é\n2" / "evaluate" / "2026-11-20_13-00-00").parent == moved


def test_open_refuses_what_is_no_run(run: Run, path: Path, tmp_path: Path) -> None:
    shown = "runs/train/2026-11-20_12-00-00"
    assert sentence(Run.open, tmp_path / "no") == "no run directory `no`"
    assert sentence(Run.open, tmp_path / "runs") == "`runs` is not a run directory: it has no run.json"
    (path / "run.json").write_text("{}")
    assert sentence(Run.open, path) == f"`{shown}/run.json` is damaged: it lacks `verb` or `status`"
    (path / "run.json").write_text('{"verb": "train", "status"')
    assert sentence(Run.open, path) == f"`{shown}/run.json` is damaged: it is not JSON"
    for field, word in {"error": "mapping", "overrides": "list", "parent": "text"}.items():
        (path / "run.json").write_text(json.dumps({"verb": "train", "status": "completed", field: 3}))
        assert sentence(Run.open, path) == f"`{shown}/run.json` is damaged: `{field}` is not a {word}"
    (path / "run.json").write_text('{"verb": "train", "status": "completed"}')
    for text in ("[]", '{"files": []}', '{"checkpoints": {"a": 1}}', '{"names": 0}'):
        (path / "manifest.json").write_text(text)
        assert sentence(Run.open, path) == f"`{shown}/manifest.json` is damaged: it is not a manifest"


def test_a_damaged_config_or_metrics_file_is_one_sentence(run: Run, path: Path) -> None:
    shown = "runs/train/2026-11-20_12-00-00"
    opened = Run.open(path)
    for text in ("a: [", "!!python/object/apply:os.system [touch pwned]", "a: \0", "é".encode("latin-1")):
        (path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        message = sentence(lambda: opened.config)
        assert message == f"`{shown}/config.yaml` is damaged: it is not YAML of plain values"
    (path / "config.yaml").write_text("just text")
    assert sentence(lambda: opened.config) == f"`{shown}/config.yaml` is damaged: it is not a mapping"
    (path / "config.yaml").unlink()
    assert sentence(lambda: opened.config) == f"no such file: `{shown}/config.yaml`"
    (path / "config.yaml").mkdir()
    assert sentence(lambda: opened.config) == f"cannot read `{shown}/config.yaml`: is a directory"
    (path / "metrics.json").write_text("[1]")
    assert sentence(lambda: opened.metrics) == f"`{shown}/metrics.json` is damaged: it is not a mapping"
    assert not Path("pwned").exists()


@pytest.mark.parametrize("where", ["artifacts", "files"])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "link/x", "link", "a\0b", 3])
def test_paths_that_leave_the_run_are_refused(run: Run, path: Path, tmp_path: Path, where: str, name: object) -> None:
    (path / "link").symlink_to(tmp_path)
    if where == "artifacts":
        run.update(artifacts={"x": name})
    elif isinstance(name, str):
        (path / "manifest.json").write_text(json.dumps({"files": {name: {}}}))
    else:
        (path / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    expected = "manifest of `runs/train/2026-11-20_12-00-00` points outside the run dir; refused"
    assert sentence(Run.open, path) == expected
    if isinstance(name, str):
        assert sentence(run.verify, name) == expected


def test_links_inside_the_run_are_fine(run: Run, path: Path) -> None:
    (path / "real").write_text("x")
    (path / "link").symlink_to("real")
    run.update(artifacts={"x": "link"})
    assert Run.open(path).record["artifacts"] == {"x": "link"}


def test_an_unreadable_run_is_one_sentence(shared_folder: Path, as_ordinary_user) -> None:
    Run.create(shared_folder, "train", {}, [])
    (shared_folder / "run.json").chmod(0)
    with as_ordinary_user():
        assert sentence(Run.open, shared_folder) == f"cannot read `{shared_folder}/run.json`: permission denied"
    shared_folder.chmod(0)
    with as_ordinary_user():
        assert sentence(Run.open, shared_folder) == f"cannot read `{shared_folder}`: permission denied"


def test_a_running_record_of_a_dead_process_reads_as_crashed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = CREATE + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert Run.open(path).status == "crashed"
    record = json.loads((path / "run.json").read_text())
    assert record["status"] == "running", "opening writes nothing"
    for change in ({"pid": 1}, {"pid": os.getpid()}, {"pid": "x"}, {"pid": -1}, {"boot_id": "another boot"}):
        (path / "run.json").write_text(json.dumps({**record, **change}))
        assert Run.open(path).status == "crashed", change
    (path / "run.json").write_text(json.dumps({**record, "host": "elsewhere"}))
    assert Run.open(path).status == "running", "another host's process cannot be seen, but it wrote just now"
    os.utime(path / "run.json", (time.time() - 3600,) * 2)
    assert Run.open(path).status == "crashed"
    Run.open(path).log_metrics({"epoch": 1})
    assert Run.open(path).status == "running"


def test_readers_never_see_half_a_record(run: Run, path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            run.update(filling="x" * 10_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(Run.open(path).verb == "train" for _ in range(200))
    finally:
        stop.set()
        writer.join()
