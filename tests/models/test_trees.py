"""Trees and forests give what scikit-learn's do, from tensors alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainctl.data.spec import DataSpec
from trainctl.models.forest import Forest
from trainctl.models.tree import Tree
from trainctl.models.tree_arrays import Trees, rounded_down

CLASSES = DataSpec("table", "class", classes=("a", "b", "c"), numeric=("p", "q", "r"))
NUMBER = DataSpec("table", "number", numeric=("p", "q", "r"))


def rows(spec: DataSpec, count: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows with many equal values, so that many lie on a threshold's grid."""
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randn(count, 3, generator=draw) * 8).round() / 8
    signal = x[:, 0] * x[:, 1] + 0.3 * torch.randn(count, generator=draw)
    return x, (signal > 0).long() + (signal > 1).long() if spec.target == "class" else signal


@pytest.mark.parametrize("spec", [CLASSES, NUMBER], ids=["classes", "number"])
@pytest.mark.parametrize("make", [lambda spec: Tree(spec, min_samples_leaf=1), lambda spec: Forest(spec, 7)])
def test_outputs_are_those_of_scikit_learn(make: Any, spec: DataSpec) -> None:
    net, (x, y), (new, _) = make(spec), rows(spec), rows(spec, 400, seed=1)
    net.fit(x, y, seed=3)
    learner = net.learner(3, 1).fit(x.numpy(), y.numpy() if net.is_class else y.double().numpy())
    expected = learner.predict_proba(new.numpy()) if net.is_class else learner.predict(new.numpy())[:, None]
    output = net(new).softmax(1) if net.is_class else net(new)
    np.testing.assert_allclose(output, expected, atol=2e-6)


def test_a_row_goes_the_same_way_as_with_thresholds_in_double_precision() -> None:
    start = torch.linspace(2.0, 60.0, 40)  # scikit-learn tells apart what differs by 1e-7
    x = torch.stack([start, torch.nextafter(start, torch.tensor(99.0))], 1).flatten()[:, None]
    y = torch.arange(80) % 2  # neighbours among the float32 have different classes
    net = Tree(DataSpec("table", "class", classes=("a", "b"), numeric=("p",)), min_samples_leaf=1)
    net.fit(x, y)
    assert torch.equal(net(x).argmax(1), y)


def test_rounding_never_goes_up() -> None:
    thresholds = np.random.default_rng(0).normal(size=1000)
    down = rounded_down(thresholds)
    assert down.dtype == np.float32 and (down <= thresholds).all()
    assert (np.nextafter(down, np.float32(np.inf)) > thresholds).all()


def test_neither_threads_nor_the_next_fit_change_the_bits() -> None:
    x, y = rows(CLASSES)
    one, two, other = (Forest(CLASSES, 5) for _ in range(3))
    one.fit(x, y, seed=0)
    two.fit(x, y, seed=7)
    two.fit(x, y, seed=0, threads=2)
    other.fit(x, y, seed=1)
    same = [torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True)]
    assert all(same) and not torch.equal(one(x), other(x))


def test_a_class_that_is_not_in_train_has_no_share_and_a_finite_output() -> None:
    x, y = rows(CLASSES)
    net = Forest(CLASSES, 3)
    net.fit(x[y != 1], y[y != 1])
    output = net(x)
    assert output.isfinite().all() and (output.softmax(1)[:, 1] < 1e-6).all()


def test_weights_of_rows_count() -> None:
    x, y = rows(CLASSES)
    weighted, plain = Tree(CLASSES, min_samples_leaf=1), Tree(CLASSES, min_samples_leaf=1)
    weighted.fit(x, y, weight=(y != 2).float())
    plain.fit(x[y != 2], y[y != 2])
    assert torch.allclose(weighted(x).exp(), plain(x).exp(), atol=1e-6)


def test_no_precision_rounds_a_threshold() -> None:
    x, y = rows(NUMBER)
    net = Forest(NUMBER, 3)
    net.fit(x, y)
    before = net(x)
    assert net.bfloat16().threshold.dtype == torch.float32 and torch.equal(net(x), before)


def branches() -> dict[str, Tensor]:
    """The arrays of one question with two answers."""
    net = Tree(NUMBER, max_depth=1)
    net.fit(*rows(NUMBER))
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


DAMAGE = {
    "no array": ({"threshold": None}, "the config's net has `threshold`, the run has not"),
    "another width": ({"value": torch.zeros(3, 4)}, "`value` is float32 [3, 4], which is no such tree"),
    "another type": ({"feature": torch.zeros(3)}, "`feature` is float32 [3], which is no such tree"),
    "no tree": ({"roots": torch.zeros(0, dtype=torch.int32)}, "`roots` is int32 [0], which is no such tree"),
    "a circle": ({"child": torch.tensor([[1, 2], [0, 0], [2, 2]]).int()}, "`child` does not form trees"),
    "beyond": ({"child": torch.tensor([[1, 7], [1, 1], [2, 2]]).int()}, "`child` does not form trees"),
    "shared": ({"child": torch.tensor([[1, 1], [1, 1], [2, 2]]).int()}, "`child` does not form trees"),
    "a column": ({"feature": torch.tensor([3, 0, 0]).int()}, "`feature` names columns beyond the 3 of the data"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_arrays_that_are_no_trees_are_refused_and_change_nothing(kind: str) -> None:
    changed, sentence = DAMAGE[kind]
    net: Trees = Tree(NUMBER)
    arrays = {name: tensor for name, tensor in {**branches(), **changed}.items() if tensor is not None}
    with pytest.raises(ValueError) as raised:
        net.adopt(arrays)
    assert str(raised.value) == sentence
    assert net.depth == 0 and len(net.feature) == 1
