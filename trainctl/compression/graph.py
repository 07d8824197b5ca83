"""Groups of layers whose channels depend on each other, as Torch-Pruning's dependency graph proposes them."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainctl.compression.shapes import GATES, Conv
from trainctl.errors import UsageError

STEPS = 100  # at the widest layer, for each node of the graph, within which a group must be found


@dataclass(frozen=True)
class Item:
    """A layer of a group; `out`: its outputs, else its inputs. places[channel of the first layer] = channels there."""

    name: str
    module: nn.Module | nn.Parameter
    out: bool
    places: list[list[int]]


def proposed(net: nn.Module, x: Tensor, embeddings: bool) -> tuple[list[list[Item]], dict[str, str]]:
    """The groups that begin at a layer, or at an embedding if wanted, and why there is none for some layers.

    UsageError when the net cannot be followed at all.
    """
    import torch_pruning

    names: dict[Any, str] = {module: name for name, module in net.named_modules()}
    names |= {parameter: name for name, parameter in net.named_parameters()}
    rows = _Rows(any(isinstance(module, nn.Conv1d) for module in net.modules()))
    roots = (Conv, nn.Linear, *GATES, *([nn.Embedding] if embeddings else []))
    try:
        with _stubs(net), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = [(p, max(p.dim() - 1, 0)) for p in _read_directly(net, x)]
            if x.is_floating_point():  # seen by the graph then: what is put behind it has its own place
                x = nn.Parameter(x.detach())
                read.append((x, 1))
            graph = torch_pruning.DependencyGraph().build_dependency(
                net, x, forward_fn=rows.call, verbose=False, unwrapped_parameters=read,
                customized_pruners={kind: _Recurrent() for kind in GATES},
            )  # fmt: skip
            rows.correct(graph)
            layers = [module for module in graph.module2node if isinstance(module, roots)]
            found, left = _groups(graph, layers, names)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"the layers of this net cannot be followed ({reason}); use compressor=magnitude") from error
    return [_items(graph, group, names) for group in found], left


def _groups(graph: Any, layers: Sequence[Any], names: dict[Any, str]) -> tuple[list[Any], dict[str, str]]:
    """A group for each of the layers that is in none before."""
    found: list[Any] = []
    left, seen = {}, set()
    widest = max(max(parameter.shape, default=1) for parameter in names if isinstance(parameter, nn.Parameter))
    for layer in layers:
        pruner = graph.get_pruner_of_module(layer)
        if layer in seen or pruner is None or pruner.get_out_channels(layer) is None:
            continue
        try:
            with _bounded(STEPS * widest * len(graph.module2node)):
                every = list(range(pruner.get_out_channels(layer)))
                group = _narrowed(graph, graph.get_pruning_group(layer, pruner.prune_out_channels, every))
        except Exception:  # an operation that the graph misreads: of this layer nothing can be said
            left[names[layer]] = "what follows it cannot be followed"
            continue
        seen |= {item.dep.target.module for item in group if graph.is_out_channel_pruning_fn(item.dep.handler)}
        found.append(group)
    return found, left


@contextmanager
def _bounded(channels: int) -> Iterator[None]:
    """RuntimeError when more are added to a group: on some nets the graph's search does not end."""
    from torch_pruning.dependency.group import Group

    add, left = Group.add_dep, [channels]

    def counted(group: Any, dep: Any, idxs: Sequence[Any]) -> None:
        left[0] -= len(idxs)
        if left[0] < 0:
            raise RuntimeError("the search for what depends on a layer does not end")
        add(group, dep, idxs)

    Group.add_dep = counted
    try:
        yield
    finally:
        Group.add_dep = add


class _Rows(TorchFunctionMode):
    """Finds where a net puts rows of vectors [B, tokens, dim] after each other: the graph takes that for channels."""

    def __init__(self, channels_second: bool) -> None:
        super().__init__()
        self.channels_second = channels_second
        self.found: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.cat, torch.concat) and made.dim() == 3 and not self.channels_second:
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else 0)
            self.found += [made.grad_fn] if dim in (1, -2) else []
        return made

    def call(self, net: nn.Module, x: Tensor) -> Any:
        """net(x), watched."""
        with self:
            return net(x)

    def correct(self, graph: Any) -> None:
        """No channel has another number after such an operation."""
        for node in graph.module2node.values():
            if any(node.grad_fn is found for found in self.found):
                node.enable_index_mapping = False
                for dep in (*node.dependencies, *(d for other in node.inputs for d in other.dependencies)):
                    if node in (dep.source, dep.target):
                        dep.index_mapping[1] = None


