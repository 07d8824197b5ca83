"""Unfit data (rows 18 to 36): the sentence names file, column and line, the exit code is 3, and no run is left."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

QUICK = ("trainer.max_epochs=1", "trainer.threads=1")
WORDS = ("train", "data.path=x.csv", "data.target=label", "data.batch_size=8", *QUICK)


def rows(
    count: int = 60, a=lambda i: i * 1.5, b=lambda i: f"{i * i % 17}.25", label=lambda i: "yes" if i % 2 else "no"
) -> str:
    """A table of two numbers and a label, each a function of the row's number."""
    return "a,b,label\n" + "".join(f"{a(i)},{b(i)},{label(i)}\n" for i in range(count))


GOOD = rows()
EMPTY = "`x.csv` is empty; it must hold a header and at least one row"
REFUSED = {
    "19 header only": ("a,b,label\n", "`x.csv` has no data rows; it must hold at least one row below its header"),
    "20 empty": ("", EMPTY),
    "20 only a byte order mark": ("\ufeff", EMPTY),
    "20 NUL bytes": (
        "a,b,label\n1,2,yes\n1,\0\0,no\n",
        "`x.csv` holds NUL bytes (line 3); it is binary or damaged, not a text table",
    ),
    "20 UTF-16": (GOOD.encode("utf-16"), "`x.csv` is not UTF-8 (it looks like UTF-16); pass `data.encoding=utf-16`"),
    "20 Latin-1": (
        GOOD.replace("yes", "jä").encode("latin-1"),
        "`x.csv` is not UTF-8 (line 3); pass `data.encoding=`, such as latin-1",
    ),
    "21 duplicated names": (
        GOOD.replace("a,b", "a,a", 1),
        "column `a` appears 2 times in `x.csv` (columns 1, 2); give every column its own name",
    ),
    "22 ragged row": (
        GOOD.replace("\n3.0,", "\n3.0,9,"),
        "`x.csv`: line 4 has 4 fields, the header has 3; correct the line, or quote the text that holds the delimiter",
    ),
    "22 open quote": (
        GOOD + '"open,1,yes\n',
        "`x.csv`: the quote that opens in line 62 is never closed; correct that line",
    ),
    "23 no target column": (GOOD.replace("label", "labels"), "no column `label` in `x.csv`; did you mean `labels`?"),
    "24 no target": (
        GOOD.replace("\n3.0,4.25,no", "\n3.0,4.25,"),
        "1 row has no target `label` in `x.csv` (first: line 4); set `data.missing_target=drop` to leave them out",
    ),
    "25 not finite": (
        GOOD.replace("\n3.0,4.25", "\n3.0,nan"),
        "column `b` has 1 non-finite value (line 4); set `data.missing=impute` to treat NaN and infinity as missing",
    ),
    "26 text among numbers": (
        GOOD.replace("\n3.0,4.25", "\n3.0,n/a"),
        "column `b`, line 4: 'n/a' is not a number; correct it, add it to `data.missing_values`, or set "
        "`data.columns.b=categorical`",
    ),
    "30 a class of one row": (
        rows(label=lambda i: "yes" if i else "no"),
        "class 'no' has 1 row; a stratified split needs 3 of each class: remove it, merge it with another, or set "
        "`data.split.kind=random`",
    ),
    "only ids": (
        rows(a=lambda i: i, b=lambda i: "same"),
        "no column is left to learn from: `a` (an id: every row has its own number), `b` (constant: always 'same'), "
        "`label` (the target); keep one, such as `data.columns.a=numeric`",
    ),
    "free text": (
        rows(a=lambda i: f"this is a free text number {i} ok"),
        "column `a` holds free text (8 words a value), which a table cannot use; set `data.columns.a=drop` to leave "
        "it out, or `categorical` to take each text as a category",
    ),
    "a spreadsheet": (b"PK\x03\x04aaaa", "`x.csv` is a zip or spreadsheet file; save it as CSV or Parquet"),
    "a cut gzip file": (
        gzip.compress(GOOD.encode(), mtime=0)[:-20],
        "cannot read `x.csv`: the gzip file is damaged or cut off; copy it again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_used(shell, case):
    content, sentence = REFUSED[case]
    (shell.folder / "x.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert shell.refused(3, *WORDS) == sentence


@pytest.mark.parametrize("name", ["b", "b c", "2b", "a=b", "a.b", "{b}", "income (EUR)", "50%", "a-b"])
def test_advice_can_be_typed_as_it_stands(shell, name):
    text = rows(b=lambda i: f"this is a free text number {i} ok").replace("a,b", f"a,{name}", 1)
    (shell.folder / "x.csv").write_text(text, encoding="utf-8")
    advice = re.search(r"set `(.*?)` to leave it out", shell.refused(3, *WORDS))
    assert advice is not None
    done = shell(*WORDS, *shlex.split(advice[1]))
    assert done.code == 0, done.err
    assert f"data: `{name}` is left out: set by data.columns\n" in done.err


def test_a_name_that_no_override_can_hold_is_set_in_a_file(shell):
    text = rows(b=lambda i: f"this is a free text number {i} ok").replace("a,b", "a,größe", 1)
    (shell.folder / "x.csv").write_text(text, encoding="utf-8")
    advice = "set `data.columns: {'größe': drop}` in a config file to leave it out"
    assert advice in shell.refused(3, *WORDS)
    (shell.folder / "conf" / "experiment").mkdir(parents=True)
    file = "# @package _global_\ndata:\n  columns: {'größe': drop}\n"
    (shell.folder / "conf" / "experiment" / "mine.yaml").write_text(file, encoding="utf-8")
    done = shell(*WORDS, "experiment=mine")
    assert done.code == 0, done.err


OPTIONS = {
    "data.target=labl": (3, "no column `labl` in `x.csv`; did you mean `label`?"),
    "data.target=null": (2, "`data.target` is not set: name the column to predict; `x.csv` has: a, b, label"),
    "data.target_kind=number": (
        3,
        "target `label`, line 2: 'no' is not a finite number; correct it, or set `data.target_kind=class` if it is a "
        "label",
    ),
    "data.missing=maybe": (2, "`data.missing` must be one of error, impute, got 'maybe'"),
    "data.encoding=klingon": (2, "`data.encoding` is 'klingon'; try utf-8, latin-1 or utf-16"),
    "data.columns={c: numeric}": (2, "`data.columns` names `c`, which is no column"),
    "data.columns.b=numeral": (
        2,
        "`data.columns.b` is 'numeral'; it must be one of numeric, categorical, boolean, datetime, drop; "
        "did you mean `numeric`?",
    ),
    "data.split={kind:group,column:zz}": (2, "`data.split.column` is `zz`, which is no column of `x.csv`"),
    "data.split={val:0.7,test:0.5}": (
        2,
        "`data.split` leaves nothing to train on: val 0.7 + test 0.5 must be < 1",
    ),
    "data.split.val=0.001": (
        2,
        "the split gives val 0 of 60 rows; change `data.split.val` and `data.split.test`, or bring more rows",
    ),
}


@pytest.mark.parametrize("word", OPTIONS)
def test_options_that_do_not_fit_the_file(shell, word):
    (shell.folder / "x.csv").write_text(GOOD, encoding="utf-8")
    code, sentence = OPTIONS[word]
    assert shell.refused(code, *WORDS, word) == sentence


def test_row_18_files_that_cannot_be_read(shell):
    assert shell.refused(3, *WORDS) == "cannot read `x.csv`: no such file; check `data.path`"
    file = shell.folder / "x.csv"
    file.mkdir()
    assert shell.refused(3, *WORDS) == "cannot read `x.csv`: it is a directory; name a CSV or Parquet file"
    file.rmdir()
    file.write_text(GOOD, encoding="utf-8")
    file.chmod(0)
    assert shell.error(3, *WORDS, bound_by_modes=True) == "cannot read `x.csv`: permission denied"
    assert os.listdir(shell.folder) == ["x.csv"]


def test_row_18_named_data_sets_say_where_to_get_them(shell):
    assert shell.refused(3, "train", "data=california_housing", "paths.data=here") == (
        "cannot read `here/california_housing/housing.csv.gz`: no such file; get it from ageron/data on GitHub "
        "(housing/housing.csv, gzipped) and put it there, or point `paths.data` (or TRAINCTL_DATA) to the folder that "
        "has it"
    )
    assert shell.refused(3, "train", "data=fashion_mnist", "model=cnn", "paths.data=here").startswith(
        "no `train-images-idx3-ubyte.gz` in `here/fashion_mnist`; fetch the four .gz files from "
    )


def test_images_that_cannot_be_used(shell):
    words = ("train", "data=image_folder", "data.path=images", "model=linear")
    assert shell.refused(3, *words) == (
        "cannot read `images`: no such folder; set `data.path` to the folder of the images"
    )
    (shell.folder / "images" / "cat").mkdir(parents=True)
    assert shell.refused(3, *words).startswith("class folder `images/cat` has no images (.png, .jpg, ")


def test_row_27_a_class_that_train_lacks(shell):
    (shell.folder / "x.csv").write_text(GOOD, encoding="utf-8")
    other = rows(20, label=lambda i: ["yes", "no", "cat"][i % 3])
    (shell.folder / "t.csv").write_text(other, encoding="utf-8")
    assert shell.refused(3, *WORDS, "data.test_path=t.csv") == (
        "class 'cat' is in test (6 rows) but not in train; set `data.split.kind=stratified` or leave that class out"
    )


def test_row_28_labels_beyond_the_classes_that_a_module_names(shell):
    (shell.folder / "their.py").write_text(
        "import torch, pytorch_lightning as pl\n"
        "class Data(pl.LightningDataModule):\n"
        "    num_classes = 2\n"
        "    def train_dataloader(self):\n"
        "        return [(torch.zeros(4, 3), torch.tensor([0, 1, 4, 1]))]\n",
        encoding="utf-8",
    )
    (shell.folder / "conf" / "data").mkdir(parents=True)
    (shell.folder / "conf" / "data" / "theirs.yaml").write_text("_target_: their.Data\n", encoding="utf-8")
    sentence = shell.error(3, "train", "data=theirs", "trainer.max_epochs=1")
    assert sentence == "y of Data goes from 0 to 4; classes must be 0 to 1"
    assert not (shell.folder / "runs").exists()


def test_row_29_one_class_only_is_a_warning_and_undefined_figures_are_null(shell):
    (shell.folder / "x.csv").write_text(rows(label=lambda i: "yes"), encoding="utf-8")
    done = shell(*WORDS, "--json")
    assert done.code == 0, done.err
    assert "warning: test has one class only ('yes'): AUROC is undefined there and written as null" in done.err
    assert done.json["metrics"]["test/auroc"] is None
    assert done.json["metrics"]["test/accuracy"] == 1.0


def test_rows_30_and_31_splits_of_no_row_and_of_one(shell):
    (shell.folder / "x.csv").write_text(rows(7, label=lambda i: i * 0.7), encoding="utf-8")
    assert shell.refused(3, *WORDS, "data.split.val=0.15", "data.split.test=0.3") == (
        "split `val` has 1 row of 7; it needs 2 or more: bring more rows or change `data.split`"
    )
    assert shell.refused(2, *WORDS, "data.split.val=0.05", "data.split.test=0.3") == (
        "the split gives val 0 of 7 rows; change `data.split.val` and `data.split.test`, or bring more rows"
    )


def test_row_32_no_full_batch(shell):
    (shell.folder / "x.csv").write_text(rows(30, label=lambda i: i * 0.7), encoding="utf-8")
    assert shell.refused(3, *WORDS, "data.batch_size=64", "data.drop_last=true") == (
        "22 rows make no full batch of 64; set `data.batch_size=22` or less, or `data.drop_last=false`"
    )


def test_row_33_rows_in_train_and_test_are_a_warning(shell):
    (shell.folder / "x.csv").write_text(rows(a=lambda i: i % 20 * 1.5, b=lambda i: i % 20 % 3), encoding="utf-8")
    done = shell(*WORDS)
    assert done.code == 0
    assert "warning: 9 rows of test are also in train" in done.err
    assert "9 rows of test are also in train" in json.loads((shell.run() / "run.json").read_text())["warnings"]


def test_row_34_data_that_changed_before_a_resume(shell):
    file = shell.folder / "x.csv"
    file.write_text(GOOD, encoding="utf-8")
    assert shell(*WORDS).code == 0
    file.write_text(GOOD.replace("3.0,4.25", "3.0,5.25"), encoding="utf-8")
    shutil.copy(shell.run() / "train.log", shell.folder / "log")
    again = ("train", "--resume", "latest", "trainer.max_epochs=2")
    before = untouched(shell.run())
    sentence = shell.error(3, *again)
    assert sentence.startswith("data differs from the run's (")
    assert sentence.endswith("); pass `--allow-data-change` to go on all the same")
    assert untouched(shell.run()) == before
    assert shell(*again, "--allow-data-change").code == 0
    assert len((shell.run() / "metrics.jsonl").read_text().splitlines()) == 2


def untouched(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in (".lock", "train.log")}


@pytest.mark.slow
def test_row_35_columns_are_found_by_name(shell):
    (shell.folder / "x.csv").write_text(GOOD, encoding="utf-8")
    assert shell(*WORDS).code == 0
    lines = [line.split(",") for line in GOOD.splitlines()]
    (shell.folder / "turned.csv").write_text("".join(f"{c},{b},{a}\n" for a, b, c in lines), encoding="utf-8")
    (shell.folder / "lacking.csv").write_text("".join(f"{a},{c}\n" for a, _, c in lines), encoding="utf-8")
    figures = [
        shell("evaluate", "latest", f"data.path={name}.csv", "--json").json["metrics"] for name in ("x", "turned")
    ]
    assert figures[0] == figures[1]
    missing = "`lacking.csv` has no column `b`, which training used"
    assert shell.refused(3, "evaluate", "latest", "data.path=lacking.csv") == missing
    assert shell.refused(3, "predict", "latest", "lacking.csv", "-o", "out.csv") == missing
    assert shell.refused(3, "predict", "latest", "none.csv", "-o", "out.csv") == (
        "cannot read `none.csv`: no such file or folder"
    )


def test_row_36_a_constant_target_is_a_warning_and_r2_is_null(shell):
    (shell.folder / "x.csv").write_text(rows(a=lambda i: 1, label=lambda i: 2.5), encoding="utf-8")
    done = shell(*WORDS, "--json")
    assert done.code == 0, done.err
    assert "data: `a` is left out: constant: always 1" in done.err
    assert "warning: target `label` is constant in test (2.5): R2 is written as null" in done.err
    assert done.json["metrics"]["test/r2"] is None
