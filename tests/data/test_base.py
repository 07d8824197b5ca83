"""What all data modules share: set up once, splits, loaders under a trainer, saving, hashes, sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainctl.data.base import Data, Split, read_json, write_json
from trainctl.data.loader import InMemoryLoader
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError, TrainctlError, UsageError


class Toy(Data):
    """Rows 0..n-1 whose mean over train is the fitted preprocessing."""

    def __init__(self, rows: int = 100, labels: Tensor | None = None, **options: Any) -> None:
        super().__init__(**{"batch_size": 16, "split": {"kind": "random"}} | options)
        self.rows, self.labels, self.loads, self.center = rows, labels, 0, 0.0

    def load(self) -> dict[str, Split]:
        self.loads += 1
        raw = torch.arange(self.rows, dtype=torch.float32).unsqueeze(1)
        y = torch.arange(self.rows) % 2 if self.labels is None else self.labels
        rows = self.split_plain(self.rows)
        if not self.restored:
            self.center = float(raw[rows["train"]].mean())
            self.spec = DataSpec(kind="table", target="class", classes=("no", "yes", "cat"), numeric=("x",))
        return {name: Split(raw[index] - self.center, y[index], index) for name, index in rows.items()}

    def save_fitted(self, folder: Path) -> None:
        write_json(folder / "center.json", self.center)

    def restore_fitted(self, folder: Path) -> None:
        self.center = read_json(folder / "center.json")


class Attached:
    """The parts of a trainer that a data module asks for."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size = rank, world_size
        self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})()


def test_setup_reads_once_and_splits_share_no_row() -> None:
    data = Toy()
    data.setup("fit")
    data.setup("test")
    assert data.loads == 1
    rows = [data.split(name).rows for name in ("train", "val", "test")]
    assert sorted(np.concatenate(rows).tolist()) == list(range(100))
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [70, 15, 15]


def test_loaders_shuffle_train_only_and_give_test_in_row_order() -> None:
    data = Toy(seed=3)
    train = torch.cat([x for x, _ in data.train_dataloader()])
    assert not torch.equal(train, data.split("train").x)
    assert torch.equal(train.sort(dim=0).values, data.split("train").x)
    for loader, name in (
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "test"),
        (data.predict_dataloader(), "test"),
    ):
        assert torch.equal(torch.cat([x for x, _ in loader]), data.split(name).x)
        assert torch.equal(torch.cat([y for _, y in loader]), data.split(name).y)


def test_evaluation_batches_are_larger_unless_told() -> None:
    assert Toy(rows=10_000).test_dataloader().batch_size == 4096
    assert Toy(rows=10_000, eval_batch_size=100).test_dataloader().batch_size == 100
    assert Toy(rows=10_000, batch_size=5000).test_dataloader().batch_size == 5000


def test_chunks_and_limits_are_taken_from_attributes() -> None:
    data = Toy()
    data.chunk, data.limit_batches = 2, 3
    assert [len(part) for part in data.train_dataloader()] == [2, 1]
    assert [len(x) for x, _ in data.val_dataloader()] == [15]
    data.reshuffle = False
    loader = data.train_dataloader()
    first = next(iter(loader))[0][0]
    loader.set_epoch(4)
    assert torch.equal(next(iter(loader))[0][0], first)


def test_a_trainer_shares_the_rows_among_ranks() -> None:
    served = []
    for rank in range(2):
        data = Toy()
        data.trainer = Attached(rank, 2)  # type: ignore[assignment]
        served.append(torch.cat([x for x, _ in data.test_dataloader()]))
        loader = data.train_dataloader()
        assert isinstance(loader, InMemoryLoader) and loader.num_rows == 35
    assert torch.equal(torch.cat(served).sort(dim=0).values, Toy().split("test").x)
    assert [len(part) for part in served] == [8, 7]


def test_restored_preprocessing_is_not_fitted_again(tmp_path: Path) -> None:
    data = Toy(seed=1)
    data.setup()
    data.save(tmp_path / "preprocessing")
    other = Toy(seed=1, rows=100)
    other.restore(tmp_path / "preprocessing")
    assert other.spec == data.spec and other.center == data.center
    assert torch.equal(other.split("test").x, data.split("test").x)
    moved = Toy(seed=2)
    moved.restore(tmp_path / "preprocessing")
    moved.setup()
    assert moved.center == data.center
    names = sorted(path.name for path in (tmp_path / "preprocessing").iterdir())
    assert names == ["center.json", "spec.json"]


def test_describe_is_json_with_sizes_and_hashes_that_follow_the_content() -> None:
    told = json.loads(json.dumps(Toy().describe()))
    assert [told["splits"][name]["rows"] for name in ("train", "val", "test")] == [70, 15, 15]
    assert told == Toy().describe()
    other = Toy(labels=torch.ones(100, dtype=torch.int64)).describe()
    assert all(other["splits"][name]["sha256"] != told["splits"][name]["sha256"] for name in told["splits"])
    assert told["warnings"] == []


def test_hash_of_a_split_without_target() -> None:
    data = Toy()
    data.setup()
    train = data.split("train")
    assert data._splits is not None
    data._splits["train"] = Split(train.x, None, train.rows)
    assert data.content_hash("train") != Toy().content_hash("train")


def test_a_class_that_train_lacks_is_an_error() -> None:
    rows = Toy().split("test").rows
    labels = torch.zeros(100, dtype=torch.int64)
    labels[rows[:4]] = 2
    with pytest.raises(DataError) as caught:
        Toy(labels=labels).setup()
    assert str(caught.value) == (
        "class 'cat' is in test (4 rows) but not in train; set `data.split.kind=stratified` or leave that class out"
    )


def sentence(call: Any) -> str:
    with pytest.raises(TrainctlError) as caught:
        call()
    return str(caught.value)


def test_sentences_for_what_data_cannot_do(tmp_path: Path) -> None:
    data = Toy()
    assert sentence(lambda: data.split("tset")) == "no split `tset`; choose train, val or test"
    assert sentence(lambda: data.stream("x.csv")) == (
        "Toy cannot read new files such as `x.csv`; train on a file instead"
    )
    assert sentence(lambda: data.column("age", "test")) == "no column `age`: Toy has no named columns to slice by"
    assert sentence(lambda: data.restore(tmp_path)) == (
        f"no `spec.json` in `{tmp_path}`; name the folder of a finished run"
    )
    (tmp_path / "spec.json").write_text("{", encoding="utf-8")
    assert sentence(lambda: data.restore(tmp_path)).startswith(f"cannot read `{tmp_path / 'spec.json'}`: ")
    grouped = Toy(split={"kind": "group", "column": "family"})
    assert sentence(grouped.setup) == (
        "`data.split.kind=group` needs a table with columns; here choose auto, random, stratified"
    )


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_batch_sizes_are_whole_and_positive(key: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Toy(**{key: value})
    assert str(caught.value) == f"`data.{key}` is {value}; it must be a whole number of 1 or more"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        write_json(path, object())
    assert read_json(path) == {"a": "é"}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]
