"""compress: its points are ordinary runs, the front is what no point beats, a budget that none meets is exit code 8."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainctl import compress, pareto
from trainctl.budgets import Budget
from trainctl.errors import RunError
from trainctl.pace import Tried
from trainctl.run import machine
from trainctl.run.run import Run
from trainctl.verbs.restore import WEIGHTS

QUICK = (
    "measure.calls=10", "measure.seconds=0.05", "measure.bootstrap=0", "compress.amounts=[0.5]", "compress.epochs=1",
    "compress.quantizers=[int8_dynamic]",
)  # fmt: skip


@pytest.mark.slow
def test_points_are_runs_and_the_best_is_named(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[64,64]")
    more = ("compress.amounts=[0.3,0.5,0.7]", "compress.max_time=1s")  # the middle one uses the time up
    done = lab("compress", str(trained.path), *QUICK, *more, "--max-drop", "0.5", "--json")
    assert done.code == 0, done.err
    run = Run.open(lab.folder / done.json["run"])
    content = json.loads((run.path / "compress.json").read_text())
    assert done.json["compress"] == content and not content["failed"]
    assert [point["what"] for point in content["points"]] == [
        "the run itself", "int8_dynamic", "int4_weight_only", "channels 0.5 of the multiply-adds",
        "channels 0.5, int8_dynamic",
    ]  # fmt: skip
    best = run.path / run.record["best"]
    assert content["points"][content["best"]]["run"] == str(best.relative_to(lab.folder))
    assert content["points"][content["best"]]["front"]
    assert {row["layer"] for row in content["sensitivity"]} == {"1", "3", "5"}
    assert trained.test_looks() == 1  # its own: the search sees val alone
    assert not any(name.startswith("test/") for name in run.metrics)
    evaluated = lab("evaluate", str(best), "evaluate.bootstrap=0", "split=val", "--json").json["metrics"]
    assert evaluated["val/accuracy"] == Run.open(best).metrics["val/accuracy"] == run.metrics["val/accuracy"]
    page = (run.path / "report.html").read_text()
    assert "Points" in page and "Sensitivity" in page


@pytest.mark.slow
def test_a_point_is_the_run_that_prune_alone_makes(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[64,64]", "model.dropout=0.1", "trainer.max_epochs=4")
    words = (*QUICK[:3], "compress.amounts=[0.5,0.8]", "compress.quantizers=[]", "compress.max_time=10m",
             "compress.four_bits=false")  # fmt: skip
    done = lab("compress", str(trained.path), *words, "--max-drop", "0.9", "--json")
    assert done.code == 0, done.err
    points = [point for point in done.json["compress"]["points"] if "channels" in point["what"]]
    assert [point["what"].partition(" of the multiply-adds")[::2] for point in points] == [
        ("channels 0.5", ""), ("channels 0.8", ""), ("channels 0.8", ", 4 epochs"),
    ]  # fmt: skip
    for point in points[1:]:  # the first filled what the search remembers of the run
        found = Run.open(lab.folder / point["run"])
        alone = lab("prune", str(trained.path), *found.record["overrides"], "--json")
        assert alone.code == 0, alone.err
        made = Run.open(lab.folder / alone.json["run"])
        assert (made.path / WEIGHTS).read_bytes() == (found.path / WEIGHTS).read_bytes()
        assert made.metrics == found.metrics


@pytest.mark.slow
def test_a_budget_that_no_point_meets_and_a_point_that_fails_are_said(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[32]")
    words = (*QUICK[:5], "compress.quantizers=[int8_dynamic,float8]", "--target", "bytes=500x")
    done = lab("compress", str(trained.path), *words)
    assert done.code == 8
    assert "bytes fell " in done.err.splitlines()[-1] and "the closest point is kept in `runs/compress/" in done.err
    assert "warning: float8 failed: " in done.out and "int8_dynamic" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_search_goes_on_with_the_points_that_it_lacks(lab: Any, signum: int) -> None:
    trained = lab.train("model.hidden_dims=[64,64]", "trainer.max_epochs=2")
    started = lab.start("compress", str(trained.path), *QUICK, "compress.max_time=10m", "--max-drop", "0.5")
    deadline = time.monotonic() + 120
    while not list(lab.folder.glob("runs/compress/*/trials/2/metrics.jsonl")):
        assert time.monotonic() < deadline, started.err.read_text(encoding="utf-8")
        time.sleep(0.02)
    started.send(signum)
    done = started.wait()
    (path,) = lab.folder.glob("runs/compress/*")
    shown = path.relative_to(lab.folder)
    if signum == signal.SIGINT:
        assert done.code == 130
        last = done.err.splitlines()[-1]
        assert last.startswith("trainctl: error: stopped ")
        assert last.endswith(f"; resume with `trainctl compress --resume {shown}`")
    assert f"next: trainctl compress --resume {shown}" in lab("show", "latest:compress").out
    kept = {number: (path / "trials" / number / "run.json").stat().st_mtime_ns for number in ("0", "1")}
    resumed = lab("compress", "--resume", "latest", "--json")
    assert resumed.code == 0, resumed.err
    content = resumed.json["compress"]
    assert content["points"][-1]["what"] == "channels 0.5, int4_weight_only"
    assert len(content["points"]) == 6 and content["budget"]["max_drop"] == 0.5
    assert kept == {number: (path / "trials" / number / "run.json").stat().st_mtime_ns for number in kept}
    assert resumed.err.count("it was made before: ") == 2
    assert all(Run.open(lab.folder / point["run"]).status == "completed" for point in content["points"])
    again = lab("compress", "--resume", "latest")
    assert again.code == 0 and "warning: the search is complete already" in again.err


@pytest.mark.slow
def test_a_search_that_cannot_go_on_keeps_its_points(lab: Any) -> None:
    table = lab.folder / "table.csv"
    table.write_text("a,b\n" + "".join(f"{i % 7},{'xy'[i % 2]}\n" for i in range(300)))
    trained = lab.run("train", "data=tabular", f"data.path={table}", "data.target=b", "trainer.max_epochs=1")
    done = lab("compress", str(trained.path), *QUICK, "compress.amounts=[]", "compress.four_bits=false", "--json")
    assert done.code == 0, done.err
    path = lab.folder / done.json["run"]
    record = json.loads((path / "run.json").read_text()) | {"status": "stopped"}
    (path / "run.json").write_text(json.dumps(record))
    table.rename(lab.folder / "moved.csv")
    assert lab("compress", "--resume", "latest").code == 3
    assert json.loads((path / "run.json").read_text()) == record and (path / "trials" / "0" / "run.json").exists()
    (lab.folder / "moved.csv").rename(table)
    damaged = path / "trials" / "0" / "compression.json"
    damaged.write_text(damaged.read_text()[:100])
    resumed = lab("compress", "--resume", "latest", "--json")
    assert resumed.code == 0 and "it was made before" not in resumed.err, resumed.err
    assert len(resumed.json["compress"]["points"]) == 2


def test_what_a_resumed_search_cannot_be_given(lab: Any) -> None:
    trained = lab.train("trainer.max_epochs=1")
    assert lab.sentence(2, "compress") == "missing argument 'RUN'; see `trainctl compress --help`"
    alone = "a resumed run keeps its parent, config and budget: give `compress --resume RUN` alone"
    assert lab.sentence(2, "compress", "--resume", "x", "--max-drop", "0.1") == alone
    assert lab.sentence(2, "compress", "measure.calls=3", "--resume", "x") == alone
    assert lab.sentence(4, "compress", "--resume", str(trained.path)).endswith(
        "is a run of `train`; name a `compress` run, as `latest:compress`"
    )


def test_a_search_whose_directory_is_gone_ends(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(path=tmp_path / "gone", config={})
    search = compress.Search(run, None, [], None, Budget(0.01))  # type: ignore[arg-type]
    with pytest.raises(RunError, match="^run dir `.*gone` vanished; stopping$"):
        search._child("quantize", run, [], "int8")
    assert not run.path.exists()


def test_layers_that_4_bits_spoil_get_8(tmp_path: Path) -> None:
    searched = SimpleNamespace(path=tmp_path, config={"compress": {"four_bits": True}})
    search = compress.Search(searched, None, [], None, Budget(0.01))  # type: ignore[arg-type]
    given: list[Any] = []
    search._child = lambda *words: given.append(words)  # type: ignore[method-assign]
    rows = [
        {"layer": "a", "kind": "Linear", "share": 0.5, "drop": {"int4": 0.004}},
        {"layer": "12", "kind": "Linear", "share": 0.1, "drop": {"int4": 0.006}},
        {"layer": "c", "kind": "Conv2d", "share": 0.4, "drop": {"int4": 0.0}},
    ]
    run: Any = "the run"
    search._four_bits(rows, run)
    words = ["compressor=int4_weight_only", "compressor.eight=['12']"]
    assert given == [("quantize", run, words, "int4_weight_only, 1 of 2 layers in 8 bits")]
    search.four_bits_s = 10.0
    search._four_bits(rows, run, "channels 0.5, ", time.perf_counter() + 9)  # as long as the one before: too late
    assert len(given) == 1
    search._four_bits(rows, run, "channels 0.5, ", time.perf_counter() + 99)
    assert given[1] == ("quantize", run, words, "channels 0.5, int4_weight_only, 1 of 2 layers in 8 bits")
    rows[0]["drop"]["int4"] = 0.006
    search._four_bits(rows, run)  # too few weights are left for it
    assert len(given) == 2


def test_time_that_is_left_goes_into_a_longer_fine_tuning_of_the_hardest(tmp_path: Path) -> None:
    config = {"compress": {"amounts": [0.3, 0.5, 0.9], "epochs": None}, "trainer": {"max_epochs": 6}}

    def searched(deadline: float, **given: Any) -> list[tuple[float, int]]:
        run: Any = SimpleNamespace(path=tmp_path, config={**config, "compress": {**config["compress"], **given}})
        search = compress.Search(run, None, [], None, Budget(0.01))  # type: ignore[arg-type]

        def pruned(amount: float, epochs: int, *_: Any) -> float:
            fitting = 100.0 * epochs * (1 - amount)
            search.points.append((SimpleNamespace(record={}), ""))  # type: ignore[arg-type]
            search.pace.tried.append(Tried(amount, epochs, 7.0 + fitting, fitting))
            return amount / 70  # 0.5 is within

        search._pruned = pruned  # type: ignore[method-assign]
        search._prune(time.perf_counter() + deadline, [])
        return [(one.amount, one.epochs) for one in search.pace.tried]

    assert searched(1000.0) == [(0.5, 3), (0.9, 3), (0.5, 6)]
    assert searched(300.0) == [(0.5, 3), (0.9, 3), (0.5, 5)], "all epochs would take 307 s"
    assert searched(230.0) == [(0.5, 3), (0.9, 3)], "four epochs are no longer fine-tuning to speak of"
    assert searched(30.0) == [(0.5, 3), (0.9, 2)], "the first is made at any rate, the next would take 37 s"
    assert searched(20.0) == [(0.5, 3)]
    assert searched(1000.0, epochs=2) == [(0.5, 2), (0.9, 2)], "what was asked for"
    assert searched(1000.0, amounts=[0.9]) == [(0.9, 3), (0.9, 6)], "none is within, with more it may be"
    assert searched(1000.0, amounts=[]) == []
    (tmp_path / "trials" / "1").mkdir(parents=True)
    Run.create(tmp_path / "trials" / "1", "prune", {}, ["compressor.amount=0.9", "trainer.max_epochs=3"], facts={})
    assert searched(20.0) == [(0.5, 3), (0.9, 3)], "begun before an interruption"
    Run.create(tmp_path / "trials" / "1", "quantize", {}, ["compressor=int8"], facts={})
    assert searched(1000.0) == [(0.5, 3)], "there was no time for it before the interruption"


@pytest.mark.slow
def test_a_layer_whose_name_is_a_number_can_be_kept_whole(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[64,64]", "trainer.max_epochs=1")
    words = (*QUICK[:3], "finetune=false", f"compressor.exclude={compress._list(['3'])}")
    done = lab("prune", str(trained.path), *words, "--json")
    assert done.code == 0, done.err
    shapes = Run.open(lab.folder / done.json["run"]).config["model"]["steps"][0]["plan"]
    assert "1" in json.dumps(shapes) and done.json["metrics"]


def test_a_run_that_did_not_end_well_is_refused(lab: Any) -> None:
    trained = lab.train("trainer.max_epochs=1")
    shown, record = str(trained.path.relative_to(lab.folder)), json.loads((trained.path / "run.json").read_text())
    (trained.path / "run.json").write_text(json.dumps(record | {"status": "failed"}))
    assert lab.sentence(4, "prune", shown) == (
        f"`{shown}` failed; `prune` needs a completed run; resume it with `trainctl train --resume {shown}`"
    )
    alive = record | machine.process() | {"status": "running"}
    (trained.path / "run.json").write_text(json.dumps(alive))
    assert lab.sentence(4, "quantize", shown) == f"`{shown}` is still running; `quantize` needs a completed run"
    assert not (lab.folder / "runs" / "prune").exists() and not (lab.folder / "runs" / "quantize").exists()


def test_a_point_beats_another_only_where_it_is_worse_in_nothing() -> None:
    def point(drop: float, size: int, ms: float) -> dict[str, Any]:
        return {"figures": {"drop": drop, "latency_ms": ms}, "bytes": size}

    assert pareto.dominates(point(0, 10, 1), point(0, 10, 2))
    assert not pareto.dominates(point(0, 10, 1), point(0, 10, 1))
    assert not pareto.dominates(point(0.1, 5, 1), point(0, 10, 2))


def test_the_best_is_the_smallest_and_fastest_and_of_those_alike_the_one_that_drops_least() -> None:
    def point(drop: float, size: int, ms: float, *missed: str) -> dict[str, Any]:
        return {"figures": {"drop": drop}, "bytes": size, "latency_ms": {"1": ms, "64": ms}, "missed": missed}

    plain, small = point(0.0, 400, 4.0), point(0.009, 100, 1.0)
    assert pareto.best([plain, small]) is small
    longer = point(0.001, 100, 1.03)  # the same size; times vary
    assert pareto.best([plain, small, longer]) is longer
    assert pareto.best([small, point(0.001, 120, 1.0)]) is small
    assert pareto.best([point(0.1, 10, 1.0, "the drop"), plain]) is plain
    missing = point(0.02, 10, 1.0, "the drop")
    assert pareto.best([point(0.1, 10, 1.0, "the drop"), missing]) is missing and pareto.best([]) is None


@pytest.mark.parametrize("verb, word, sentence", [
    ("prune", "compressor=int8_static", "`int8_static` is a compressor of `trainctl quantize`; use that verb"),
    ("prune", "compressor.amount=1", "`compressor.amount` must be > 0 and < 1, got 1"),
    ("prune", "compressor=chanels", "no `compressor` option `chanels`; have: "),
    ("prune", "calibration.split=test", "`calibration.split` must be train, since the test split would no longer be "
                                        "unseen, got the text 'test'"),
    ("prune", "objective=val/acc", "`objective=val/acc` is not produced on val; have: val/loss, val/accuracy, "),
    ("compress", "compress.amounts=abc", "`compress.amounts` must be a list of numbers > 0 and < 1 such as [0.5,0.75], "
                                         "got the text 'abc'"),
    ("compress", "compress.amounts=[2]", "`compress.amounts` must be a list of numbers > 0 and < 1 such as [0.5,0.75], "
                                         "got [2]"),
    ("compress", "compress.quantizers=[int9]", "no `compressor` option `int9`; have: "),
    ("compress", "compress.quantizers=[nm]", "`compress.quantizers`: `nm` prunes; name methods of `quantize`, such as "
                                             "int8"),
])  # fmt: skip
def test_what_cannot_be_done_leaves_nothing(lab: Any, verb: str, word: str, sentence: str) -> None:
    trained = lab.train("trainer.max_epochs=1")
    assert lab.sentence(2, verb, str(trained.path), word).startswith(sentence)
    assert not list((lab.folder / "runs").glob(f"{verb}/*"))


def test_a_search_over_an_estimator_is_refused(lab: Any) -> None:
    grown = lab.run("train", "data=synthetic", "data.rows=300", "model=tree", "trainer.threads=1")
    assert lab.sentence(2, "compress", str(grown.path)) == (
        "`compress` is for nets, and the run's Tree is an estimator without weights; prune it with `trainctl prune RUN "
        "compressor=trees`"
    )
    assert not list((lab.folder / "runs").glob("compress/*"))
