"""Where a layer keeps its channels, taking some of them out, and a net of other widths from its recorded shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.compression.base import Node
from trainctl.errors import RunError

Norm1d = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
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
    if isinstance(module, nn.LayerNorm):
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


def remove(net: nn.Module, removal: Removal) -> Callable[[], None]:
    """Take it out of `net`; what is returned puts everything back (the tensors are the old ones)."""
    owners = {name: net.get_submodule(name.rpartition(".")[0]) for name, _ in removal.indices}
    attentions = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    undo = _undoing([*owners.values(), *attentions, *(net.get_submodule(module) for module, _ in removal.numbers)])
    widths = {m: m.head_dim for m in attentions}
    for (name, dim), gone in removal.indices.items():
        leaf = name.rpartition(".")[2]
        tensor = getattr(owners[name], leaf)
        keep = torch.tensor([i for i in range(tensor.shape[dim]) if i not in gone], device=tensor.device)
        _put(owners[name], leaf, tensor.detach().index_select(dim, keep))
    _settle(net, owners.values())
    for (module, attribute), fall in removal.numbers.items():
        owner = net.get_submodule(module)
        setattr(owner, attribute, getattr(owner, attribute) - fall)
    for attention, width in widths.items():
        if attention.head_dim != width:  # products of queries and keys are divided by the root of the width of a head
            with torch.no_grad():
                for part in (attention.in_proj_weight, attention.in_proj_bias):
                    if part is not None:
                        part[: attention.embed_dim] *= math.sqrt(attention.head_dim / width)
    return undo


def mask(net: nn.Module, removal: Removal) -> Callable[[], None]:
    """Zeros where it would take from `net`, so that the same is computed; what is returned puts everything back."""
    owners = {name: net.get_submodule(name.rpartition(".")[0]) for name, _ in removal.masks}
    undo = _undoing(owners.values())
    for (name, dim), gone in removal.masks.items():
        leaf = name.rpartition(".")[2]
        tensor = getattr(owners[name], leaf)
        index = torch.tensor(sorted(gone), dtype=torch.long, device=tensor.device)
        _put(owners[name], leaf, tensor.detach().index_fill(dim, index, 0))
    return undo


def _undoing(modules: Iterable[nn.Module]) -> Callable[[], None]:
    """Puts back the tensors and numbers that the modules have now."""
    before = [
        (vars(module), {key: v.copy() if isinstance(v, dict | list) else v for key, v in vars(module).items()})
        for module in dict.fromkeys(modules)
    ]

    def undo() -> None:
        for values, kept in before:
            values.update(kept)

    return undo


def _put(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    """A new tensor in place of the old parameter or buffer."""
    old = module._parameters.get(leaf)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        assert old is not None
        setattr(module, leaf, nn.Parameter(tensor, old.requires_grad))


def _settle(net: nn.Module, changed: Iterable[nn.Module]) -> None:
    """The numbers that torch's layers keep beside their tensors."""
    changed = set(changed)
    for module in net.modules():
        if module in changed or (isinstance(module, nn.MultiheadAttention) and module.out_proj in changed):
            _numbers(module)


def _numbers(module: Any) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, Conv):
        module.groups = module.weight.shape[0] if is_depthwise(module) else module.groups
        giving, taking = (1, 0) if isinstance(module, Transposed) else (0, 1)
        module.out_channels = module.weight.shape[giving] * (module.groups if isinstance(module, Transposed) else 1)
        module.in_channels = module.weight.shape[taking] * (1 if isinstance(module, Transposed) else module.groups)
    elif isinstance(module, (*Norm1d, nn.GroupNorm)):
        sized = next((t for t in (module.weight, getattr(module, "running_mean", None)) if t is not None), None)
        if sized is not None:
            setattr(module, "num_channels" if isinstance(module, nn.GroupNorm) else "num_features", len(sized))
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.MultiheadAttention):
        width = module.in_proj_weight.shape[1]
        module.embed_dim = module.kdim = module.vdim = width
        module.head_dim = width // module.num_heads
    elif isinstance(module, nn.RNNBase):
        module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
        module.input_size = module.get_parameter("weight_ih_l0").shape[1]


def record(net: nn.Module, removal: Removal, plan: Node) -> Node:
    """The plan after `removal` was taken out of `net`: shapes of tensors, numbers of modules."""
    state: dict[str, Tensor] = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    shapes = plan.get("shapes", {}) | {name: list(state[name].shape) for name, _ in removal.indices}
    numbers: Node = {module: dict(values) for module, values in plan.get("numbers", {}).items()}
    for module, attribute in removal.numbers:
        numbers.setdefault(module, {})[attribute] = getattr(net.get_submodule(module), attribute)
    return {"shapes": shapes, "numbers": numbers}


def resize(net: nn.Module, plan: Node) -> nn.Module:
    """An uncompressed net with the shapes and numbers of `plan`; RunError when it has no such tensors."""
    owners = []
    for name, shape in plan.get("shapes", {}).items():
        owner, _, leaf = name.rpartition(".")
        try:
            module = net.get_submodule(owner)
            old = getattr(module, leaf)
            _put(module, leaf, torch.zeros(shape, dtype=old.dtype, device=old.device))
        except AttributeError as error:
            raise RunError(f"the net of the config has no `{name}`, which its compression made smaller") from error
        owners.append(module)
    _settle(net, owners)
    for name, values in plan.get("numbers", {}).items():
        for attribute, value in values.items():
            setattr(net.get_submodule(name), attribute, value)
    return net
