"""Decision trees as tensors: what a fitted tree or forest keeps, and how rows fall through it.

The arrays are buffers, so a forest's weights are model.safetensors like a net's. Their sizes are known only when the
trees have grown: `adopt` takes arrays of any size, and loading a state dict goes through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs

SMALLEST = float(np.finfo(np.float32).eps)  # of a probability, so that its logarithm is finite; scikit-learn's too


class Trees(nn.Module, ABC):
    """x of a table [B, features] -> [B, spec.num_outputs]: log-probabilities, or values on the standardised scale.

    Buffers, with nodes counted over all trees and every child after its parent: feature [nodes] (column that is asked),
    threshold [nodes] (left when x <= it), child [nodes, 2] (left and right; a leaf's are itself), value
    [nodes, outputs] (class shares, or the mean), impurity and weight [nodes] (of the training rows there, for
    pruning), roots [trees]. A net's output is the mean over trees. Before `fit` it is one leaf that knows nothing.
    """

    estimator: ClassVar[bool] = True  # fitted at once: a task calls `fit`, and there is nothing to descend along
    name: ClassVar[str]  # as in model=...

    feature: Tensor
    threshold: Tensor
    child: Tensor
    value: Tensor
    impurity: Tensor
    weight: Tensor
    roots: Tensor

    def __init__(self, spec: DataSpec) -> None:
        inputs.require_kind(spec, self.name, "table")
        super().__init__()
        self.num_features, self.is_class, self.depth = spec.num_features, spec.target == "class", 0
        share = 1.0 / spec.num_outputs if self.is_class else 0.0
        for name, tensor in {
            "feature": torch.zeros(1, dtype=torch.int32),
            "threshold": torch.zeros(1),
            "child": torch.zeros((1, 2), dtype=torch.int32),
            "value": torch.full((1, spec.num_outputs), share),
            "impurity": torch.zeros(1, dtype=torch.float64),
            "weight": torch.zeros(1, dtype=torch.float64),
            "roots": torch.zeros(1, dtype=torch.int32),
        }.items():
            self.register_buffer(name, tensor)

    @abstractmethod
    def learner(self, seed: int, threads: int) -> Any:
        """scikit-learn's estimator that grows the trees."""

    def fit(self, x: Tensor, y: Tensor, seed: int = 0, weight: Tensor | None = None, threads: int = 1) -> None:
        """Grow the trees on x [N, features] and y [N]: class indices, or standardised values.

        weight [N]: how much each row counts. The result depends on the rows and the seed, not on `threads`.
        """
        given = None if weight is None else weight.double().cpu().numpy()
        rows, target = x.float().cpu().numpy(), y.cpu().numpy()
        target = target if self.is_class else target.astype(np.float64)
        grown = self.learner(seed, threads).fit(rows, target, sample_weight=given)
        columns = grown.classes_.astype(int) if self.is_class else np.arange(1)  # a class may be missing in train
        self.adopt(_joined([tree.tree_ for tree in getattr(grown, "estimators_", [grown])], columns, self.outputs))

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return self.value.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        # tree by tree and with 32-bit indices, so that what is looked up stays in the cache: 5 times as fast
        rows, trees = x.shape[0], len(self.roots)
        flat, child = x.float().flatten(), self.child.flatten()
        first = torch.arange(rows, dtype=torch.int32, device=x.device).mul(x.shape[1])
        start, node = first.expand(trees, rows).reshape(-1), self.roots[:, None].expand(trees, rows).reshape(-1)
        for _ in range(self.depth):
            seen = flat.index_select(0, self.feature.index_select(0, node) + start)
            node = child.index_select(0, 2 * node + (seen > self.threshold.index_select(0, node)))
        mean = self.value.index_select(0, node).view(trees, rows, -1).mean(0)
        return mean.clamp(min=SMALLEST).log() if self.is_class else mean

    def adopt(self, arrays: Mapping[str, Any]) -> None:
        """Take arrays (tensors or NumPy) of other sizes; ValueError says in half a sentence what is wrong with them."""
        own = dict(self.named_buffers(recurse=False))
        given = {name: torch.as_tensor(arrays[name]).detach().clone() for name in own if name in arrays}
        problem = _problem(given, own, self.num_features)
        if problem:
            raise ValueError(problem)
        for name, tensor in given.items():
            setattr(self, name, tensor.to(own[name].device))
        self.depth = _depth(given["child"].cpu().numpy(), given["roots"].cpu().numpy())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        arrays = {name: state_dict[prefix + name] for name in self._buffers if prefix + name in state_dict}
        if len(arrays) == len(self._buffers):  # what is missing, torch says
            self.adopt(arrays)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trees:
        # to another device, never to another precision: a threshold that is rounded sends rows the wrong way
        for name, tensor in self.named_buffers(recurse=False):
            setattr(self, name, tensor.to(fn(tensor).device))
        return self


def _joined(trees: list[Any], columns: np.ndarray, outputs: int) -> dict[str, np.ndarray]:
    """The arrays of scikit-learn's trees, one after the other."""
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    parts: dict[str, list[np.ndarray]] = {}
    for tree, start in zip(trees, starts[:-1], strict=True):
        leaf, own = tree.children_left < 0, np.arange(tree.node_count)
        value = np.zeros((tree.node_count, outputs), np.float32)
        value[:, columns] = tree.value[:, 0, :]
        sides = [np.where(leaf, own, side) + start for side in (tree.children_left, tree.children_right)]
        for name, array in {
            "feature": np.where(leaf, 0, tree.feature).astype(np.int32),
            "threshold": np.where(leaf, 0.0, rounded_down(tree.threshold)).astype(np.float32),
            "child": np.stack(sides, 1).astype(np.int32),
            "value": value,
            "impurity": tree.impurity,
            "weight": tree.weighted_n_node_samples,
        }.items():
            parts.setdefault(name, []).append(array)
    return {name: np.concatenate(some) for name, some in parts.items()} | {"roots": starts[:-1].astype(np.int32)}


def rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 not above each float64: the same float32 x are <= it (scikit-learn compares with the latter).

    Rounding to the nearest would send an x that equals it to the other side.
    """
    nearest = threshold.astype(np.float32)
    return np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _problem(given: Mapping[str, Tensor], own: Mapping[str, Tensor], features: int) -> str:
    """What keeps arrays from being trees over `features` columns; a file may come from anywhere."""
    for name, tensor in own.items():
        if name not in given:
            return f"the config's net has `{name}`, the run has not"
        array = given[name]
        fits = array.dtype == tensor.dtype and array.ndim == tensor.ndim and array.shape[1:] == tensor.shape[1:]
        if not fits or (name != "roots" and len(array) != len(given["feature"])) or not len(array):
            return f"`{name}` is {str(array.dtype).removeprefix('torch.')} {list(array.shape)}, which is no such tree"
    nodes, children, roots = len(given["feature"]), given["child"].long(), given["roots"].long()
    own_number = torch.arange(nodes, device=children.device)
    inner = (children != own_number[:, None]).any(1)
    below = torch.cat([children[inner].flatten(), roots])
    in_order = bool((children[inner] > own_number[inner, None]).all()) and len(torch.unique(below)) == len(below)
    if not in_order or below.min() < 0 or below.max() >= nodes:
        return "`child` does not form trees"
    known = (given["feature"] >= 0) & (given["feature"] < features)
    return "" if known.all() else f"`feature` names columns beyond the {features} of the data"


def _depth(children: np.ndarray, roots: np.ndarray) -> int:
    """Questions on the longest way from a root to a leaf."""
    depth, level = 0, roots
    while len(inner := level[children[level, 0] != level]):
        depth, level = depth + 1, children[inner].ravel()
    return depth
