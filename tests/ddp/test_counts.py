"""`trainer=ddp_sim` through the real command line: one directory, every row once, the same bits again.

Every rank of a command imports torch itself (three CPU seconds), so tests share runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.ddp.commands import WORK, only_run, record, rows, weights


def test_one_directory_and_nothing_but_the_runs_own_lines(undisturbed) -> None:
    folder, done = undisturbed
    run = only_run(folder)
    assert record(run)["status"] == "completed"
    assert not [path.name for path in run.iterdir() if path.name.startswith((".tmp", "rank"))]
    epochs = [f"epoch {k}/12  train/loss " for k in range(1, 13)]
    first = ["data: train 1051, val 225, test 225 rows", *epochs, "best: "]
    lines = done.err.splitlines()
    assert len(lines) == len(first) and all(map(str.startswith, lines, first)), done.err
    assert (run / "train.log").read_text(encoding="utf-8").count("epoch 3/12") == 1


def test_predictions_are_in_file_order_with_every_row_once(undisturbed) -> None:
    run = only_run(undisturbed[0])
    kept = pl.read_parquet(run / "predictions.parquet")["row"].to_list()
    assert len(kept) == 225 and kept == sorted(set(kept))
    assert record(run)["data"]["splits"]["test"]["rows"] == 225


@pytest.mark.slow
def test_evaluate_equals_one_process(undisturbed, forked) -> None:
    folder = undisturbed[0]
    words = ["evaluate", "latest:train", "evaluate.bootstrap=50", "--json"]
    shared = forked.run(*words, "trainer=ddp_sim", cwd=folder)
    alone = forked.run(*words, cwd=folder)
    assert (shared.code, alone.code) == (0, 0), shared.err + alone.err
    assert shared.json["metrics"] == pytest.approx(alone.json["metrics"], abs=1e-6)
    assert shared.json["intervals"].keys() == alone.json["intervals"].keys()
    kept = [pl.read_parquet(folder / done.json["run"] / "predictions.parquet") for done in (shared, alone)]
    assert kept[0]["row"].to_list() == kept[1]["row"].to_list()
    assert len(list((folder / "runs" / "evaluate").iterdir())) == 2


@pytest.mark.slow
def test_the_same_command_again_gives_the_same_bits_and_one_json_object(undisturbed, forked, tmp_path) -> None:
    done = forked.run(*WORK, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    one, other = only_run(undisturbed[0]), only_run(tmp_path)
    assert weights(one) == weights(other)
    assert rows(one) == rows(other)
    assert done.json["status"] == "completed" and done.json["run"] == f"runs/train/{other.name}"
    assert done.json["timing"]["steps_per_s"] > 0


@pytest.mark.slow
def test_any_number_of_rows_on_one_to_three_ranks(tmp_path) -> None:
    """1 to 40 rows through `trainer.test`, and a fit in which ranks have different numbers of validation rows."""
    script = Path(__file__).with_name("ranks.py")
    command = [sys.executable, script, tmp_path, "1", "2", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")}
    assert sorted(found) == ["1-0", "2-0", "2-1", "3-0", "3-1", "3-2"]
    alone = found["1-0"]["evaluated"]
    assert [alone[str(n)]["rows"] for n in range(1, 41)] == list(range(1, 41))
    for name, rank in found.items():
        assert rank["evaluated"].keys() == alone.keys()
        for count, figures in rank["evaluated"].items():
            assert figures == pytest.approx(alone[count], abs=1e-6), (name, count)
        assert rank["fitted"] == found[f"{name[0]}-0"]["fitted"]
    shards = found["2-0"]["fitted"]
    assert shards["sharded"] == pytest.approx(shards["whole"], abs=1e-5)
    assert shards["decayed"] == [2, 4]  # two matrices, though a shard is a vector


@pytest.mark.torture
@pytest.mark.parametrize("turn", range(20))
def test_twenty_runs_end_well(forked, tmp_path, turn) -> None:
    words = ["train", "data=synthetic", "data.rows=300", "trainer=ddp_sim", "trainer.max_epochs=2"]
    done = forked.run(*words, cwd=tmp_path)
    assert (done.code, "terminate" in done.err) == (0, False), done.err