def _narrowed(graph: Any, group: Any) -> Any:
    """The same group seen from its narrowest layer: one channel there may be several elsewhere, not the other way."""
    known = (nn.Linear, Conv, nn.RNNBase, nn.Embedding)
    narrow = min((item for item in group if isinstance(item.dep.target.module, known)), key=lambda i: len(i.idxs))
    if len(narrow.idxs) == len(group[0].idxs):
        return group
    seen = graph.get_pruning_group(narrow.dep.target.module, narrow.dep.handler, list(range(len(narrow.idxs))))
    widths = {id(item.dep.target.module): len(item.idxs) for item in seen}
    return seen if all(widths.get(id(item.dep.target.module), 0) >= len(item.idxs) for item in group) else group


def _items(graph: Any, group: Any, names: dict[Any, str]) -> list[Item]:
    """The layers and parameters of a group, without the operations between them."""
    channels = max(group[0].root_idxs) + 1
    found = []
    for item in group:
        module = item.dep.target.module
        if module in names:
            places: list[list[int]] = [[] for _ in range(channels)]
            for index, root in zip(item.idxs, item.root_idxs, strict=True):
                places[root].append(index)
            found.append(Item(names[module], module, graph.is_out_channel_pruning_fn(item.dep.handler), places))
    return found


def _read_directly(net: nn.Module, x: Tensor) -> list[nn.Parameter]:
    """Parameters of layers that are not called: the net computes with them itself."""
    called: set[nn.Module] = set()
    hooks = [m.register_forward_hook(lambda module, *_: called.add(module)) for m in net.modules()]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    inside = {part for m in net.modules() if isinstance(m, nn.MultiheadAttention) for part in m.modules()}
    layers = (nn.Linear, Conv, nn.Embedding, nn.LayerNorm, nn.GroupNorm)
    unread = [m for m in net.modules() if isinstance(m, layers) and m not in called | inside]
    return [parameter for m in unread for parameter in m.parameters()]


@contextmanager
def _stubs(net: nn.Module) -> Iterator[None]:
    """Recurrent layers as one product each: the steps inside them would be taken for layers of the net."""
    layers = [module for module in net.modules() if isinstance(module, nn.RNNBase)]
    for layer in layers:
        layer.forward = types.MethodType(_one_product, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _one_product(rnn: nn.RNNBase, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Outputs and last state of the right shapes."""
    ways, width = 2 if rnn.bidirectional else 1, rnn.proj_size or rnn.hidden_size
    output = functional.linear(x, torch.ones(ways * width, rnn.input_size, dtype=x.dtype, device=x.device))
    last = output[:, -1] if rnn.batch_first else output[-1]
    directions = last.view(*last.shape[:-1], ways, width).unbind(-2)
    hidden = torch.stack(directions * rnn.num_layers) if ways > 1 else last.expand(rnn.num_layers, *last.shape)
    if not isinstance(rnn, nn.LSTM):
        return output, hidden
    return output, (hidden, hidden if not rnn.proj_size else hidden.new_zeros(*hidden.shape[:-1], rnn.hidden_size))


class _Recurrent:
    """What the graph asks about a recurrent layer; Torch-Pruning's own answers are wrong for two directions."""

    pruning_dim = 1

    def prune_out_channels(self, layer: nn.RNNBase, idxs: Sequence[int]) -> nn.RNNBase:
        """Told apart from the next by name alone; nothing is removed on the graph."""
        return layer

    def prune_in_channels(self, layer: nn.RNNBase, idxs: Sequence[int]) -> nn.RNNBase:
        """The inputs."""
        return layer

    def get_out_channels(self, layer: nn.RNNBase) -> int:
        """Those of both directions."""
        return layer.hidden_size * (2 if layer.bidirectional else 1)

    def get_in_channels(self, layer: nn.RNNBase) -> int:
        """Width of the inputs."""
        return layer.input_size

    def get_in_channel_groups(self, layer: nn.RNNBase) -> int:
        """One."""
        return 1

    get_out_channel_groups = get_in_channel_groups
