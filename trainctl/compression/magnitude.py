"""prune compressor=magnitude: the smallest weights become zero (Han et al. 2015; Zhu & Gupta 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trainctl.compression import masks
from trainctl.compression.base import Compressor, Context, Node
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError, did_you_mean

SCOPES = ("global", "layer", "lamp")
SCHEDULES = ("once", "gradual")
RAMP = 0.75  # the share of fine-tuning in which a gradual schedule reaches its amount; the rest recovers
AMOUNTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FEW = 0.01  # a layer that keeps a smaller share than this is named


class Magnitude(Compressor):
    """Sets the share `amount` of the weights to zero and holds them there while the net is fine-tuned.

    scope: weights compete with all others (global), within their layer (layer), or with all others after each square
    was divided by those of the larger ones in its layer, so that no layer runs dry (lamp; Lee et al. 2021).
    schedule: at once, or along the cubic curve of Zhu & Gupta. embeddings: their tables are among the weights. Zeros
    only: bytes and time stay what they were.
    """

    verb = "prune"
    trains = True
    masks = True

    def __init__(
        self,
        amount: float = 0.8,
        scope: Literal["global", "layer", "lamp"] = "lamp",
        schedule: Literal["once", "gradual"] = "gradual",
        exclude: Sequence[str] = (),
        embeddings: bool = True,
        plan: Node | None = None,
    ) -> None:
        super().__init__(plan)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1:
            raise UsageError(f"compressor.amount={amount} must be above 0 and below 1, e.g. compressor.amount=0.8")
        for key, value, known in (("scope", scope, SCOPES), ("schedule", schedule, SCHEDULES)):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"compressor.{key}={value} is not one of {', '.join(known)}{hint}")
        self.amount, self.scope, self.schedule = amount, scope, schedule
        self.exclude, self.embeddings = tuple(exclude), embeddings

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """A net whose weights another engine holds, that is quantized, or that has no weight matrices."""
        return masks.refusal(net, self.exclude, self.embeddings)

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The net with the hook that holds the zeros; with a schedule they come as it is trained."""
        names = list(masks.prunable(net, self.exclude, self.embeddings))
        ramp = round(RAMP * context.steps) if self.schedule == "gradual" else 0
        masks.MaskHook(names, self.select(), ramp).attach(net)
        return net

    def select(self) -> Smallest:
        """The rule for which weights go."""
        return Smallest(self.amount, self.scope)

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        """The zeros are in the weights and the hook is gone."""
        hook = masks.release(net)
        if hook is not None:
            for name, mask in hook.pruned.items():
                if (kept := 1 - float(mask.float().mean())) < FEW:
                    context.note(
                        f"`{name}` keeps {kept:.2%} of its weights; `compressor.scope=lamp` spares small layers"
                    )
            pruned, weights = (sum(count(m) for m in hook.pruned.values()) for count in (Tensor.sum, Tensor.numel))
            self.plan = {"zeros": int(pruned), "weights": int(weights)}
        return net

    def restore(self, net: nn.Module) -> nn.Module:
        """The net as it is: the zeros come with the weights."""
        return net

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """Half of the weights to 95 %."""
        kept = {"scope": self.scope, "schedule": self.schedule, "exclude": list(self.exclude)}
        return [{"amount": amount, **kept, "embeddings": self.embeddings} for amount in AMOUNTS]


class Smallest:
    """Selects the share `amount` of all weights with the smallest magnitude in `scope`."""

    def __init__(self, amount: float, scope: str) -> None:
        self.amount, self.scope = amount, scope

    def __call__(self, weights: masks.Weights, progress: float) -> dict[str, Tensor]:
        amount = self.amount * (1 - (1 - progress) ** 3)
        scores = {name: weight.abs().flatten().float() for name, weight in weights.items()}
        if self.scope == "layer":
            masked = {name: smallest(score, amount) for name, score in scores.items()}
        else:
            if self.scope == "lamp":
                scores = {name: lamp(score) for name, score in scores.items()}
            whole = smallest(torch.cat(list(scores.values())), amount)
            masked = dict(zip(scores, torch.split(whole, [len(score) for score in scores.values()]), strict=True))
        return {name: mask.view(weights[name].shape) for name, mask in masked.items()}


def smallest(scores: Tensor, amount: float) -> Tensor:
    """True for the share `amount` of `scores` [N] that is smallest, to the entry exactly."""
    found = torch.zeros_like(scores, dtype=torch.bool)
    found[scores.topk(round(amount * len(scores)), largest=False, sorted=False).indices] = True
    return found


def lamp(magnitudes: Tensor) -> Tensor:
    """Layer-adaptive scores [N] of one layer: each square over the sum of it and all larger ones (the largest: 1)."""
    squares, order = magnitudes.double().square().sort(stable=True)
    larger = squares.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.empty_like(squares).scatter_(0, order, squares / larger).float()
