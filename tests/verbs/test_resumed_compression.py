"""`prune --resume` and `quantize --resume`: a killed compression ends with the bits of one that was never disturbed."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from trainctl.run.run import Run
from trainctl.verbs.restore import WEIGHTS
from trainctl.verbs.rounds import FOLDER

LITTLE = ("measure.calls=5", "measure.seconds=0.05", "measure.bootstrap=0")
# everything that has state: dropout, a schedule by steps, a mask that grows, rounds, a teacher, a range that follows
WAYS = {
    "gradual zeros": ("prune", "compressor=magnitude", "trainer.max_epochs=12"),
    "zeros at once": ("prune", "compressor=nm", "trainer.max_epochs=12", "distill=true"),
    "channels in rounds": (
        "prune", "compressor=channels", "compressor.amount=0.6", "compressor.rounds=3", "trainer.max_epochs=24",
        "distill=true",
    ),
    "a search": ("prune", "compressor=magnitude", "trainer.max_epochs=6", "--max-drop", "0.3"),
    "trained roundings": ("quantize", "compressor=qat", "trainer.max_epochs=12"),
}  # fmt: skip


def parent(lab: Any) -> Run:
    """A run with dropout and a schedule, slow enough to be hit in the middle of an epoch."""
    words = ("data.rows=4000", "model.hidden_dims=[64,64]", "model.dropout=0.2", "scheduler=cosine")
    return lab.train(*words, "trainer.accumulate_grad_batches=2")


def shipped(run: Run) -> dict[str, bytes]:
    """The files that ship of a run."""
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name in (WEIGHTS, "model.onnx")}


def wait_for_epoch(folder: Path, epoch: int, started: Any) -> None:
    deadline = time.monotonic() + 120
    while not any(f'"epoch":{epoch}' in path.read_text().replace(" ", "") for path in folder.rglob("metrics.jsonl")):
        assert time.monotonic() < deadline, started.err.read_text(encoding="utf-8")
        time.sleep(0.01)


def test_after_ctrl_c_pruning_goes_on(lab: Any) -> None:
    trained = parent(lab)
    words = (str(trained.path), *WAYS["gradual zeros"][1:], *LITTLE)
    whole = lab.run("prune", *words)
    started = lab.start("prune", *words)
    folder = lab.folder / "runs" / "prune"
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    (path,) = (path for path in folder.iterdir() if path.name != whole.path.name)
    wait_for_epoch(path, 3, started)
    started.send(signal.SIGINT)
    done = started.wait()
    shown = path.relative_to(lab.folder)
    assert done.code == 130
    last = done.err.splitlines()[-1]
    assert last.startswith("trainctl: error: stopped by SIGINT at epoch ")
    assert last.endswith(f"; resume with `trainctl prune --resume {shown}`")
    assert f"next: trainctl prune --resume {shown}" in lab("show", str(path)).out
    assert lab.sentence(4, "quantize", str(path)) == (
        f"`{shown}` was stopped; `quantize` needs a completed run; resume it with `trainctl prune --resume {shown}`"
    )
    alone = "a resumed run keeps its parent, config and budget: give `prune --resume RUN` alone"
    assert lab.sentence(2, "prune", "--resume", str(path), "--max-drop", "0.1") == alone
    resumed = lab("prune", "--resume", "latest", "--json")
    assert resumed.code == 0 and "resuming from `last`: " in resumed.err, resumed.err
    run = Run.open(lab.folder / resumed.json["run"])
    assert run.path.resolve() == path.resolve() and shipped(run) == shipped(whole)
    assert run.metrics == whole.metrics and not (path / FOLDER).exists()
    assert [row["epoch"] for row in run.metrics_log()] == list(range(1, 13))
    again = lab("prune", "--resume", str(path))
    assert again.code == 0 and "warning: run is already complete" in again.err


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments_it_ends_with_the_same_bits(lab: Any, way: str) -> None:
    trained, moments = parent(lab), random.Random(0)
    verb, *words = WAYS[way]
    whole = lab.run(verb, str(trained.path), *words, *LITTLE)
    folder = lab.folder / "runs" / verb
    known, codes = set(folder.iterdir()), []
    for attempt in range(9):
        begun = [path for path in folder.iterdir() if path not in known and (path / "run.json").exists()]
        rest = ["--resume", str(begun[0])] if begun else [str(trained.path), *words, *LITTLE]
        started = lab.start(verb, *rest)
        started.wait_for("data: ")
        if attempt < 8:
            time.sleep(moments.uniform(0.2, 1.5))
            started.send(signal.SIGKILL)
        codes.append(started.wait().code)
        if codes[-1] == 0:
            break
        assert codes[-1] == -signal.SIGKILL
    assert codes[-1] == 0 and len(codes) > 2, codes
    (path,) = set(folder.iterdir()) - known
    run = Run.open(path)
    assert shipped(run) == shipped(whole)
    assert run.metrics == whole.metrics and run.record.get("gate") == whole.record.get("gate")
    assert [p.name for p in path.iterdir() if p.name.startswith(".tmp") or p.name == FOLDER] == []


def test_other_weights_than_before_begin_the_fine_tuning_anew(lab: Any) -> None:
    trained = parent(lab)
    words = (str(trained.path), "compressor=channels", "trainer.max_epochs=3", *LITTLE)
    whole = lab.run("prune", *words)
    record = json.loads((whole.path / "run.json").read_text()) | {"status": "stopped"}
    (whole.path / "run.json").write_text(json.dumps(record))
    (whole.path / FOLDER).mkdir()
    (whole.path / FOLDER / "0.json").write_text('{"start": "of another machine"}')
    before = shipped(whole)
    resumed = lab("prune", "--resume", str(whole.path))
    assert resumed.code == 0, resumed.err
    assert "fine-tuning begins anew: it was begun with other weights than this machine makes" in resumed.err
    assert shipped(whole) == before


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(lab: Any) -> None:
    table = lab.folder / "table.csv"
    rows = [f"{i % 7},{'xy'[i % 2]}\n" for i in range(300)]
    table.write_text("a,b\n" + "".join(rows))
    trained = lab.run("train", "data=tabular", f"data.path={table}", "data.target=b", "trainer.max_epochs=1")
    pruned = lab.run("prune", str(trained.path), "trainer.max_epochs=1", *LITTLE)
    record = json.loads((pruned.path / "run.json").read_text()) | {"status": "stopped"}
    (pruned.path / "run.json").write_text(json.dumps(record))
    table.write_text("a,b\n" + "".join(rows[:200]))
    said = lab.sentence(3, "prune", "--resume", str(pruned.path))
    assert said.startswith("data differs from the run's (") and said.endswith("); `trainctl prune` again")
    assert json.loads((pruned.path / "run.json").read_text()) == record
    damaged = {key: value for key, value in record.items() if key != "parent"}
    (pruned.path / "run.json").write_text(json.dumps(damaged))
    shown = pruned.path.relative_to(lab.folder)
    assert lab.sentence(4, "prune", "--resume", str(pruned.path)) == (
        f"`{shown}/run.json` is damaged: it lacks `parent` or `budget`; `trainctl prune` again"
    )


def test_what_a_compression_that_failed_holds_is_not_taken_for_its_result(lab: Any) -> None:
    pruned = lab.run("prune", str(parent(lab).path), "trainer.max_epochs=1", *LITTLE)
    record = json.loads((pruned.path / "run.json").read_text()) | {"status": "failed"}
    (pruned.path / "run.json").write_text(json.dumps(record))
    shown = pruned.path.relative_to(lab.folder)
    said = f"`{shown}` failed; its weights may not be what would ship; resume it with `trainctl prune --resume {shown}`"
    assert lab.sentence(4, "evaluate", str(pruned.path)) == said
    assert lab.sentence(4, "export", str(pruned.path)) == said
