"""A linear model: logistic or linear regression, by gradient descent."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs


class Linear(nn.Sequential):
    """x of any kind -> [B, spec.num_outputs].

    Each categorical column gets one weight per value and output (what one-hot columns would give); images are
    flattened, tokens averaged.
    """

    def __init__(self, spec: DataSpec) -> None:
        if spec.kind == "table" and spec.categories:
            super().__init__(_OneHotLinear(spec))
        else:
            vector = inputs.flat(spec, embedding_dim=1)
            super().__init__(vector, nn.Linear(vector.width, spec.num_outputs))


class _OneHotLinear(nn.Module):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_numeric = len(spec.numeric)
        self.numeric = nn.Linear(self.num_numeric, spec.num_outputs) if self.num_numeric else None
        self.embed = inputs.ColumnEmbedding([c.size for c in spec.categories], spec.num_outputs)
        nn.init.zeros_(self.embed.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.embed(x[:, self.num_numeric :]).sum(1)
        return out if self.numeric is None else out + self.numeric(x[:, : self.num_numeric])
