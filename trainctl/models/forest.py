"""A random forest (Breiman 2001), grown by scikit-learn."""

from __future__ import annotations

from typing import Any

from trainctl.data.spec import DataSpec
from trainctl.models.tree_arrays import Trees


class Forest(Trees):
    """x of a table -> [B, spec.num_outputs], the mean of `num_trees` trees, each grown on a bootstrap sample.

    `max_depth`, `min_samples_leaf` as in `Tree`. `max_features`: columns looked at for each split: a share, `sqrt`,
    `log2`, null for all, or `auto`: `sqrt` for classes, a third for numbers (Breiman's advice).
    """

    name = "forest"

    def __init__(
        self,
        spec: DataSpec,
        num_trees: int = 100,
        max_depth: int | None = None,
        min_samples_leaf: int = 3,
        max_features: float | str | None = "auto",
    ) -> None:
        super().__init__(spec)
        self.num_trees, self.max_depth, self.min_samples_leaf = num_trees, max_depth, min_samples_leaf
        auto = "sqrt" if self.is_class else 1 / 3
        self.max_features = auto if max_features == "auto" else max_features

    def learner(self, seed: int, threads: int) -> Any:
        """RandomForestClassifier or RandomForestRegressor."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        kind = RandomForestClassifier if self.is_class else RandomForestRegressor
        return kind(
            n_estimators=self.num_trees,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features,
            random_state=seed,
            n_jobs=threads,
        )
