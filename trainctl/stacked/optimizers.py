"""torch's AdamW, Adam and SGD for K nets: the rows of one matrix [K, P], each with its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainctl.stacked import Unstackable

Range = tuple[int, int]


def stacked(optimizers: Sequence[Optimizer], groups: Sequence[Range], like: Tensor) -> StackedAdam | StackedSGD:
    """One update for all members' optimizers; `groups` are the columns of their groups. Unstackable for other kinds."""
    kinds = {type(o) for o in optimizers}
    if len(kinds) > 1:
        raise Unstackable("the optimizers differ")
    kind = kinds.pop()
    if kind not in (Adam, AdamW, SGD):
        raise Unstackable(f"there is no stacked form of {kind.__name__}")
    for group in (g for o in optimizers for g in o.param_groups):
        _check(group)
    return (StackedSGD if kind is SGD else StackedAdam)(optimizers, groups, like)


def _check(group: dict[str, Any]) -> None:
    for name in ("amsgrad", "maximize", "dampening", "differentiable"):
        if group.get(name):
            raise Unstackable(f"an optimizer with {name}")
    if isinstance(group["lr"], Tensor):
        raise Unstackable("a learning rate that is a tensor")


class _Stacked:
    """Settings of each member, read from its own torch optimizer, which schedulers may change."""

    names: tuple[str, ...]

    def __init__(self, optimizers: Sequence[Optimizer], groups: Sequence[Range], like: Tensor) -> None:
        self.optimizers, self.groups, self.like = list(optimizers), list(groups), like
        self.settings: dict[str, Tensor | float] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the settings again."""
        first = [o.param_groups[0] for o in self.optimizers]
        for name in self.names:
            self._set(name, [_setting(group, name) for group in first])
        self.decays: list[tuple[Range, Tensor]] = []
        for number, columns in enumerate(self.groups):
            decay = [float(o.param_groups[number]["weight_decay"]) for o in self.optimizers]
            if any(decay):
                self.decays.append((columns, torch.tensor(decay, dtype=torch.float64)[:, None]))

    def set_lr(self, rates: Sequence[float]) -> None:
        """The learning rate of each member."""
        self._set("lr", rates)

    def _set(self, name: str, values: Sequence[float]) -> None:
        # one number is faster than a column of equal ones; float64, since 1 - beta2 has few digits in float32
        column = torch.tensor(values, dtype=torch.float64)[:, None]
        self.settings[name] = values[0] if len(set(values)) == 1 else column

    def _cast(self, value: Tensor | float) -> Any:
        """A setting as the matrices have it."""
        return value.to(self.like) if isinstance(value, Tensor) else value

    def _keep(self, positions: Sequence[int]) -> None:
        self.optimizers = [self.optimizers[k] for k in positions]
        self.refresh()


def _setting(group: dict[str, Any], name: str) -> float:
    if name in ("beta1", "beta2"):
        return float(group["betas"][name == "beta2"])
    return float(group[name])


class StackedAdam(_Stacked):
    """Adam, and AdamW where the decay is decoupled."""

    names = ("lr", "beta1", "beta2", "eps")

    def __init__(self, optimizers: Sequence[Optimizer], groups: Sequence[Range], like: Tensor) -> None:
        super().__init__(optimizers, groups, like)
        self.decoupled = bool(optimizers[0].param_groups[0].get("decoupled_weight_decay"))
        self.mean, self.square, self.scratch = (torch.zeros_like(like) for _ in range(3))
        self.steps = 0

    def __call__(self, weights: Tensor, gradients: Tensor) -> None:
        """One step, in place."""
        self.steps += 1
        lr, beta1, beta2, eps = (self.settings[name] for name in self.names)
        for (start, stop), decay in self.decays:
            if self.decoupled:
                weights[:, start:stop].mul_(self._cast(1 - lr * decay))
            else:
                gradients[:, start:stop].addcmul_(weights[:, start:stop], self._cast(decay))
        self.mean.lerp_(gradients, self._cast(1 - beta1))
        if isinstance(beta2, Tensor):
            self.square.mul_(self._cast(beta2)).add_(gradients.square_().mul_(self._cast(1 - beta2)))
        else:
            self.square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        root = torch.sqrt(self.square, out=self.scratch)
        root.div_(self._cast((1 - beta2**self.steps) ** 0.5)).add_(self._cast(eps))
        size = self._cast(lr / (1 - beta1**self.steps))
        if isinstance(size, Tensor):
            weights.addcmul_(torch.div(self.mean, root, out=root), size, value=-1)
        else:
            weights.addcdiv_(self.mean, root, value=-size)

    def keep(self, positions: Sequence[int], index: Tensor) -> None:
        """Drop the other members."""
        self.mean, self.square = self.mean.index_select(0, index), self.square.index_select(0, index)
        self.scratch = torch.empty_like(self.mean)
        self._keep(positions)


class StackedSGD(_Stacked):
    """SGD with momentum, Nesterov's or not."""

    names = ("lr", "momentum")

    def __init__(self, optimizers: Sequence[Optimizer], groups: Sequence[Range], like: Tensor) -> None:
        super().__init__(optimizers, groups, like)
        kinds = {bool(o.param_groups[0]["nesterov"]) for o in optimizers}
        if len(kinds) > 1:
            raise Unstackable("the optimizers differ in nesterov")
        self.nesterov = kinds.pop()
        self.buffer = torch.zeros_like(like)

    def __call__(self, weights: Tensor, gradients: Tensor) -> None:
        """One step, in place."""
        lr, momentum = (self._cast(self.settings[name]) for name in self.names)
        for (start, stop), decay in self.decays:
            gradients[:, start:stop].addcmul_(weights[:, start:stop], self._cast(decay))
        direction = gradients
        if isinstance(momentum, Tensor) or momentum:
            self.buffer.mul_(momentum).add_(gradients)
            direction = self.buffer
            if self.nesterov:
                direction = gradients.add_(self.buffer * momentum)
        if isinstance(lr, Tensor):
            weights.addcmul_(direction, lr, value=-1)
        else:
            weights.add_(direction, alpha=-lr)

    def keep(self, positions: Sequence[int], index: Tensor) -> None:
        """Drop the other members."""
        self.buffer = self.buffer.index_select(0, index)
        self._keep(positions)
