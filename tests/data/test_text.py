"""Texts become token ids by the vocabulary of train; what was fitted is kept and used on new files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from trainctl.data.text import Text, tokenize
from trainctl.errors import DataError, UsageError

ANIMALS, TOOLS = ("cat", "dog", "horse"), ("hammer", "saw", "drill")


def rows(count: int = 200, seed: int = 0) -> dict[str, Any]:
    """Sentences on animals or tools, with a label, a number of words and a group."""
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = int(random.integers(2))
        words = random.choice((ANIMALS, TOOLS)[label], random.integers(2, 6))
        texts.append(f"The {', the '.join(words)}!")
        labels.append(("animal", "tool")[label])
    return {
        "text": texts,
        "label": labels,
        "words": [len(t.split()) / 2 + 0.25 for t in texts],
        "group": [f"g{i % 9}" for i in range(count)],
    }


def save(folder: Path, columns: dict[str, Any] | None = None, name: str = "x.csv") -> str:
    pl.DataFrame(columns or rows()).write_csv(folder / name)
    return str(folder / name)


def decoded(data: Text, x: torch.Tensor) -> list[str]:
    names = ["", "?", *data.vocabulary]
    return [" ".join(names[i] for i in row if i) for row in x.tolist()]


def test_tokens_are_lower_case_words_and_single_marks() -> None:
    found = tokenize(pl.Series(["Don't STOP, it's 3.5 €!", "", None, "snake_case  naïve…", "日本 語"])).to_list()
    assert found == [
        ["don't", "stop", ",", "it's", "3", ".", "5", "€", "!"], [], [], ["snake_case", "naïve", "…"], ["日本", "語"]
    ]  # fmt: skip


def test_rows_of_ids_with_padding_and_unknown_tokens(tmp_path: Path) -> None:
    data = Text(save(tmp_path), target="label")
    data.setup()
    spec = data.spec
    assert (spec.kind, spec.target, spec.classes) == ("sequence", "class", ("animal", "tool"))
    assert set(data.vocabulary) == {*ANIMALS, *TOOLS, "the", ",", "!"} and spec.num_tokens == 11
    assert data.vocabulary[0] == "the"  # the most frequent first
    texts = rows()["text"]
    for name in ("train", "val", "test"):
        split = data.split(name)
        assert split.x.dtype == torch.int64 and split.x.shape[1] == spec.sequence_length
        wanted = [" ".join(tokenize(pl.Series([texts[row]]))[0]) for row in split.rows]
        assert decoded(data, split.x) == wanted
    chunk = next(data.stream(save(tmp_path, {"text": ["the ZEBRA saw", "", None], "id": [1, 2, 3]}, "new.csv")))
    assert decoded(data, chunk.x) == ["the ? saw", "", ""] and chunk.y is None
    assert not chunk.x[1:].any()


def test_the_vocabulary_is_fitted_on_train_alone(tmp_path: Path) -> None:
    test = save(tmp_path, {"text": ["the robot robot robot"] * 4, "label": ["tool", "animal"] * 2}, "test.csv")
    data = Text(save(tmp_path), target="label", test_path=test)
    data.setup()
    assert "robot" not in data.vocabulary
    assert decoded(data, data.split("test").x) == ["the ? ? ?"] * 4 and len(data.split("test")) == 4
    assert data.split("test").rows.tolist() == [0, 1, 2, 3]


def test_rare_tokens_and_those_beyond_the_limit_are_unknown(tmp_path: Path) -> None:
    columns = {"text": [*(["a a a b b c"] * 40), "once only"], "label": ["x", "y"] * 20 + ["x"]}
    path = save(tmp_path, columns)
    data = Text(path, target="label", split={"val": 0.1, "test": 0.1})
    data.setup()
    assert data.vocabulary == ["a", "b", "c"]
    data = Text(path, target="label", max_tokens=2, sequence_length=4, split={"val": 0.1, "test": 0.1})
    data.setup()
    assert data.vocabulary == ["a", "b"] and data.spec.sequence_length == 4 and data.spec.num_tokens == 4
    with pytest.raises(DataError) as error:
        Text(path, target="label", min_count=1000, split={"val": 0.1, "test": 0.1}).setup()
    assert str(error.value) == (
        "no token of column `text` occurs 1000 times in train; check `data.column`, or set `data.min_count=1`"
    )


def test_the_length_leaves_99_of_100_texts_whole(tmp_path: Path) -> None:
    columns = {"text": [*["a b c"] * 396, *["a " * 50] * 4], "label": ["x", "y"] * 200}
    data = Text(save(tmp_path, columns), target="label", split={"kind": "random", "val": 0.1, "test": 0.1})
    data.setup()
    assert data.spec.sequence_length in (3, 50)
    whole = (data.split("train").x != 0).sum(1)
    long = sum(len(tokenize(pl.Series([columns["text"][row]]))[0]) > 3 for row in data.split("train").rows)
    assert (data.spec.sequence_length == 3) == (long <= 0.01 * len(whole))


def test_a_number_to_predict_is_scaled_by_train(tmp_path: Path) -> None:
    data = Text(save(tmp_path), target="words")
    data.setup()
    y = data.split("train").y
    assert y is not None and y.dtype == torch.float32 and data.spec.target == "number" and data.spec.classes == ()
    assert data.spec.target_mean == pytest.approx(float(y.mean()), rel=1e-5)
    assert data.spec.target_std == pytest.approx(float(y.std(correction=0)), rel=1e-5)


@pytest.mark.parametrize("kind", ["csv.gz", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    plain = Text(save(tmp_path), target="label")
    plain.setup()
    frame, path = pl.DataFrame(rows()), tmp_path / f"y.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "tsv":
        frame.write_csv(path, separator="\t")
    else:
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    other = Text(str(path), target="label")
    other.setup()
    assert other.vocabulary == plain.vocabulary and torch.equal(other.split("val").x, plain.split("val").x)


def test_texts_that_look_like_numbers_or_gaps_stay_texts(tmp_path: Path) -> None:
    columns = {"text": ["007", "NA", "?", "1.50"] * 30, "label": ["x", "x", "y", "y"] * 30}
    data = Text(save(tmp_path, columns), target="label")
    data.setup()
    assert set(data.vocabulary) == {"007", "na", "?", "1", ".", "50"}


def test_restored_it_fits_nothing_and_reads_new_files_as_before(tmp_path: Path) -> None:
    path = save(tmp_path)
    data = Text(path, target="label")
    data.setup()
    data.save(tmp_path / "fitted")
    assert json.loads((tmp_path / "fitted" / "text.json").read_text())["vocabulary"] == data.vocabulary
    other = Text(path, min_count=50, max_tokens=1, sequence_length=2)
    other.restore(tmp_path / "fitted")
    assert other.spec == data.spec
    new = save(tmp_path, rows(20, seed=1), "new.csv")
    (chunk,), (again,) = list(data.stream(new)), list(other.stream(new, with_target=True))
    assert torch.equal(chunk.x, again.x) and chunk.y is not None and torch.equal(chunk.y, again.y)  # type: ignore[arg-type]
    assert torch.equal(other.split("val").x, data.split("val").x) and other.vocabulary == data.vocabulary


def test_a_new_file_comes_in_pieces_with_its_row_numbers(tmp_path: Path) -> None:
    data = Text(save(tmp_path), target="label")
    data.setup()
    new = save(tmp_path, {k: v for k, v in rows(25, seed=2).items() if k != "label"}, "new.csv")
    pieces = list(data.stream(new, rows=10))
    assert [len(piece) for piece in pieces] == [10, 10, 5] and pieces[2].rows.tolist() == [20, 21, 22, 23, 24]
    assert all(piece.y is None and "group" in piece.frame.columns for piece in pieces)
    with pytest.raises(DataError, match=f"^no target column `label` in `{new}`; it has: text, words, group$"):
        list(data.stream(new, with_target=True))
    with pytest.raises(DataError, match="^no column `text` in `.*other.csv`; it has: words$"):
        list(data.stream(save(tmp_path, {"words": [1, 2]}, "other.csv")))
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="has no data rows; it must hold at least one row below its header$"):
        list(data.stream(str(tmp_path / "empty.csv")))


def test_splits_by_a_column_and_by_folds(tmp_path: Path) -> None:
    path = save(tmp_path)
    data = Text(path, target="label", split={"kind": "group", "column": "group", "val": 0.2, "test": 0.2})
    groups = {name: set(data.column("group", name)) for name in ("train", "val", "test")}
    assert not groups["train"] & groups["test"] and not groups["val"] & groups["test"]
    test = save(tmp_path, rows(30, seed=3), "test.csv")
    folded = Text(path, target="label", test_path=test, split={"folds": 4, "fold": 1})
    folded.setup()
    assert folded.warnings == [f"`{test}` is not used: fold 1 is the test split"] and len(folded.split("test")) == 50
    assert folded.column("text", "test") == [rows()["text"][row] for row in folded.split("test").rows]


def test_it_says_what_it_read_and_which_texts_are_in_train_too(tmp_path: Path) -> None:
    columns = {"text": [f"a b{i} c" for i in range(100)], "label": ["x", "y"] * 50}
    test = save(tmp_path, {"text": ["A b4 c", "a new c", "a text c"], "label": ["x", "x", "y"]}, "test.csv")
    data = Text(save(tmp_path, columns), target="label", test_path=test)
    told = data.describe()
    assert told["lines"] == [
        "target: label, 2 classes: x, y",
        "text: text, the first 3 tokens; 2 known tokens, 33.3% of val's are others",
    ]
    assert len([w for w in told["warnings"] if "are also in train" in w or "is also in train" in w]) <= 1
    assert not any("3 rows" in sentence for sentence in told["warnings"])  # equal but for what is unknown


def test_a_fine_tuned_run_may_learn_another_target(tmp_path: Path) -> None:
    path = save(tmp_path)
    data = Text(path, target="label")
    data.setup()
    data.save(tmp_path / "fitted")
    other = Text(path, target="words")
    other.restore(tmp_path / "fitted")
    other.fine_tuned = True
    other.setup()
    assert other.spec.target == "number" and other.spec.target_std != 1.0 and other.vocabulary == data.vocabulary
    more = {"text": rows()["text"], "label": [f"{label}{i % 2}" for i, label in enumerate(rows()["label"])]}
    third = Text(save(tmp_path, more, "more.csv"), target="label")
    third.restore(tmp_path / "fitted")
    third.fine_tuned = True
    third.setup()
    assert third.spec.classes == ("animal0", "animal1", "tool0", "tool1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"min_count": 0}, "`data.min_count` is 0; it must be a whole number of 1 or more"),
        ({"max_tokens": "many"}, "`data.max_tokens` is 'many'; it must be a whole number of 1 or more"),
        ({"sequence_length": 1.5}, "`data.sequence_length` is 1.5; it must be a whole number of 1 or more or auto"),
        ({"missing_target": "ignore"}, "`data.missing_target` is 'ignore'; it must be error or drop"),
        (
            {"path": None},
            "`data=text` needs a table with a column of texts; "
            "add `data.path=FILE data.column=COLUMN data.target=COLUMN`",
        ),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as error:
        Text(**{"path": "x.csv", **options})
    assert str(error.value) == told


def test_columns_that_are_not_there_are_named_with_the_nearest(tmp_path: Path) -> None:
    path = save(tmp_path)
    for options, told in (
        ({"target": "lable"}, f"no column `lable` in `{path}`; did you mean `label`?"),
        ({"target": "label", "column": "body"}, f"no column `body` in `{path}`; it has: text, label, words, group"),
    ):
        with pytest.raises(DataError) as error:
            Text(path, **options).setup()
        assert str(error.value) == told
    with pytest.raises(UsageError) as refused:
        Text(path).setup()
    assert str(refused.value) == (
        f"`data.target` is not set: name the column to predict; `{path}` has: text, label, words, group"
    )
    pl.DataFrame({"text": [["a"], ["b"]], "label": [1, 0]}).write_parquet(tmp_path / "lists.parquet")
    data = Text(str(tmp_path / "lists.parquet"), target="label")
    with pytest.raises(
        DataError, match=r"^column `text` holds List\(String\), not texts; choose another `data.column`$"
    ):
        tokenize(pl.Series("text", [["a"], ["b"]]))
    assert data.vocabulary == []


def test_a_model_learns_from_texts_and_reads_a_new_file(lab: Any) -> None:
    path, new = save(lab.folder), save(lab.folder, {"text": ["the horse", "the saw, the drill"]}, "new.csv")
    run = lab.run(
        "train", "model=lstm", "data=text", f"data.path={path}", "data.target=label", "optimizer.lr=0.02",
        "trainer.max_epochs=8", "trainer.threads=1",
    )  # fmt: skip
    assert run.metrics["test/accuracy"] > 0.95
    assert lab("predict", str(run.path), new, "-o", "out.csv").code == 0
    assert pl.read_csv(lab.folder / "out.csv")["prediction"].to_list() == ["animal", "tool"]
    done = lab("evaluate", str(run.path), f"data.path={save(lab.folder, rows(50, seed=5), 'more.csv')}", "--json")
    assert done.code == 0 and done.json["metrics"]["test/accuracy"] > 0.95
