"""How much each unit of a group of channels matters: one number a unit, the smallest go first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from trainctl.compression.base import Context
from trainctl.compression.coupling import Group
from trainctl.compression.shapes import Slot

BATCHES = 32  # of training data that a Taylor score looks at


def magnitude(net: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
    """Squared weights that give and take a unit, and its norms' scales (Li et al. 2017, summed over the group)."""
    tensors = dict(net.named_parameters())
    return [
        _normalised(sum(_of_units(tensors[slot.tensor].detach().square(), slot) for slot in group.slots if slot.weighs))
        for group in groups
    ]


def batchnorm(net: nn.Module, groups: Sequence[Group]) -> list[Tensor | None]:
    """Size of the batch norms' scales (Liu et al. 2017); None for a group that has none."""
    found: list[Tensor | None] = []
    for group in groups:
        slots = [s for s in group.slots if s.weighs and is_batchnorm(net.get_submodule(s.tensor.rpartition(".")[0]))]
        scales = [_of_units(net.get_parameter(slot.tensor).detach().abs(), slot) for slot in slots]
        found.append(_normalised(sum(scales)) if scales else None)
    return found


def is_batchnorm(module: nn.Module) -> bool:
    """A batch norm with a scale of its own."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine


def taylor(net: nn.Module, groups: Sequence[Group], context: Context) -> list[Tensor]:
    """Squared first-order change of the loss without a unit, mean over training batches (Molchanov et al. 2019)."""
    asked = {parameter: parameter.requires_grad for parameter in net.parameters()}
    names = list({slot.tensor for group in groups for slot in group.slots if slot.consumes})
    for parameter in asked:
        parameter.requires_grad_(parameter.is_floating_point())
    parameters = [net.get_parameter(name) for name in names]
    scores = [torch.zeros(group.units, device=parameters[0].device) for group in groups]
    training = net.training
    net.eval()
    try:
        for x, y in itertools.islice(context.batches(), BATCHES):
            with torch.backends.cudnn.flags(enabled=False):  # recurrent layers there give no gradients in eval mode
                loss = context.loss(net(x), y)
                slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
            products = {name: _product(p, slope) for name, p, slope in zip(names, parameters, slopes, strict=True)}
            for group, score in zip(groups, scores, strict=True):
                score += sum(_of_units(products[slot.tensor], slot) for slot in group.slots if slot.consumes) ** 2
    finally:
        net.train(training)
        for parameter, wanted in asked.items():
            parameter.requires_grad_(wanted)
    return [_normalised(score) for score in scores]


def _product(parameter: Tensor, slope: Tensor | None) -> Tensor:
    return torch.zeros_like(parameter) if slope is None else parameter.detach() * slope


def _of_units(values: Tensor, slot: Slot) -> Tensor:
    """The sum of a tensor's values over all that belongs to a unit [units]."""
    rows = values.movedim(slot.dim, 0).flatten(1).sum(1) if values.dim() > 1 else values
    units = torch.zeros(len(slot.positions), dtype=rows.dtype, device=rows.device)
    owner = torch.tensor([unit for unit, at in enumerate(slot.positions) for _ in at], device=rows.device)
    index = torch.tensor([i for at in slot.positions for i in at], device=rows.device)
    return units.index_add(0, owner, rows[index])


def _normalised(scores: Tensor | int) -> Tensor:
    """Over their mean, so that groups can be ranked against each other."""
    assert isinstance(scores, Tensor)
    return scores / scores.mean().clamp(min=torch.finfo(scores.dtype).tiny)


def lowest(scores: Tensor, count: int) -> list[int]:
    """The `count` units with the smallest scores; the first of equals."""
    return sorted(scores.sort(stable=True).indices[:count].tolist())


def total(groups: Iterable[Group]) -> int:
    """Channels of all groups."""
    return sum(group.units * group.width for group in groups)
