"""One decision tree (CART: Breiman et al. 1984), grown by scikit-learn."""

from __future__ import annotations

from typing import Any

from trainctl.data.spec import DataSpec
from trainctl.models.tree_arrays import Trees


class Tree(Trees):
    """x of a table -> [B, spec.num_outputs]; splits by Gini impurity for classes, by variance for numbers.

    `max_depth`: questions from the root to a leaf, at most; null: no limit. `min_samples_leaf`: training rows in a
    leaf, at least. `max_features`: columns looked at for each split: a share, `sqrt`, `log2`, or null for all.
    A category counts as its code.
    """

    name = "tree"

    def __init__(
        self,
        spec: DataSpec,
        max_depth: int | None = None,
        min_samples_leaf: int = 20,
        max_features: float | str | None = None,
    ) -> None:
        super().__init__(spec)
        self.max_depth, self.min_samples_leaf, self.max_features = max_depth, min_samples_leaf, max_features

    def learner(self, seed: int, threads: int) -> Any:
        """DecisionTreeClassifier or DecisionTreeRegressor."""
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        kind = DecisionTreeClassifier if self.is_class else DecisionTreeRegressor
        return kind(
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features,
            random_state=seed,
        )
