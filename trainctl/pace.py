"""How long the next point of a compression search will take, judged by those before it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tried:
    """A share of the multiply-adds that was pruned, and the seconds that the point and its fine-tuning took."""

    amount: float
    epochs: int
    seconds: float
    fitting: float


@dataclass
class Pace:
    """The points so far; an epoch takes time in proportion to the multiply-adds that are left."""

    tried: list[Tried] = field(default_factory=list)

    def epochs(self, amount: float, most: int, least: int, left: float) -> int:
        """Of `most` epochs those that fit into `left` seconds; 0 when they are fewer than `least`.

        All of them for the first point.
        """
        if not self.tried:
            return most
        like = min(self.tried, key=lambda one: abs(one.amount - amount))
        each = like.fitting * (1 - amount) / (1 - like.amount) / like.epochs
        room = left - (like.seconds - like.fitting)
        fit = most if each * most < room else int(room / each)
        return fit if fit >= least else 0
