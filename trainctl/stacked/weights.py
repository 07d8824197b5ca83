"""Parameters of K nets as the rows of one matrix, so that an optimizer step is a few operations over all of them.

A column is one element of one parameter; the columns of an optimizer group (weights decay, the rest does not) lie
side by side. Layers see each parameter as a view [K, *shape] of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainctl.stacked import Unstackable


@dataclass(frozen=True)
class Columns:
    """Where a parameter lies in the matrix."""

    name: str
    shape: torch.Size
    start: int
    stop: int


class Weights:
    """Trainable parameters [K, P] in `flat`, all values that layers read in `values` by name, [K, ...] each."""

    def __init__(self, nets: Sequence[nn.Module], optimizers: Sequence[Optimizer], device: torch.device) -> None:
        check_alike(nets)
        self.keys = [_keys(net, nets[0]) for net in nets]
        self.groups, self.columns = _layout(nets[0], optimizers[0])
        names = [name for name, _ in nets[0].named_parameters()]
        found = [dict(zip(names, net.parameters(), strict=True)) for net in nets]
        dtypes = {p.dtype for p in found[0].values()}
        if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
            raise Unstackable("the net's parameters have several types")
        with torch.no_grad():
            rows = [torch.cat([params[c.name].flatten() for c in self.columns]) for params in found]
            self.flat = torch.stack(rows).to(device)
            free = {c.name for c in self.columns}
            self.fixed = {
                name: torch.stack([params[name].detach() for params in found]).to(device)
                for name in found[0]
                if name not in free
            }
            buffers = zip(*(net.buffers() for net in nets), strict=True)
            self.buffers = {
                name: torch.stack(same).to(device)
                for (name, _), same in zip(nets[0].named_buffers(), buffers, strict=True)
            }
        self.values: dict[str, Tensor] = {}
        self.attach()

    def attach(self) -> None:
        """Make the views that layers read; wanted whenever `flat` is another tensor."""
        self.leaves = [self.view(self.flat, c).detach().requires_grad_() for c in self.columns]
        self.values.clear()
        self.values.update(self.fixed | self.buffers)
        self.values.update({c.name: leaf for c, leaf in zip(self.columns, self.leaves, strict=True)})

    def view(self, matrix: Tensor, columns: Columns) -> Tensor:
        """One parameter's columns of a matrix like `flat` as [K, *shape]."""
        return matrix[:, columns.start : columns.stop].view(len(matrix), *columns.shape)

    def penalised(self) -> list[tuple[int, int]]:
        """Ranges of columns that an L1 penalty counts: parameters of two dimensions or more."""
        return [(c.start, c.stop) for c in self.columns if len(c.shape) > 1]

    def keep(self, positions: Sequence[int], index: Tensor) -> None:
        """Drop all rows but those of `positions`, which `index` holds on the device."""
        self.keys = [self.keys[k] for k in positions]
        self.flat = self.flat.index_select(0, index)
        for kept in (self.fixed, self.buffers):
            for name, value in kept.items():
                kept[name] = value.index_select(0, index)
        self.attach()

    def state(self, position: int, matrix: Tensor, buffers: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of a member's `state_dict` on the CPU, with its parameters in `matrix`."""
        found = {c.name: self.view(matrix, c)[position] for c in self.columns}
        found |= {k: value[position] for k, value in (self.fixed | (buffers or self.buffers)).items()}
        keys = self.keys[position].items()
        return {own: found[k].detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for own, k in keys}


def check_alike(nets: Sequence[nn.Module]) -> None:
    """Unstackable unless all nets have the same modules, up to dropout, and the same shapes."""
    first = _shape(nets[0])
    for net in nets[1:]:
        if _shape(net) != first:
            raise Unstackable("the nets have different shapes")
    names = [name for name, _ in nets[0].named_parameters(remove_duplicate=False)]
    if len(names) != len(list(nets[0].parameters())):
        raise Unstackable("the net ties parameters")
    if set(nets[0].state_dict()) - set(names) - {name for name, _ in nets[0].named_buffers()}:
        raise Unstackable("the net has state that is neither parameter nor buffer")


def _shape(net: nn.Module) -> list[object]:
    """What must agree, in order. A net without dropout has no such layer, so names and numbers of layers may not."""
    modules = [
        (type(m), "" if isinstance(m, nn.ModuleList | nn.Sequential) else m.extra_repr())
        for m in net.modules()
        if type(m) is not nn.Dropout
    ]
    params = [(p.shape, p.dtype, p.requires_grad) for p in net.parameters()]
    return [*modules, *params, *((b.shape, b.dtype) for b in net.buffers())]


def _keys(net: nn.Module, first: nn.Module) -> dict[str, str]:
    """Names of a net's state and those of the same tensors in the first net."""
    own, other = ([*(n for n, _ in m.named_parameters()), *(n for n, _ in m.named_buffers())] for m in (net, first))
    same = dict(zip(own, other, strict=True))
    return {key: same[key] for key in net.state_dict()}


def _layout(net: nn.Module, optimizer: Optimizer) -> tuple[list[tuple[int, int]], list[Columns]]:
    """Columns of each optimizer group, and of each parameter."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups, columns, at = [], [], 0
    for group in optimizer.param_groups:
        start = at
        for parameter in group["params"]:
            columns.append(Columns(names[parameter], parameter.shape, at, at + parameter.numel()))
            at += parameter.numel()
        groups.append((start, at))
    return groups, columns
