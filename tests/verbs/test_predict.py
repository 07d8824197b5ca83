from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from trainctl.run.run import Run

COLUMNS = ["row", "prediction", "probability_no", "probability_yes"]


def refused(result: tuple[int, str, str]) -> tuple[int, str]:
    """Exit code and the last line of stderr without its prefix."""
    return result[0], result[2].strip().splitlines()[-1].removeprefix("trainctl: error: ")


def load(path: Path) -> pl.DataFrame:
    readers: dict[str, Any] = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}
    return readers[path.suffix](path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_labels_and_probabilities_in_each_format(folder, classes: Run, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    run = folder.done("predict", classes.path, "new.csv", "-o", out, "predict.rows=40")
    table = load(out)
    assert table.columns == COLUMNS and table["row"].to_list() == list(range(90))
    assert ((table["probability_yes"] > 0.5) == (table["prediction"] == "yes")).all()
    assert (run.record["rows"], run.record["outputs"]) == (90, {"predictions": str(out)})
    measured = folder.done("evaluate", classes.path, "data.path=new.csv", "evaluate.bootstrap=0")
    kept = pl.read_parquet(measured.path / "predictions.parquet")
    assert table["prediction"].to_list() == kept["prediction"].to_list()
    assert np.allclose(table["probability_yes"], kept["probability_yes"], atol=1e-6)


def test_values_of_a_number_go_into_the_run_by_default(folder, numbers: Run) -> None:
    run = folder.done("predict", numbers.path, "new.csv")
    table = pl.read_parquet(run.path / "predictions.parquet")
    assert table.columns == ["row", "prediction"] and len(table) == 90
    assert run.record["artifacts"]["predictions"] == "predictions.parquet"
    assert table["prediction"].is_between(0, 300).all()


def test_the_target_is_not_needed_and_unknown_columns_are_listed_once(folder, classes: Run, tmp_path: Path) -> None:
    table = pl.read_csv(folder.path / "new.csv").drop("rich").with_columns(shoe=pl.lit(42), hat=pl.lit("x"))
    table.write_csv(tmp_path / "wide.csv")
    code, _, err = folder("predict", classes.path, tmp_path / "wide.csv", "-o", tmp_path / "o.csv", "predict.rows=20")
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].endswith("shoe, hat")


def test_rows_of_missing_cells_keep_their_numbers_as_in_parquet(folder, classes: Run, tmp_path: Path) -> None:
    (tmp_path / "holes.csv").write_text("age,wage,sex\n30,10,f\n,,\n\n?,NA,NULL\n40,30,m\n\n", encoding="utf-8")
    ages, wages = [30, None, None, 40], [10.0, None, None, 30.0]
    pl.DataFrame({"age": ages, "wage": wages, "sex": ["f", None, None, "m"]}).write_parquet(tmp_path / "holes.parquet")
    tables = []
    for name in ("holes.csv", "holes.parquet"):
        folder.done("predict", classes.path, tmp_path / name, "-o", tmp_path / "o.csv", "predict.rows=3", "--force")
        tables.append(load(tmp_path / "o.csv"))
    assert tables[0]["row"].to_list() == [0, 1, 2, 3]
    assert tables[0].rows() == tables[1].rows()
    assert tables[0]["probability_yes"][1] == tables[0]["probability_yes"][2]
    assert tables[0]["prediction"][3] == "yes" and tables[0]["prediction"][0] == "no"


def test_a_missing_column_is_refused_by_name(folder, classes: Run, tmp_path: Path) -> None:
    pl.read_csv(folder.path / "new.csv").drop("wage").write_csv(tmp_path / "narrow.csv")
    code, sentence = refused(folder("predict", classes.path, tmp_path / "narrow.csv", "-o", tmp_path / "o.csv"))
    assert code == 3 and "no column `wage`" in sentence
    assert not (tmp_path / "o.csv").exists()


def test_what_cannot_be_written_is_refused_before_a_run_is_made(folder, classes: Run, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine", encoding="utf-8")
    (tmp_path / "dir.csv").mkdir()
    before = sorted((folder.path / "runs").glob("predict/*"))
    new, formats = folder.path / "new.csv", "predictions are .csv, .parquet or .jsonl"
    for file, out, words, code, sentence in (
        (new, "there.csv", (), 2, f"`{tmp_path}/there.csv` exists; pass `--force` to replace it"),
        (new, "o.txt", (), 2, f"cannot write `{tmp_path}/o.txt`: {formats}; e.g. `-o o.csv`"),
        (new, "dir.csv", (), 2, f"cannot write `{tmp_path}/dir.csv`: it is a directory; name a file in it"),
        (new, "no/o.csv", (), 2, f"cannot write `{tmp_path}/no/o.csv`: there is no directory `{tmp_path}/no`"),
        (new, new, ("--force",), 2, "`new.csv` is the file to predict; name another one with `-o`"),
        (tmp_path / "x.csv", "o.csv", (), 3, f"cannot read `{tmp_path}/x.csv`: no such file or folder"),
    ):
        assert refused(folder("predict", classes.path, file, "-o", tmp_path / out, *words)) == (code, sentence)
    assert sorted((folder.path / "runs").glob("predict/*")) == before
    assert (tmp_path / "there.csv").read_text(encoding="utf-8") == "mine"
    folder.done("predict", classes.path, new, "-o", tmp_path / "there.csv", "--force")
    assert len(load(tmp_path / "there.csv")) == 90


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_bad_row_late_in_the_file_leaves_nothing_behind(folder, classes: Run, tmp_path: Path, suffix: str) -> None:
    lines = (folder.path / "new.csv").read_text(encoding="utf-8").splitlines()
    lines[80] = "many" + lines[80][lines[80].index(",") :]
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = folder("predict", classes.path, tmp_path / "bad.csv", "-o", tmp_path / f"o{suffix}", "predict.rows=20")
    code, sentence = refused(result)
    assert code == 3 and "`age`" in sentence and "many" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_copied_columns_cannot_become_formulas(folder, classes: Run, tmp_path: Path) -> None:
    table = pl.read_csv(folder.path / "new.csv")[:5]
    notes = ["=1+1", "@x", "-12.5", "-a", "fine"]
    table.with_columns(pl.Series("=note", notes)).write_csv(tmp_path / "in.csv")
    folder.done("predict", classes.path, tmp_path / "in.csv", "-o", tmp_path / "o.csv", "predict.keep=['=note']")
    text = pl.read_csv(tmp_path / "o.csv", infer_schema=False)
    assert text["'=note"].to_list() == ["'=1+1", "'@x", "-12.5", "'-a", "fine"]
    folder.done("predict", classes.path, tmp_path / "in.csv", "-o", tmp_path / "o.jsonl", "predict.keep=['=note']")
    assert [json.loads(line)["=note"] for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()] == notes


def test_copied_columns_that_are_not_there_or_are_taken(folder, classes: Run, tmp_path: Path) -> None:
    table = pl.read_csv(folder.path / "new.csv").with_columns(prediction=pl.lit("mine"))
    path = tmp_path / "in.csv"
    table.write_csv(path)
    assert refused(folder("predict", classes.path, path, "predict.keep=[agee]")) == (
        3,
        f"`predict.keep`: no column `agee` in `{path}`; did you mean `age`?",
    )
    assert refused(folder("predict", classes.path, path, "predict.keep=[prediction]")) == (
        2,
        f"`predict.keep`: a column `prediction` is made by predict; rename it in `{path}`",
    )


def test_a_threshold_moves_the_labels(folder, classes: Run, tmp_path: Path) -> None:
    folder.done("predict", classes.path, "new.csv", "-o", tmp_path / "o.csv", "predict.threshold=0.2")
    table = load(tmp_path / "o.csv")
    assert ((table["probability_yes"] >= 0.2) == (table["prediction"] == "yes")).all()
    assert (table["probability_yes"] < 0.5).any()


def test_a_folder_of_images(folder, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(level - 40, level + 40, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    words = ("data=image_folder", f"data.path={tmp_path / 'pictures'}", "model=linear", "trainer.max_epochs=3")
    run = folder.done("train", *words, "trainer.threads=1", "optimizer.lr=0.05")
    folder.done("predict", run.path, tmp_path / "pictures" / "light", "-o", tmp_path / "o.csv")
    table = load(tmp_path / "o.csv")
    assert table.columns[0] == "file" and len(table) == 20 and "3.png" in table["file"].to_list()
    assert (table["prediction"] == "light").mean() > 0.9


MEASURE = """
import sys
from pathlib import Path
from trainctl.cli.app import run
from trainctl.data import blocks
blocks.BLOCK_BYTES = 1 << 17  # so that the small file has several, too
sizes = []
for name in ("small.csv", "large.csv"):
    assert run(["predict", sys.argv[1], name, "-o", name + ".out.csv", "-q"]) == 0
    # not getrusage: its peak is inherited from the process that started this one
    sizes.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
print((sizes[1] - sizes[0]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(folder, classes: Run, tmp_path: Path) -> None:
    header, *lines = (folder.path / "new.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "small.csv").write_text(header + "".join(lines) * 200, encoding="utf-8")
    (tmp_path / "large.csv").write_text(header + "".join(lines) * 2_000, encoding="utf-8")  # 180 000 rows
    command = [sys.executable, "-c", MEASURE, str(classes.path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 15, done.stdout  # MB
    assert (tmp_path / "large.csv.out.csv").read_bytes().count(b"\n") == 180_001
