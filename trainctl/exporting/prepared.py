"""A table's preprocessing as a torch module, so that the graphs made of it do what `data.preprocessing` does.

All of it is computed in float64, as there; only the result is float32. Knots are found by comparing with every n-th one
and then with those of one block, which an exported graph does in a few operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainctl.data.preprocessing import BEND, LARGEST, Preprocessing

DAY = 86_400.0


class Whole(nn.Module):
    """Raw rows -> the task's outputs: front (inputs -> x), net (x -> y) and tail (y -> outputs), each where given."""

    def __init__(
        self,
        front: nn.Module | None = None,
        net: nn.Module | None = None,
        tail: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.front, self.net, self.tail = front, net, tail

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        value = first
        if self.front is not None:
            value = self.front(first) if second is None else self.front(first, second)
        if self.net is not None:
            value = self.net(value)
        return value if self.tail is None else self.tail(value.float())


class Calls(nn.Module):
    """A function of a task as a module: uint8 images -> normalised float32, for one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Tensor) -> Tensor:
        return self.function(value)


class TableRows(nn.Module):
    """Numbers float64 [B, columns] (NaN: missing) and codes int64 [B, categories] -> x float32, as by `transform`.

    columns: names of the raw columns in the order of `numbers`; datetimes are seconds since 1970. A table without
    numbers (or without categories) takes the other tensor alone.
    """

    def __init__(self, fitted: Preprocessing, columns: Sequence[str]) -> None:
        super().__init__()
        self.numbers = [(columns.index(number.source), number.part) for number in fitted.numbers]
        self.coded, self.twins, self.marks = bool(fitted.vocabulary), fitted.twins, fitted.marks
        self.curved = [index for index, knots in enumerate(fitted.knots) if len(knots)]
        for name in ("fill", "center", "scale"):
            self.register_buffer(name, torch.from_numpy(np.array(getattr(fitted, name), dtype=np.float64)))
        # where each number is found among those on a linear scale and, behind them, the normal scores
        count = len(self.numbers)
        places = [count + self.curved.index(i) if i in self.curved else i for i in range(count)]
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))
        knots, scores = ([values[i] for i in self.curved] for values in (fitted.knots, fitted.scores))
        self.curves = Curves(knots, scores) if self.curved else None

    fill: Tensor
    center: Tensor
    scale: Tensor
    places: Tensor

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        parts = self._numbers(first) if self.numbers else []
        codes = second if self.numbers else first
        if self.coded and codes is not None:
            parts.append(codes)
        return torch.cat([part.float() for part in parts], 1)

    def _numbers(self, raw: Tensor) -> list[Tensor]:
        values = self._values(raw)
        missing = torch.isnan(values) | torch.isinf(values)
        values = torch.where(missing, self.fill, values)
        scaled = ((values - self.center) / self.scale).clamp(-LARGEST, LARGEST)
        both = scaled
        if self.curves is not None:
            both = torch.cat((scaled, self.curves(_columns(values, self.curved))), 1)
        parts = [both.index_select(1, self.places)]
        if self.twins:
            straight = _columns(scaled, self.twins)
            parts.append(straight / torch.sqrt(1.0 + (straight / BEND) ** 2))
        if self.marks:
            parts.append(_columns(missing, self.marks))
        return parts

    def _values(self, raw: Tensor) -> Tensor:
        """[B, numbers]: columns as they are, or parts of dates."""
        if all(part is None for _, part in self.numbers):
            return _columns(raw, [index for index, _ in self.numbers])
        dates = {index: date_parts(raw[:, index]) for index in {i for i, part in self.numbers if part is not None}}
        return torch.stack([raw[:, i] if part is None else dates[i][part] for i, part in self.numbers], 1)


class Curves(nn.Module):
    """values float64 [B, C] -> [B, C]: linear between the column's knots and flat beyond them, as numpy.interp."""

    def __init__(self, knots: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> None:
        super().__init__()
        count = len(knots)
        side = math.isqrt(max(map(len, knots)) - 1) + 1  # the knots of a column fit into side * side
        ordered = np.full((count, side * side), np.inf)
        lines = np.zeros((count, side * side, 3))  # knot, score and slope of what follows
        for index, (at, score) in enumerate(zip(knots, scores, strict=True)):
            ordered[index, : len(at)] = at
            slopes = np.append(np.diff(score) / np.diff(at), 0.0)
            lines[index, : len(at)] = np.stack((at, score, slopes), 1)
        self.register_buffer("lowest", torch.from_numpy(ordered[:, 0].copy()))
        self.register_buffer("pivots", torch.from_numpy(ordered[:, ::side].copy()))
        self.register_buffer("blocks", torch.from_numpy(ordered.reshape(count * side, side)))
        self.register_buffer("lines", torch.from_numpy(lines.reshape(-1, 3)))
        self.register_buffer("offset", torch.arange(count) * side)
        self.side = side

    lowest: Tensor
    pivots: Tensor
    blocks: Tensor
    lines: Tensor
    offset: Tensor

    def forward(self, values: Tensor) -> Tensor:
        values = torch.maximum(values, self.lowest)
        wide = values.unsqueeze(2)
        block = (wide >= self.pivots).sum(2) - 1 + self.offset
        place = block * self.side + (wide >= F.embedding(block, self.blocks)).sum(2) - 1
        line = F.embedding(place, self.lines)
        return line[:, :, 2] * (values - line[:, :, 0]) + line[:, :, 1]


def date_parts(seconds: Tensor) -> dict[str, Tensor]:
    """Seconds since 1970-01-01 00:00, float64 [B] -> year, month, day, weekday (Monday is 1), hour and minute [B].

    The civil calendar of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"; whole numbers in float64.
    """
    days = torch.floor(seconds / DAY)
    rest = seconds - days * DAY
    shifted = days + 719_468.0  # days since 0000-03-01
    era = torch.floor(shifted / 146_097.0)
    of_era = shifted - era * 146_097.0
    leaps = torch.floor(of_era / 1_460.0) - torch.floor(of_era / 36_524.0) + torch.floor(of_era / 146_096.0)
    years = torch.floor((of_era - leaps) / 365.0)
    of_year = of_era - (365.0 * years + torch.floor(years / 4.0) - torch.floor(years / 100.0))
    shifted_month = torch.floor((5.0 * of_year + 2.0) / 153.0)  # March is 0
    month = torch.where(shifted_month < 10.0, shifted_month + 3.0, shifted_month - 9.0)
    hour = torch.floor(rest / 3_600.0)
    return {
        "year": years + era * 400.0 + (month <= 2.0).double(),
        "month": month,
        "day": of_year - torch.floor((153.0 * shifted_month + 2.0) / 5.0) + 1.0,
        "weekday": (days + 3.0) - torch.floor((days + 3.0) / 7.0) * 7.0 + 1.0,
        "hour": hour,
        "minute": torch.floor((rest - hour * 3_600.0) / 60.0),
    }


def _columns(values: Tensor, index: list[int]) -> Tensor:
    return values if index == list(range(values.shape[1])) else values.index_select(1, torch.tensor(index))
