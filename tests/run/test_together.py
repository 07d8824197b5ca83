"""Runs that are written many at a time hold what any run holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainctl.config.compose import compose, plain
from trainctl.errors import ResourceError, RunError
from trainctl.run import files, machine, record
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run
from trainctl.run.together import RunTogether


def finished(run: Run) -> Run:
    """A run brought to its end."""
    run.log_metrics({"epoch": 1, "val/loss": 0.5})
    if isinstance(run, RunTogether):
        run.add("model.safetensors", b"weights")
        run.add("preprocessing/spec.json", b"{}")
    else:
        (run.path / "model.safetensors").write_bytes(b"weights")
        (run.path / "preprocessing").mkdir()
        (run.path / "preprocessing" / "spec.json").write_bytes(b"{}")
    run.finish({"val/loss": 0.5}, {}, {"fit_s": 0.1}, {"weights": "model.safetensors"}, epochs=1)
    return Run.open(run.path)


def test_a_run_written_together_is_like_one_written_alone(tmp_path: Path) -> None:
    runs = []
    for kind in (Run, RunTogether):
        path = tmp_path / kind.__name__
        path.mkdir()
        facts = machine.facts(machine.process()["pid"]) if kind is RunTogether else None
        runs.append(finished(kind.create(path, "train", {"seed": 3, "model": {"a": 1}}, ["model.a=1"], facts=facts)))
    alone, together = runs
    assert together.status == "completed" and together.metrics == alone.metrics == {"val/loss": 0.5}
    assert together.metrics_log() == alone.metrics_log() and together.config == alone.config
    assert list(together.record) == list(alone.record)
    times = ("started", "ended", "git")
    assert {k: v for k, v in together.record.items() if k not in times} == {
        k: v for k, v in alone.record.items() if k not in times
    }
    assert Manifest.read(together.path).files == Manifest.read(alone.path).files


def test_its_manifest_says_what_reading_the_files_again_would_say(tmp_path: Path) -> None:
    run = finished(RunTogether.create(tmp_path, "train", {"seed": 0}, [], facts={}))
    again = Manifest()
    again.list_files(run.path)
    assert Manifest.read(run.path).files == again.files
    assert run.verify("model.safetensors").read_bytes() == b"weights"


def test_a_file_that_cannot_be_added_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run = RunTogether.create(folder, "train", {}, [], facts={})
    (folder / "taken").mkdir()
    with pytest.raises(ResourceError, match="taken"):
        run.add("taken", b"")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    with pytest.raises(RunError, match="^run dir `.*` vanished; stopping$"):
        run.add("model.safetensors", b"")


def test_all_that_was_written_reaches_the_disk(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "file", "content", sync=False)
    files.sync_all(tmp_path)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "content"


def test_facts_are_found_once_by_each_process() -> None:
    pid = machine.process()["pid"]
    assert machine.facts(pid) is machine.facts(pid)
    assert machine.facts(pid)["pid"] == pid and "versions" in machine.facts(pid)


@pytest.mark.parametrize("words", [[], ["data=synthetic", "model=cnn"], ["scheduler=cosine", "optimizer.lr=1e-20"]])
def test_config_is_dumped_by_section_as_in_one_piece(words: list[str]) -> None:
    config: dict[str, Any] = plain(compose("train", words))
    config |= {"texts": ["1e-3", "null", "", "ünï\ncode", "x" * 200, "a: b"], "inf": float("inf"), "empty": {}, "1": []}
    text = record.dump_yaml(config)
    whole = yaml.load(text, Loader=yaml.CSafeLoader)
    assert json.dumps(whole) == json.dumps(config)
    assert text == "".join(record.dump_yaml({key: value}) for key, value in config.items())
    assert record.dump_yaml({}) == "{}\n"


def test_config_with_values_that_json_has_no_type_for() -> None:
    config: dict[Any, Any] = {"a": {True: 1, None: 2, 3: 4}, "b": Path("c"), "d": (1, 2), "api_key": "x", "e": {1}}
    expected = {"a": {"True": 1, "None": 2, "3": 4}, "b": "c", "d": [1, 2], "api_key": "***", "e": [1]}
    assert yaml.safe_load(record.dump_yaml(config)) == expected
