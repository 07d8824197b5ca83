"""Cost-complexity pruning gives scikit-learn's leaves, and ONNX Runtime what the tensors give."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainctl.compression import measure
from trainctl.compression.base import Context
from trainctl.compression.onnx_net import OnnxNet, to_onnx, traced
from trainctl.compression.trees import Trees, is_tree
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError
from trainctl.models.forest import Forest
from trainctl.models.tree import Tree

CLASSES = DataSpec("table", "class", classes=("a", "b", "c"), numeric=("p", "q", "r"))
NUMBER = DataSpec("table", "number", numeric=("p", "q", "r"))


def rows(spec: DataSpec, count: int = 700, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randn(count, 3, generator=draw) * 8).round() / 8
    signal = x[:, 0] * x[:, 1] + 0.5 * torch.randn(count, generator=draw)
    return x, (signal > 0).long() + (signal > 1).long() if spec.target == "class" else signal


def fitted(kind: str, spec: DataSpec) -> Any:
    net = Tree(spec, min_samples_leaf=1) if kind == "tree" else Forest(spec, num_trees=6, min_samples_leaf=1)
    net.fit(*rows(spec), seed=5)
    return net


def context(spec: DataSpec) -> Context:
    x, _ = rows(spec)
    return Context(spec, x[:2], x, lambda: [], nn.functional.mse_loss, lambda net: 0.0)


def pruned(net: Any, spec: DataSpec, **settings: Any) -> tuple[Any, Trees]:
    compressor = Trees(**settings)
    return compressor.compress(copy.deepcopy(net), context(spec)), compressor


both = pytest.mark.parametrize("spec", [CLASSES, NUMBER], ids=["classes", "number"])
kinds = pytest.mark.parametrize("kind", ["tree", "forest"])


@both
@kinds
@pytest.mark.parametrize("alpha", [0.0, 0.0004, 0.001, 0.003, 0.01, 0.1, 5.0])
def test_the_leaves_are_those_of_scikit_learn(kind: str, spec: DataSpec, alpha: float) -> None:
    net = fitted(kind, spec)
    found, compressor = pruned(net, spec, alpha=alpha)
    learner = net.learner(5, 1).set_params(ccp_alpha=alpha)
    x, y = rows(spec)
    learner.fit(x.numpy(), y.numpy() if net.is_class else y.double().numpy())
    trees = [tree.tree_ for tree in getattr(learner, "estimators_", [learner])]
    if alpha:  # scikit-learn prunes nothing at 0, not even what gains nothing
        assert compressor.plan["nodes"] == sum(tree.node_count for tree in trees) == len(found.feature)
        assert compressor.plan["leaves"] == sum(tree.n_leaves for tree in trees)
        assert found.depth == max(tree.max_depth for tree in trees)
    new, _ = rows(spec, 300, seed=1)
    expected = learner.predict_proba(new.numpy()) if net.is_class else learner.predict(new.numpy())[:, None]
    np.testing.assert_allclose(found(new).softmax(1) if net.is_class else found(new), expected, atol=2e-6)


@both
@kinds
def test_at_least_the_amount_goes_and_hardly_more(kind: str, spec: DataSpec) -> None:
    net = fitted(kind, spec)
    shares = []
    for amount in (0.1, 0.5, 0.9):
        _, compressor = pruned(net, spec, amount=amount)
        shares.append(1 - compressor.plan["leaves"] / compressor.plan["of"])
        assert amount <= shares[-1]
        again, second = pruned(net, spec, alpha=compressor.plan["alpha"])
        assert second.plan == compressor.plan and again.depth <= net.depth
    assert shares == sorted(shares) and shares[0] < 0.3 and shares[1] < 0.7


def test_pruning_in_steps_ends_where_one_step_ends() -> None:
    net = fitted("forest", CLASSES)
    gentle, _ = pruned(net, CLASSES, alpha=0.001)
    twice, _ = pruned(gentle, CLASSES, alpha=0.004)
    once, _ = pruned(net, CLASSES, alpha=0.004)
    assert all(torch.equal(a, b) for a, b in zip(twice.buffers(), once.buffers(), strict=True))


def test_the_weights_alone_restore_it() -> None:
    net, compressor = pruned(fitted("forest", NUMBER), NUMBER, amount=0.7)
    again: Any = Trees(plan=compressor.plan).restore(Forest(NUMBER))
    again.load_state_dict(net.state_dict())
    x, _ = rows(NUMBER)
    assert torch.equal(again(x), net(x))


def test_thresholds_and_the_values_of_leaves_are_counted() -> None:
    net, _ = pruned(fitted("tree", CLASSES), CLASSES, alpha=0.01)
    found = measure.static(net, rows(CLASSES)[0], [])
    leaves = (len(net.feature) + 1) // 2
    assert found["parameters"] == found["non_zeros"] == leaves - 1 + 3 * leaves and found["macs"] is None


def test_too_little_and_too_much_are_said() -> None:
    net, given = fitted("tree", NUMBER), context(NUMBER)
    shallow, _ = pruned(net, NUMBER, alpha=0.01)
    Trees(alpha=1e-6).compress(shallow, given)
    Trees(alpha=9.0).compress(net, given)
    assert len(given.notes) == 2
    assert given.notes[0].startswith("no branch is as weak as alpha=1e-06: the smallest is 0.01")
    assert given.notes[1] == "nothing is left but single leaves, which say the same for every row; prune less"
    assert len(net.feature) == 1 and len(net(rows(NUMBER)[0]).unique()) == 1


def test_a_net_is_refused_with_what_prunes_it() -> None:
    assert Trees().refusal(fitted("tree", NUMBER), NUMBER) is None
    assert not is_tree(nn.Linear(3, 1)) and Trees().refusal(nn.Linear(3, 1), NUMBER) == (
        "compressor=trees prunes trees and forests, and a Linear is neither; use compressor=channels (smaller and "
        "faster) or compressor=magnitude"
    )


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"amount": 1.0}, "compressor.amount=1.0 must be above 0 and below 1, e.g. compressor.amount=0.5"),
    ({"amount": None}, "compressor.amount=None must be above 0 and below 1, e.g. compressor.amount=0.5"),
    ({"alpha": -1}, "compressor.alpha=-1 must be a number of 0 or more, e.g. compressor.alpha=0.0001"),
])
def test_settings_out_of_range_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        Trees(**settings)
    assert str(raised.value) == sentence


@both
@kinds
@pytest.mark.parametrize("amount", [None, 0.8, "all"])
def test_onnx_runtime_gives_the_same_for_any_batch_size(kind: str, spec: DataSpec, amount: Any) -> None:
    net = fitted(kind, spec)
    if amount is not None:
        net, _ = pruned(net, spec, **({"alpha": 9.0} if amount == "all" else {"amount": amount}))
    x, _ = rows(spec, 500, seed=2)
    x = torch.cat([x, net.threshold[:200, None].expand(-1, 3)])  # also values that are thresholds
    running = OnnxNet(to_onnx(net, x[:2]))
    for count in (1, 2, len(x)):
        assert (running(x[:count]) - net(x[:count])).abs().max() < 1e-5


def test_as_a_part_of_a_larger_net_it_is_traced() -> None:
    net = Forest(CLASSES, num_trees=3, max_depth=3)
    net.fit(*rows(CLASSES))
    x, _ = rows(CLASSES, 50, seed=2)
    running = OnnxNet(traced(nn.Sequential(nn.Identity(), net), (x[:2],), ("x",), "y"))
    assert torch.allclose(running(x), net(x), atol=1e-5) and torch.allclose(running(x[:1]), net(x[:1]), atol=1e-5)
