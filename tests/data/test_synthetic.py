"""Made-up data of each kind: shapes, repeatability, a signal that simple rules find, sentences."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from trainctl.data.spec import Category
from trainctl.data.synthetic import Synthetic
from trainctl.errors import UsageError

KINDS = ("table", "image", "sequence")


def make(**options: Any) -> Synthetic:
    data = Synthetic(**{"rows": 2000} | options)
    data.setup()
    return data


@pytest.mark.parametrize("target", ["class", "number"])
@pytest.mark.parametrize("kind", KINDS)
def test_content_follows_data_seed_and_splits_follow_seed(kind: str, target: str) -> None:
    first, again = make(kind=kind, target=target), make(kind=kind, target=target)
    assert first.describe() == again.describe()
    assert make(kind=kind, target=target, data_seed=1).describe() != first.describe()
    moved = make(kind=kind, target=target, seed=1)
    assert moved.split("train").rows.tolist() != first.split("train").rows.tolist()
    shared = sorted(set(moved.split("train").rows) & set(first.split("train").rows))[:20]
    for row in shared:
        places = [list(data.split("train").rows).index(row) for data in (first, moved)]
        assert torch.equal(first.split("train").x[places[0]], moved.split("train").x[places[1]])


def test_a_table_has_the_columns_and_codes_of_its_spec() -> None:
    data = make(kind="table", numeric=3, categorical=2, categories=5)
    assert data.spec.numeric == ("number0", "number1", "number2")
    assert data.spec.categories == (Category("category0", 6), Category("category1", 6))
    x = data.split("train").x
    assert x.dtype == torch.float32 and x.shape == (1400, 5)
    assert x[:, 3:].unique().tolist() == [1, 2, 3, 4, 5]
    assert make(numeric=0, categorical=1).spec.num_features == 1
    assert make(numeric=1, categorical=0).split("val").x.shape == (300, 1)


def test_images_and_sequences_keep_to_their_spec() -> None:
    data = make(kind="image", image_shape=[3, 10, 12], classes=4, augment={"flip": True})
    assert data.split("test").x.shape[1:] == (3, 10, 12) and data.split("test").x.dtype == torch.uint8
    assert len(data.spec.mean) == 3 and data.augment is not None
    data = make(kind="sequence", sequence_length=20, num_tokens=9)
    x = data.split("train").x
    assert x.dtype == torch.int64 and x.shape[1] == 20
    assert 0 <= int(x.min()) and int(x.max()) < 9
    lengths = (x > 0).sum(1)
    assert int(lengths.min()) >= 10 and int(lengths.max()) == 20
    assert ((x > 0).int().diff(dim=1) <= 0).all()  # padding is at the end


def linear_score(data: Synthetic, features: Any) -> float:
    """Explained variance of the target by a linear map of features, fitted on train and measured on test."""

    def target(name: str) -> torch.Tensor:
        y = data.split(name).y
        assert y is not None
        return torch.nn.functional.one_hot(y).float() if data.spec.target == "class" else y.unsqueeze(1)

    def inputs(name: str) -> torch.Tensor:
        x = features(data.split(name).x)
        return torch.cat([x, torch.ones(len(x), 1)], dim=1)

    weights = torch.linalg.lstsq(inputs("train"), target("train")).solution
    rest = target("test") - inputs("test") @ weights
    return float(1 - rest.var() / (target("test") - target("train").mean(0)).var())


@pytest.mark.parametrize(("kind", "target", "least"), [
    ("table", "class", 0.1), ("table", "number", 0.3), ("image", "class", 0.5), ("image", "number", 0.5),
    ("sequence", "class", 0.15), ("sequence", "number", 0.8),
])  # fmt: skip
def test_there_is_something_to_learn(kind: str, target: str, least: float) -> None:
    data = make(kind=kind, target=target, num_tokens=16, image_shape=[1, 8, 8], noise=0.05)

    def features(x: torch.Tensor) -> torch.Tensor:
        if kind == "sequence":
            counts = torch.nn.functional.one_hot(x, 16).float().sum(1)[:, 1:]
            return counts / counts.sum(1, keepdim=True)
        return x.flatten(1).float()

    assert linear_score(data, features) > least


def test_numbers_come_with_the_scale_of_train() -> None:
    data = make(target="number")
    y = data.split("train").y
    assert y is not None
    assert data.spec.target_mean == pytest.approx(float(y.mean()), rel=1e-4)
    assert data.spec.target_std == pytest.approx(float(y.std(correction=0)), rel=1e-4)
    assert data.spec.classes == () and y.dtype == torch.float32


def test_a_million_rows_take_seconds() -> None:
    start = time.process_time()
    make(rows=1_000_000)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "tabel"}, "`data.kind` is 'tabel'; choose table, image, sequence; did you mean `table`?"),
        ({"target": "x"}, "`data.target` is 'x'; choose class, number"),
        ({"rows": 0}, "`data.rows` is 0; it must be a whole number of 1 or more"),
        ({"classes": 1}, "`data.classes` is 1; it must be a whole number of 2 or more"),
        ({"numeric": 1.5}, "`data.numeric` is 1.5; it must be a whole number of 0 or more"),
        (
            {"numeric": 0, "categorical": 0},
            "`data.numeric` and `data.categorical` are both 0; a table needs at least one column",
        ),
        ({"image_shape": [28, 28]}, "`data.image_shape` is [28, 28]; it must be [channels, height, width]"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Synthetic(**options)
    assert str(caught.value) == sentence
