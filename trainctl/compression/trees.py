"""prune compressor=trees: cost-complexity pruning of trees and forests (Breiman et al. 1984, chapter 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from trainctl.compression.base import Compressor, Context, Node
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

AMOUNTS = (0.25, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)  # that a search within a budget tries

Arrays = dict[str, np.ndarray]


def is_tree(net: nn.Module) -> bool:
    """Whether a net is a tree or a forest, kept as the arrays of trainctl.models.tree_arrays."""
    return bool(getattr(net, "estimator", False)) and "child" in net.state_dict()


class Trees(Compressor):
    """Makes leaves of the inner nodes that lower the training error least for each leaf they cost.

    alpha: a branch goes when it lowers the error (impurity weighted by the rows' share; standardised variance for
    numbers) by at most `alpha` for each of its leaves beyond one; scikit-learn's ccp_alpha. amount: the share of the
    leaves that goes at least, by the smallest alpha that does it; not used when `alpha` is given. A forest's trees are
    all pruned by the same alpha. Bytes and time fall; no fine-tuning follows.
    """

    verb = "prune"
    estimators = True

    def __init__(self, amount: float | None = 0.5, alpha: float | None = None, plan: Node | None = None) -> None:
        super().__init__(plan)
        if alpha is None and (isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1):
            raise UsageError(f"compressor.amount={amount} must be above 0 and below 1, e.g. compressor.amount=0.5")
        if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha >= 0):
            raise UsageError(f"compressor.alpha={alpha} must be a number of 0 or more, e.g. compressor.alpha=0.0001")
        self.amount, self.alpha = amount, alpha

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """A net that is neither tree nor forest."""
        if is_tree(net):
            return None
        return (
            f"compressor=trees prunes trees and forests, and a {type(net).__name__} is neither; "
            "use compressor=channels (smaller and faster) or compressor=magnitude"
        )

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The same tree or forest with fewer nodes."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
        links = weakest_links(arrays)
        alpha = links.alpha_for(self.amount or 0.0) if self.alpha is None else self.alpha
        pruned = collapsed(arrays, links.alpha <= alpha)
        adopting: Any = net
        adopting.adopt(pruned)
        before, after = num_leaves(arrays), num_leaves(pruned)
        self.plan = {"alpha": alpha, "leaves": after, "of": before, "nodes": len(pruned["feature"])}
        if after == before:
            context.note(f"no branch is as weak as alpha={alpha:g}: the smallest is {links.alpha.min():.3g}")
        elif after == len(pruned["roots"]):
            context.note("nothing is left but single leaves, which say the same for every row; prune less")
        return net

    def restore(self, net: nn.Module) -> nn.Module:
        """The net as it is: a tree takes the size of its weights when they are loaded."""
        return net

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """Shares of the leaves, few first."""
        return [{"amount": amount, "alpha": None} for amount in AMOUNTS]


@dataclass(frozen=True)
class Links:
    """For each node the alpha from which on it is a leaf (infinite where it is one) and the leaves that go then."""

    alpha: np.ndarray
    removed: np.ndarray

    def alpha_for(self, amount: float) -> float:
        """The smallest alpha by which at least the share `amount` of the leaves goes."""
        inner = np.flatnonzero(self.removed)
        if not len(inner):
            return 0.0
        order = inner[np.argsort(self.alpha[inner], kind="stable")]
        gone = np.cumsum(self.removed[order])
        trees = np.count_nonzero(np.isinf(self.alpha)) - gone[-1]  # a leaf of each stays to the end
        return float(self.alpha[order[np.searchsorted(gone, amount * (gone[-1] + trees))]])


def weakest_links(arrays: Mapping[str, np.ndarray]) -> Links:
    """Prune every tree to its root, weakest link first, and tell at which alpha each node became a leaf.

    A node that went with a branch above it has that branch's alpha and removes nothing itself.
    """
    links = Links(np.full(len(arrays["feature"]), np.inf), np.zeros(len(arrays["feature"]), np.int64))
    for root in arrays["roots"]:
        nodes = np.sort(np.concatenate(levels(arrays["child"], np.array([root]))))
        child = np.searchsorted(nodes, arrays["child"][nodes])
        error = arrays["weight"][nodes] * arrays["impurity"][nodes] / arrays["weight"][root]
        links.alpha[nodes], links.removed[nodes] = _pruned_to_root(child, error)
    return links


def _pruned_to_root(child: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and removed leaves of each node of one tree; sums in the order of scikit-learn, so that ties fall alike."""
    nodes = len(child)
    inner = child[:, 0] != np.arange(nodes)
    parent = np.full(nodes, -1)
    parent[child[inner]] = np.flatnonzero(inner)[:, None]
    above, sides, own = parent.tolist(), child.tolist(), error.tolist()
    below, leaves = [0.0] * nodes, [0] * nodes  # error and number of the leaves of each branch
    for leaf in np.flatnonzero(~inner).tolist():
        node = above[leaf]
        while node >= 0:
            below[node] += own[leaf]
            leaves[node] += 1
            node = above[node]
    strength = np.array([(own[k] - below[k]) / (leaves[k] - 1) if inner[k] else np.inf for k in range(nodes)])
    alpha, removed, reached = np.full(nodes, np.inf), np.zeros(nodes, np.int64), -np.inf
    while np.isfinite(strength[0]):
        weakest = int(strength.argmin())
        reached = max(reached, float(strength[weakest]))
        gone, change = leaves[weakest] - 1, own[weakest] - below[weakest]
        removed[weakest] = gone
        branch = [weakest]
        while branch:
            node = branch.pop()
            if np.isfinite(strength[node]):
                strength[node], alpha[node] = np.inf, reached
                branch += sides[node]
        node = above[weakest]
        while node >= 0:
            leaves[node] -= gone
            below[node] += change
            strength[node] = (own[node] - below[node]) / (leaves[node] - 1)
            node = above[node]
    return alpha, removed


def collapsed(arrays: Mapping[str, np.ndarray], leaf: np.ndarray) -> Arrays:
    """The arrays with the nodes where `leaf` made leaves and what is below them left out; the order stays."""
    own = np.arange(len(leaf))[:, None]
    child = np.where(leaf[:, None], own, arrays["child"])
    kept = np.sort(np.concatenate(levels(child, arrays["roots"])))
    is_leaf = child[kept, 0] == kept
    found = {name: array[kept] for name, array in arrays.items() if name != "roots"}
    found["child"] = np.searchsorted(kept, child[kept]).astype(arrays["child"].dtype)
    found["feature"][is_leaf] = 0
    found["threshold"][is_leaf] = 0.0
    return found | {"roots": np.searchsorted(kept, arrays["roots"]).astype(arrays["roots"].dtype)}


def levels(child: np.ndarray, roots: np.ndarray) -> list[np.ndarray]:
    """The nodes that are reached from `roots`, level by level."""
    found, level = [], roots
    while len(level):
        found.append(level)
        inner = level[child[level, 0] != level]
        level = child[inner].ravel()
    return found


def num_numbers(net: nn.Module) -> int:
    """What a tree or forest has for parameters: the thresholds of its questions and the values of its leaves."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
    leaves = num_leaves(arrays)
    return len(arrays["feature"]) - leaves + leaves * int(arrays["value"].shape[1])


def num_leaves(arrays: Mapping[str, np.ndarray]) -> int:
    """Leaves of all trees."""
    child = arrays["child"]
    return int((child[:, 0] == np.arange(len(child))).sum())
