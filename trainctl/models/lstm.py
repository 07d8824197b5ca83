"""A bidirectional LSTM for sequences of tokens."""

from __future__ import annotations

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.models import inputs
from trainctl.models.layers import check_dropout


class LSTM(nn.Module):
    """Token ids [B, length] -> [B, spec.num_outputs]: the mean of the outputs over the tokens that are not padding."""

    def __init__(
        self, spec: DataSpec, token_dim: int = 64, hidden_dim: int = 64, num_layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        inputs.require_kind(spec, "lstm", "sequence")
        self.embed = nn.Embedding(spec.num_tokens, token_dim, padding_idx=0)
        between = check_dropout(dropout) if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(token_dim, hidden_dim, num_layers, batch_first=True, bidirectional=True, dropout=between)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden_dim, spec.num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.embed(x))
        real = (x != 0).unsqueeze(2)
        mean = (outputs * real).sum(1) / real.sum(1).clamp(min=1)
        return self.head(mean)  # type: ignore[no-any-return]
