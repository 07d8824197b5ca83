"""Which channels of a net can only go together, and trying each such group before it is believed.

Torch-Pruning's dependency graph (Fang et al. 2023) proposes the groups; what it misreads in a net of unknown make is
found out here: with the channels removed, the net must compute what it computes with zeros in their place.
"""

from __future__ import annotations

import copy
import math
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainctl.compression.graph import Item, proposed
from trainctl.compression.removal import mask, remove
from trainctl.compression.shapes import Conv, LayerNorms, Removal, Slot, Unfit, is_depthwise, slots

Numbers = tuple[tuple[str, str, int], ...]
HEADS = ("num_heads", "n_heads", "n_head", "nheads", "nhead", "heads", "num_attention_heads")
GIVING = (nn.Linear, Conv, nn.RNNBase, nn.Embedding, nn.MultiheadAttention, nn.Parameter)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}


@dataclass(frozen=True)
class Group:
    """Channels of several layers that go together: `units`, each of `width` channels of the layer `name`.

    numbers: (module, attribute, fall for each unit). layers: those that give the channels.
    """

    name: str
    units: int
    width: int
    slots: tuple[Slot, ...]
    layers: tuple[str, ...]
    numbers: Numbers = ()

    @property
    def is_heads(self) -> bool:
        """Whether its units are heads of attention."""
        return any(attribute in HEADS for _, attribute, _ in self.numbers)

    def removal(self, units: Sequence[int], into: Removal | None = None) -> Removal:
        """What taking out `units` means for the net."""
        into = into or Removal()
        into.add(self.slots, units, self.numbers)
        return into


