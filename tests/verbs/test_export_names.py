"""Columns may have any names in an exported file, also those that the exporter gives to its own edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.verbs.exports import predicted, stranger
from trainctl.exporting.columns import apart

NUMBERS = ("axis", "numbers", "column0", "x", "/", "//1/x", "share", "batch", "known1_float")
TEXTS, WORDS = ("codes", "known1", "1/x"), ("y", "/axis")


def write(path: Path, count: int, seed: int) -> Path:
    """A table whose target depends on the column `axis` and the yes and no of the column `y`."""
    draw = np.random.default_rng(seed)
    lines = [",".join((*NUMBERS, *TEXTS, *WORDS, "target"))]
    for values in draw.normal(size=(count, len(NUMBERS))):
        texts = draw.choice(["a", "b", "c", ""], len(TEXTS)).tolist()
        words = draw.choice(["yes", "no"], len(WORDS)).tolist()
        target = "up" if values[0] + (words[0] == "yes") > 0.5 else "down"
        lines.append(",".join((*(f"{value:.4f}" for value in values), *texts, *words, target)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_what_no_name_begins_with_is_found() -> None:
    assert apart([]) == apart(["x", "a/b"]) == "/"
    assert apart(["/", "a"]) == apart(["/axis"]) == "//"
    assert apart(["///", "/", "//1/x"]) == "////"


@pytest.mark.parametrize(
    ("model", "compressor"), [("tree", None), ("mlp", None), pytest.param("mlp", "int8_static", marks=pytest.mark.slow)]
)
def test_columns_named_like_edges_of_the_graph_go_in_by_their_names(
    folder, tmp_path: Path, model: str, compressor: str | None
) -> None:
    table, new = write(tmp_path / "table.csv", 400, 0), write(tmp_path / "new.csv", 60, 1)
    words = ("data=tabular", f"data.path={table}", "data.target=target", "trainer.threads=1", f"model={model}")
    few = ("model.hidden_dims=[32]", "optimizer.lr=0.01", "trainer.max_epochs=4") if model == "mlp" else ()
    run = folder.done("train", *words, *few)
    if compressor:
        run = folder.done("quantize", run.path, f"compressor={compressor}")
    made = folder.done("export", run.path, "preprocessing=true", "rows=50")
    expected = predicted(folder, run, new)
    assert np.abs(stranger(made.path / "model.onnx", new) - expected).max() < 1e-6
    assert expected.std(0).min() > 0.1
    assert [port["name"] for port in made.record["export"]["inputs"]] == [*NUMBERS, *TEXTS, *WORDS]
