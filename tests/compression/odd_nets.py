"""Nets of the kind that is hard to follow: what a graph of layers misreads in them must be found out, not believed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, CLASSES, NUM_TOKENS = 32, 5, 50


class Table(nn.Module):
    """A dense layer of 32, something of a subclass, and a dense layer for the classes."""

    inputs = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, WIDTH), nn.Linear(self.inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x).relu(), x))  # type: ignore[no-any-return]

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        """What the subclass does."""
        raise NotImplementedError


class Gated(Table):
    """A GLU: the graph takes it for an operation that keeps the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 2 * WIDTH)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return functional.glu(self.gate(h), -1)


class Cell(Table):
    """A cell whose input is its state, too: the graph's search for what depends on it does not end."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.cell(h, h)  # type: ignore[no-any-return]


class Weighed(Table):
    """Products with weights that another layer gives: the search grows without end."""

    inputs = 4

    def __init__(self) -> None:
        super().__init__()
        self.gives = nn.Linear(WIDTH, 4 * WIDTH)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", self.gives(h).view(len(h), 4, -1), h)


class Unfolded(Table):
    """Neurons as the length of a signal: they cannot go, while what comes after them can."""

    inputs = 8 * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 3, padding=1)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.conv(h[:, None]).flatten(1)  # type: ignore[no-any-return]


class Taught(Table):
    """A second head that is there while the net is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(WIDTH, CLASSES)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        if self.training:
            return h + self.second(h.view(len(h), 1, WIDTH)).mean()  # type: ignore[no-any-return]
        return h


class BareNorm(Table):
    """A layer norm without weights, whose shape is a number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.norm(h)  # type: ignore[no-any-return]


class RootNorm(Table):
    """An RMSNorm with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.norm(h)  # type: ignore[no-any-return]


class BareRootNorm(RootNorm):
    """One without: the graph does not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, elementwise_affine=False)


class Grouped(Table):
    """A norm over groups of neurons: with one neuron in each there is nothing to take a mean of."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, WIDTH)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.norm(h)  # type: ignore[no-any-return]


class Crossed(Table):
    """Two layers whose outputs meet in a product: no layer takes their channels."""

    inputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.einsum("bi,bi->b", self.query(h), self.key(h))[:, None]


class Dense(nn.Module):
    """Every layer reads the input and all that was computed before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(19, 16, 3, padding=1)
        self.last = nn.Linear(35, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([x, self.first(x).relu()], 1)
        h = torch.cat([h, self.second(h).relu()], 1)
        return self.last(h.mean((2, 3)))  # type: ignore[no-any-return]


class LastStates(nn.Module):
    """Both directions' last states beside each other."""

    def __init__(self, kind: type[nn.RNNBase] = nn.GRU, num_tokens: int = NUM_TOKENS) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_tokens, 16)
        self.rnn = kind(16, 24, 2, bidirectional=True, batch_first=True)  # type: ignore[call-arg]
        self.middle, self.last = nn.Linear(48, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(self.embed(x))[1]
        state = state[0] if isinstance(state, tuple) else state
        return self.last(self.middle(torch.cat([state[-2], state[-1]], -1)).relu())  # type: ignore[no-any-return]


class LearnedState(nn.Module):
    """The state that a recurrent layer begins with is a parameter."""

    def __init__(self, num_tokens: int = NUM_TOKENS) -> None:
        super().__init__()
        self.embed, self.start = nn.Embedding(num_tokens, 16), nn.Parameter(torch.zeros(1, 1, 24))
        self.rnn, self.last = nn.GRU(16, 24, batch_first=True), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        start = self.start.expand(-1, len(x), -1).contiguous()
        return self.last(self.rnn(self.embed(x), start)[0][:, -1])  # type: ignore[no-any-return]