class Scratch:
    """A copy of a net on which removals are tried, in double precision where the net allows that.

    Norms keep no statistics in it: those depend on all channels, so zeros would not be the same as none.
    """

    def __init__(self, net: nn.Module, example: Tensor, embeddings: bool = False) -> None:
        self.net, self.x = copy.deepcopy(net).eval(), example
        named = list(self.net.named_parameters(remove_duplicate=False))
        uses = Counter(id(parameter) for _, parameter in named)
        self._shared = {name for name, parameter in named if uses[id(parameter)] > 1}
        for parameter in self.net.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self.dtype = torch.float64
        try:
            self.net.double()(self._as(torch.float64))
        except Exception:  # it converts to float32 itself
            self.dtype = torch.float32
            self.net.float()
        self.x = self._as(self.dtype)
        self._trainable = self._runs_in_training()
        self.groups, self.left = self._find(embeddings)

    def _as(self, dtype: torch.dtype) -> Tensor:
        return self.x.to(dtype) if self.x.is_floating_point() else self.x

    def measured(self, removal: Removal, measure: Callable[[nn.Module, Tensor], int]) -> int:
        """measure(net, x) of the net after a removal, which is undone."""
        with _undone(remove(self.net, removal)):
            return measure(self.net, self.x)

    def holds(self, removal: Removal) -> bool:
        """Whether the smaller net runs and gives what the net with zeros gives; Unfit when its output is smaller."""
        try:
            with _undone(mask(self.net, removal)):
                expected: Tensor = self.net(self.x).detach()
            with _undone(remove(self.net, removal)):
                found: Tensor = self.net(self.x).detach()
        except Exception:  # whatever a net of unknown make raises when a shape does not fit
            return False
        if found.shape != expected.shape:
            raise Unfit("")
        error, size = float((found - expected).abs().max()), float(expected.abs().max())
        return math.isfinite(size) and error <= TOLERANCE[self.dtype] * max(size, 1e-30)

    def trains(self, removal: Removal) -> bool:
        """Whether the smaller net runs in training mode, too: a net may have layers for that alone."""
        with _undone(remove(self.net, removal)):
            return self._runs_in_training()

    def _runs_in_training(self) -> bool:
        statistics = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self.net.train()(self.x)
        except Exception:  # as in `holds`
            return False
        finally:
            self.net.eval()
            for name, buffer in self.net.named_buffers():
                buffer.copy_(statistics[name])
        return True

    def _find(self, embeddings: bool) -> tuple[list[Group], dict[str, str]]:
        candidates, left = proposed(self.net, self.x, embeddings)
        for module in self.net.modules():
            # one that the graph does not see is not settled afterwards either: with it the trial must fail
            unseen = isinstance(module, nn.RMSNorm) and not module.elementwise_affine
            if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) and not unseen:
                module.forward = types.MethodType(_scaled, module)  # type: ignore[method-assign]
        groups: list[Group] = []
        for items in candidates:
            try:
                groups.append(self._tried(items))
            except Unfit as reason:
                left |= dict.fromkeys(_giving(items), str(reason)) if str(reason) else {}
        return groups, left

    def _tried(self, items: list[Item]) -> Group:
        """The group in the first reading that holds; Unfit with the reason, empty when it needs no word."""
        giving = [
            item for item in items if item.out and isinstance(item.module, nn.Linear | Conv | nn.RNNBase | nn.Embedding)
        ]
        if len(items[0].places) < 2 or all(is_depthwise(item.module) for item in giving):
            raise Unfit("")  # nothing to take, or the channels are those of the net's input
        for units, width, numbers in self._readings(items):
            group = self._group(items, units, width, numbers)
            half = torch.randperm(group.units, generator=torch.Generator().manual_seed(0))[: group.units // 2].tolist()
            removal = group.removal(half)
            if self.holds(removal):
                if self._trainable and not self.trains(removal):
                    raise Unfit("what is computed in training alone does not take fewer of its channels")
                return group
        raise Unfit("what follows it does not take its channels one by one")

    def _group(self, items: list[Item], units: list[list[int]], width: int, numbers: Numbers) -> Group:
        for item in items:
            if isinstance(item.module, LayerNorms) and not item.module.elementwise_affine:
                numbers += ((item.name, "normalized_shape", sum(len(item.places[channel]) for channel in units[0])),)
        return Group(_name(items), len(units), width, tuple(self._slots(items, units)), _giving(items), numbers)

    def _slots(self, items: list[Item], units: list[list[int]]) -> Iterator[Slot]:
        for item in items:
            where = [[place for channel in unit for place in item.places[channel]] for unit in units]
            for slot in slots(item.name, item.module, item.out, where):
                if slot.tensor in self._shared:
                    raise Unfit("its weights are shared with another layer")
                yield slot

    def _readings(self, items: list[Item]) -> Iterator[tuple[list[list[int]], int, Numbers]]:
        """Units, their width and what falls with each: channels, channels of every group of a layer, whole heads."""
        count = len(items[0].places)
        parts = math.lcm(*(_parts(item.module, count) for item in items))
        owners = sorted({item.name.rpartition(".")[0] for item in items if isinstance(item.module, nn.Linear)})
        readings: list[tuple[list[list[int]], int, Numbers]] = []
        if count % parts == 0 and count > parts:
            each = count // parts
            readings.append(([[unit + each * part for part in range(parts)] for unit in range(each)], parts, ()))
        for heads in sorted({self._heads(owner) for owner in owners} - {0}):
            if count % heads == 0 and heads > 1:
                width = count // heads
                units = [list(range(head * width, (head + 1) * width)) for head in range(heads)]
                readings.append((units, width, self._numbers(owners, heads, HEADS, 1)))
        for units, width, numbers in readings:
            yield units, width, numbers
        for units, width, numbers in readings:  # the owner may also keep the number of channels
            if more := self._numbers(owners, count, None, width):
                yield units, width, numbers + more

    def _heads(self, owner: str) -> int:
        values = (getattr(self.net.get_submodule(owner), name, 0) for name in HEADS)
        return next((value for value in values if isinstance(value, int) and value), 0)

    def _numbers(self, owners: list[str], value: int, names: Sequence[str] | None, fall: int) -> Numbers:
        """The attributes of `owners` that are `value`, each with its fall for a unit."""
        found = []
        for owner in owners:
            attributes = vars(self.net.get_submodule(owner))
            found += [(owner, key, fall) for key, held in attributes.items()
                      if type(held) is int and held == value and (names is None or key in names)]  # fmt: skip
        return tuple(found)


def _giving(items: Sequence[Item]) -> tuple[str, ...]:
    """Names of the layers that give the channels."""
    return tuple(dict.fromkeys(item.name for item in items if item.out and isinstance(item.module, GIVING)))


def _name(items: Sequence[Item]) -> str:
    """That of the first of them."""
    return _giving(items)[0]


def _parts(module: nn.Module | nn.Parameter, count: int) -> int:
    """How many parts of a layer's channels must stay equally large."""
    if isinstance(module, Conv) and not is_depthwise(module):
        return int(module.groups)
    if isinstance(module, nn.RNNBase):
        return 2 if module.bidirectional and count == 2 * module.hidden_size else 1
    if isinstance(module, nn.MultiheadAttention):
        return int(module.num_heads)
    return int(module.num_groups) if isinstance(module, nn.GroupNorm) else 1


def _scaled(norm: nn.LayerNorm | nn.GroupNorm | nn.RMSNorm, x: Tensor) -> Tensor:
    """A norm's own scale and shift alone."""
    shape = (-1, *[1] * (x.dim() - 2)) if isinstance(norm, nn.GroupNorm) else norm.normalized_shape
    for tensor, apply in ((norm.weight, torch.mul), (getattr(norm, "bias", None), torch.add)):
        x = x if tensor is None else apply(x, tensor.view(shape))
    return x


@contextmanager
def _undone(undo: Callable[[], None]) -> Iterator[None]:
    """Put back what was changed, whatever happens."""
    try:
        yield
    finally:
        undo()
