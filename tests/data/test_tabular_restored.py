"""What was fitted is saved, restored and used on new files, by column name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from trainctl.data.tabular import Tabular
from trainctl.errors import DataError

RANDOM = np.random.default_rng(0)


def table(rows: int = 300) -> dict[str, Any]:
    """Mixed columns and a target `label` in {no, yes}."""
    age = RANDOM.integers(18, 90, rows)
    return {
        "age": age,
        "income (EUR)": np.exp(RANDOM.normal(10, 1, rows)).round(2),
        "city": RANDOM.choice(["Köln", "Paris", "Łódź"], rows),
        "member": RANDOM.choice(["yes", "no"], rows),
        "label": np.where(age + RANDOM.normal(0, 5, rows) > 50, "yes", "no"),
    }


def save(folder: Path, columns: Any, name: str = "x.csv") -> str:
    pl.DataFrame(columns).write_csv(folder / name)
    return str(folder / name)


def write(folder: Path, text: str, name: str = "x.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[Tabular, Path]:
    """A fitted module of the mixed table, and where it was saved."""
    data = Tabular(save(tmp_path, table()), "label")
    data.setup()
    data.save(tmp_path / "fitted")
    return data, tmp_path


def restored(data: Tabular, folder: Path) -> Tabular:
    other = Tabular(data.paths["main"], "label")
    other.restore(folder / "fitted")
    return other


def test_restored_it_fits_nothing_and_gives_the_same_splits(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    assert {path.suffix for path in (folder / "fitted").iterdir()} == {".json", ".safetensors"}
    other = restored(data, folder)
    assert other.spec == data.spec
    assert other.describe() == data.describe()
    frame = pl.read_csv(data.paths["main"])
    save(folder, frame.with_columns(age=pl.lit(1000), city=pl.lit("Rome")))
    other = restored(data, folder)
    assert other.split("train").x.isfinite().all() and (other.split("train").x[:, -1] == 0).all()
    assert other.spec == data.spec


def test_new_rows_are_streamed_by_column_name(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    frame = pl.read_csv(data.paths["main"])
    shuffled = frame.select(reversed(frame.columns)).with_columns(extra=pl.lit(1), more=pl.lit("x"))
    other = restored(data, folder)
    chunks = list(other.stream(save(folder, shuffled, "new.csv"), rows=100))
    assert len(chunks) >= 3 and all(len(chunk) <= 100 for chunk in chunks)
    rows = np.concatenate([chunk.rows for chunk in chunks])
    x, y = torch.cat([chunk.x for chunk in chunks]), torch.cat([chunk.y for chunk in chunks])
    assert list(rows) == list(range(300))
    for name in ("train", "val", "test"):
        part = data.split(name)
        assert torch.equal(x[part.rows], part.x) and torch.equal(y[part.rows], part.y)
    assert chunks[0].frame.columns == shuffled.columns
    assert other.warnings == [f"columns of `{folder / 'new.csv'}` that training did not see: extra, more"]


def test_new_rows_need_no_target_and_may_be_unseen(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    path = write(folder, "age,income (EUR),city,member\n40,,Atlantis,yes\n?,1e300,,no\n", "new.csv")
    (chunk,) = restored(data, folder).stream(path)
    assert chunk.y is None and chunk.x.isfinite().all() and chunk.x[:, -1].tolist() == [0, 0]
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path, with_target=True))
    assert str(caught.value) == f"`{path}` has no target column `label`"


def test_a_target_can_be_ignored_or_must_be_known(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    rows = "age,income (EUR),city,member,label\n40,1,Paris,yes,maybe\n41,1,Paris,yes,maybe\n42,1,Paris,no,yes\n"
    path = write(folder, rows, "new.csv")
    (chunk,) = restored(data, folder).stream(path, with_target=False)
    assert chunk.y is None and len(chunk) == 3
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path))
    assert str(caught.value) == (
        f"class 'maybe' is in `{path}` (2 rows) but not in train, which has 2 classes: no, yes"
    )


def test_a_missing_column_is_refused_by_name(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    path = write(folder, "agee,city,member\n40,Paris,yes\n", "new.csv")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path))
    assert str(caught.value) == (
        f"`{path}` has no column `age`, `income (EUR)`, which training used; did you mean `agee`?"
    )


def test_a_streamed_mistake_names_its_line(fitted: tuple[Tabular, Path]) -> None:
    data, folder = fitted
    lines = ["40,1.5,Paris,yes"] * 250
    lines[220] = "forty,1.5,Paris,yes"
    path = write(folder, "age,income (EUR),city,member\n" + "\n".join(lines) + "\n", "new.csv")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(path, rows=100))
    assert str(caught.value).startswith("column `age`, line 222: 'forty' is not a number; ")
    with pytest.raises(DataError) as caught:
        list(restored(data, folder).stream(write(folder, "age,income (EUR),city,member\n", "new.csv")))
    assert str(caught.value) == f"`{path}` has no data rows; it must hold at least one row below its header"


def test_labels_match_however_a_file_writes_numbers(tmp_path: Path) -> None:
    data = Tabular(save(tmp_path, {"x": RANDOM.normal(size=90), "y": [0, 1, 2] * 30}), "y")
    data.setup()
    path = write(tmp_path, "x,y\n0.5,1.0\n0.1,02\n0.2,0\n", "new.csv")
    (chunk,) = data.stream(path)
    assert chunk.y.tolist() == [1, 2, 0]
    truth = Tabular(save(tmp_path, {"x": RANDOM.normal(size=90), "y": [True, False, True] * 30}), "y")
    truth.setup()
    (chunk,) = truth.stream(write(tmp_path, "x,y\n0.5,True\n0.1,FALSE\n", "new.csv"))
    assert chunk.y.tolist() == [1, 0]
