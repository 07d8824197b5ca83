"""Where a layer keeps its channels, and what taking some of them out means for its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Norm1d = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
LayerNorms = (nn.LayerNorm, nn.RMSNorm)
Conv = nn.modules.conv._ConvNd
Transposed = nn.modules.conv._ConvTransposeNd
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
Where = Sequence[Sequence[int]]  # for each unit, the indices that go with it


class Unfit(Exception):
    """A layer whose channels cannot be taken out; the reason in half a sentence."""


@dataclass(frozen=True)
class Slot:
    """The places of a group's units in one dimension of one tensor.

    positions[unit]: its indices there. consumes: zeros there are the same as leaving the unit out. weighs: counts when
    the magnitude of a unit is measured.
    """

    tensor: str
    dim: int
    positions: tuple[tuple[int, ...], ...]
    consumes: bool = False
    weighs: bool = False


@dataclass
class Removal:
    """What is taken out: indices by (tensor, dim), and by how much whole numbers of modules fall."""

    indices: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    masks: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def add(self, slots: Iterable[Slot], units: Iterable[int], numbers: Iterable[tuple[str, str, int]] = ()) -> None:
        """Take out `units` of a group with these `slots`; `numbers`: (module, attribute, fall for each unit)."""
        units = list(units)
        for slot in slots:
            gone = {index for unit in units for index in slot.positions[unit]}
            self.indices.setdefault((slot.tensor, slot.dim), set()).update(gone)
            if slot.consumes:
                self.masks.setdefault((slot.tensor, slot.dim), set()).update(gone)
        for module, attribute, each in numbers:
            self.numbers[module, attribute] = self.numbers.get((module, attribute), 0) + each * len(units)


def slots(name: str, module: nn.Module | nn.Parameter, out: bool, where: Where) -> Iterator[Slot]:
    """Where a layer keeps the units of `where` (channels that it gives, `out`, or takes); Unfit if that is not known.

    A bare parameter keeps them in its last dimension.
    """
    if isinstance(module, nn.Parameter):
        yield Slot(name, module.dim() - 1, _plain(where))
        return
    for leaf, dim, at, *flags in _places(module, out, where):
        owner, _, last = leaf.rpartition(".")
        part = module.get_submodule(owner)
        if getattr(part, last, None) is not None:
            if last not in part._parameters and last not in part._buffers:
                raise Unfit("its weights are computed from other tensors")
            yield Slot(f"{name}.{leaf}" if name else leaf, dim, _plain(at), "consumes" in flags, "weighs" in flags)


def _plain(where: Where) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(sorted(set(unit))) for unit in where)


Place = tuple[Any, ...]  # tensor, dim, where, then flags of Slot


def _places(module: nn.Module, out: bool, where: Where) -> list[Place]:
    if isinstance(module, nn.Linear):
        return [("weight", 0, where, "weighs"), ("bias", 0, where)] if out else [("weight", 1, where, *_BOTH)]
    if isinstance(module, Conv):
        return _conv(module, out, where)
    if isinstance(module, Norm1d):
        return [("weight", 0, where, "weighs")] + [(leaf, 0, where) for leaf in ("bias", "running_mean", "running_var")]
    if isinstance(module, nn.GroupNorm):
        return [("weight", 0, where, "weighs"), ("bias", 0, where)]
    if isinstance(module, LayerNorms):
        last = len(module.normalized_shape) - 1
        return [("weight", last, where, "weighs"), ("bias", last, where)]
    if isinstance(module, nn.PReLU):
        return [("weight", 0, where)] if module.num_parameters > 1 else []
    if isinstance(module, nn.Embedding):
        return [("weight", 1, where)]
    if isinstance(module, nn.MultiheadAttention):
        return _attention(module, where)
    if isinstance(module, nn.RNNBase):
        return _recurrent(module, out, where)
    raise Unfit(f"{type(module).__name__} is not known")


_BOTH = ("consumes", "weighs")


def _conv(conv: Conv, out: bool, where: Where) -> list[Place]:
    giving, taking = (1, 0) if isinstance(conv, Transposed) else (0, 1)
    if is_depthwise(conv):
        return [("weight", 0, where, "weighs"), ("bias", 0, where)]
    if conv.groups > 1 and isinstance(conv, Transposed):
        raise Unfit("it is a transposed convolution in groups")
    if out:
        return [("weight", giving, where, "weighs"), ("bias", 0, where)]
    each = conv.in_channels // conv.groups
    return [("weight", taking, [[index % each for index in unit] for unit in where], *_BOTH)]


def is_depthwise(module: object) -> bool:
    """A convolution that handles every channel by itself."""
    return isinstance(module, Conv) and 1 < module.groups == module.in_channels == module.out_channels


def _attention(module: nn.MultiheadAttention, where: Where) -> list[Place]:
    if module.in_proj_weight is None:
        raise Unfit("its keys and values have another width than its queries")
    width = module.embed_dim
    thrice = [[index + part * width for index in unit for part in range(3)] for unit in where]
    return [
        ("in_proj_weight", 0, thrice, *_BOTH), ("in_proj_weight", 1, where, *_BOTH),
        ("in_proj_bias", 0, thrice, "consumes"),
        ("bias_k", 2, where, "consumes"), ("bias_v", 2, where, "consumes"),
        ("out_proj.weight", 0, where, "weighs"), ("out_proj.weight", 1, where, *_BOTH), ("out_proj.bias", 0, where),
    ]  # fmt: skip


def _recurrent(rnn: nn.RNNBase, out: bool, where: Where) -> list[Place]:
    """A unit of the state has its place in each layer and direction, since all of them have one width."""
    if rnn.proj_size or type(rnn) not in GATES:
        raise Unfit("it projects its state" if rnn.proj_size else f"{type(rnn).__name__} is not known")
    ways, width = ("", "_reverse") if rnn.bidirectional else ("",), rnn.hidden_size
    if not out:
        return [(f"weight_ih_l0{way}", 1, where, *_BOTH) for way in ways]
    state = [sorted({index % width for index in unit}) for unit in where]
    gates = [[i + gate * width for i in unit for gate in range(GATES[type(rnn)])] for unit in state]
    below = [[i + part * width for i in unit for part in range(len(ways))] for unit in state]
    found: list[Place] = []
    for layer, way in ((layer, way) for layer in range(rnn.num_layers) for way in ways):
        end = f"l{layer}{way}"
        found += [(f"weight_ih_{end}", 0, gates, "weighs"), (f"weight_hh_{end}", 0, gates)]
        found += [(f"weight_hh_{end}", 1, state, *_BOTH), (f"bias_ih_{end}", 0, gates), (f"bias_hh_{end}", 0, gates)]
        found += [(f"weight_ih_{end}", 1, below, *_BOTH)] if layer else []
    return found
