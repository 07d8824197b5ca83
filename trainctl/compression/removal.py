"""Taking channels out of a net, or setting them to zero, and a net of other widths from its recorded shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.compression.base import Node
from trainctl.compression.shapes import Conv, LayerNorms, Norm1d, Removal, Transposed, is_depthwise
from trainctl.errors import RunError


def remove(net: nn.Module, removal: Removal) -> Callable[[], None]:
    """Take it out of `net`; what is returned puts everything back (the tensors are the old ones).

    What fails halfway leaves the net as it was.
    """
    owners = {name: net.get_submodule(name.rpartition(".")[0]) for name, _ in removal.indices}
    attentions = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    with _undone_if_it_fails(
        [*owners.values(), *attentions, *(net.get_submodule(module) for module, _ in removal.numbers)]
    ) as undo:
        widths = {m: m.head_dim for m in attentions}
        for (name, dim), gone in removal.indices.items():
            leaf = name.rpartition(".")[2]
            tensor = getattr(owners[name], leaf)
            keep = torch.tensor([i for i in range(tensor.shape[dim]) if i not in gone], device=tensor.device)
            _put(owners[name], leaf, tensor.detach().index_select(dim, keep))
        _settle(net, owners.values())
        for (module, attribute), fall in removal.numbers.items():
            owner = net.get_submodule(module)
            setattr(owner, attribute, _less(getattr(owner, attribute), fall))
        for attention, width in widths.items():
            if attention.head_dim != width:  # products are divided by the root of the width of a head
                _rescale(attention, math.sqrt(attention.head_dim / width))
    return undo


def _less(value: Any, fall: int) -> Any:
    """A number of a module, or the last of a shape, after `fall` channels went."""
    return value - fall if isinstance(value, int) else (*value[:-1], value[-1] - fall)


def _rescale(attention: nn.MultiheadAttention, factor: float) -> None:
    with torch.no_grad():
        for part in (attention.in_proj_weight, attention.in_proj_bias):
            if part is not None:
                part[: attention.embed_dim] *= factor


def mask(net: nn.Module, removal: Removal) -> Callable[[], None]:
    """Zeros where it would take from `net`, so that the same is computed; what is returned puts everything back."""
    owners = {name: net.get_submodule(name.rpartition(".")[0]) for name, _ in removal.masks}
    with _undone_if_it_fails(owners.values()) as undo:
        for (name, dim), gone in removal.masks.items():
            leaf = name.rpartition(".")[2]
            tensor = getattr(owners[name], leaf)
            index = torch.tensor(sorted(gone), dtype=torch.long, device=tensor.device)
            _put(owners[name], leaf, tensor.detach().index_fill(dim, index, 0))
    return undo


@contextmanager
def _undone_if_it_fails(modules: Iterable[nn.Module]) -> Iterator[Callable[[], None]]:
    undo = _undoing(modules)
    try:
        yield undo
    except BaseException:
        undo()
        raise


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
    elif isinstance(module, LayerNorms) and module.elementwise_affine:
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
        value = getattr(net.get_submodule(module), attribute)
        numbers.setdefault(module, {})[attribute] = list(value) if isinstance(value, tuple) else value
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
            setattr(net.get_submodule(name), attribute, tuple(value) if isinstance(value, list) else value)
    return net
