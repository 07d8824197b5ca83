"""The command `benchmark`, by what a user sees of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Lab
from trainctl.cli import benchmarking
from trainctl.errors import UsageError


@pytest.mark.slow
def test_runs_are_measured_side_by_side_and_nothing_is_made(lab: Lab) -> None:
    small = lab.train("model.hidden_dims=[16]")
    table = lab.folder / "rows.csv"
    table.write_text("a,b,y\n" + "".join(f"{n % 17},{n % 5}.5,{'yn'[n % 2]}\n" for n in range(200)))
    words = ("data=tabular", "data.path=rows.csv", "data.target=y")
    other = lab.run("train", "trainer.threads=1", "trainer.max_epochs=1", *words)
    table.unlink()
    before = sorted(lab.folder.rglob("*"))
    names = [str(run.path.relative_to(lab.folder)) for run in (small, other)]
    done = lab("benchmark", *names, "-n", "6", "--batch", "4,1", "--threads", "1", "-o", "figures.json", "--json")
    assert done.code == 0, done.err
    assert sorted(lab.folder.rglob("*")) == sorted([*before, lab.folder / "figures.json"])
    content = done.json
    assert content == json.loads((lab.folder / "figures.json").read_text())
    assert (content["batches"], content["threads"], content["calls"]) == ([1, 4], [1], 6)
    first, second = content["runs"]
    assert [first["run"], second["run"]] == names
    assert first["rows"] == "val" and second["rows"] == "made"
    assert len(second["notes"]) == 1
    assert second["notes"][0].startswith("timed on rows made from its spec, since its data is not at hand: ")
    assert first["bytes"] == (small.path / "model.safetensors").stat().st_size
    assert first["parameters"] > 0 and first["macs"] > 0 and first["load_ms"] > 0
    for engine in ("torch", "onnxruntime"):
        assert set(first["latency"]["1"][engine]) == {"1", "4"}
        assert first["throughput"]["1"][engine] > 0
        assert second["ratio"]["latency"]["1"][engine]["torch"]["4"] == pytest.approx(
            first["latency"]["1"]["torch"]["4"]["median_ms"] / second["latency"]["1"][engine]["4"]["median_ms"]
        )
    assert first["ratio"]["parameters"] == 1.0
    assert second["ratio"]["bytes"] == first["bytes"] / second["bytes"]
    assert "timing 4 nets on 1 thread" in done.err.splitlines()


def test_an_export_is_measured_beside_its_run(lab: Lab) -> None:
    made = lab.train("model.hidden_dims=[16]", "trainer.max_epochs=1")
    forms = (("format=onnx",), ("format=torch_export",), ("format=safetensors",))
    exports = [lab.run("export", str(made.path), *words) for words in forms]
    names = [str(run.path.relative_to(lab.folder)) for run in (made, *exports)]
    done = lab("benchmark", *names, "-n", "3", "--batch", "1,4", "--threads", "1", "--json")
    assert done.code == 0, done.err
    engines = [list(one["latency"]["1"]) for one in done.json["runs"]]
    assert engines == [["torch", "onnxruntime"], ["onnxruntime"], ["torch"], ["torch"]]
    assert all(one["bytes"] > 0 and one["macs"] == done.json["runs"][0]["macs"] for one in done.json["runs"])


def test_what_cannot_be_measured_is_a_sentence(lab: Lab) -> None:
    made = lab.train("trainer.max_epochs=1")
    name = str(made.path.relative_to(lab.folder))
    (lab.folder / "there.json").write_text("{}")
    assert lab.sentence(2, "benchmark", name, name) == f"`{name}` is named twice; name each run once"
    assert lab.sentence(2, "benchmark", name, "--batch", "0") == (
        "`--batch` must be whole numbers of 1 or more such as `1,64`, got '0'"
    )
    assert lab.sentence(2, "benchmark", name, "-o", "there.json") == "`there.json` exists; pass `--force` to replace it"
    assert lab.sentence(2, "benchmark", name, "-o", "x.csv") == (
        "cannot write `x.csv`: the figures are .json; e.g. `-o x.json`"
    )
    assert lab.sentence(2, "benchmark", name, "-o", "no/x.json") == (
        "cannot write `no/x.json`: there is no directory `no`"
    )
    (made.path / "model.safetensors").unlink()
    assert lab.sentence(4, "benchmark", name) == (
        "`model.safetensors` is missing from its run; restore it or run again"
    )


def test_all_threads_are_those_that_the_process_may_use() -> None:
    assert benchmarking.whole_numbers("all,1", "--threads", 8) == (1, 8)
    assert benchmarking.whole_numbers("1,all", "--threads", 1) == (1,)
    for wrong in ("", "1,,2", "-1", "x", "1.5"):
        with pytest.raises(UsageError):
            benchmarking.whole_numbers(wrong, "--batch")
    with pytest.raises(UsageError) as told:
        benchmarking.whole_numbers("many", "--threads", 2)
    assert str(told.value) == "`--threads` must be whole numbers of 1 or more such as `1` or `1,all`, got 'many'"


def test_a_folder_is_no_file_for_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.json").mkdir()
    with pytest.raises(UsageError) as told:
        benchmarking.check_out(Path("out.json"), force=True)
    assert str(told.value) == "cannot write `out.json`: it is a directory; name a file in it"
