"""From K nets of one shape to one stacked net, module by module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainctl.models import inputs, linear, resmlp
from trainctl.stacked import Unstackable, layers
from trainctl.stacked.draws import Draws
from trainctl.stacked.layers import Layer, Values

ELEMENTWISE = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.Sigmoid, nn.ELU, nn.Softplus, nn.SELU, nn.Mish, nn.CELU,
    nn.Hardswish, nn.Hardtanh, nn.ReLU6, nn.LogSigmoid, nn.Softsign, nn.Hardsigmoid, nn.Identity,
)  # fmt: skip


class StackedNet:
    """x [K or 1, B, ...] -> [K, B, outputs]; raises TooFewRows where batch norm would refuse a batch of one row."""

    def __init__(self, nets: Sequence[nn.Module], values: Values, draws: Draws) -> None:
        self.values, self.draws = values, draws
        self.training = True
        self.padding: list[str] = []  # embeddings whose row 0 is padding, which learns nothing
        self.layer = self.convert(nets, "")

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def convert(self, modules: Sequence[Any], path: str) -> Layer:
        """The stacked layer of one module of each net; Unstackable when there is none."""
        module = modules[0]
        check_plain(module)
        make = CONVERTERS.get(type(module).forward)
        if make is None or parametrize.is_parametrized(module):
            raise Unstackable(f"there is no stacked form of {type(module).__name__}")
        return make(self, modules, path)

    def children(self, modules: Sequence[Any], path: str) -> list[Layer]:
        """The stacked layers of a Sequential's modules, in order; a net that drops nothing may lack the dropout."""
        queues = [list(m.named_children()) for m in modules]
        parts = []
        while any(queues):
            dropping = [bool(queue) and type(queue[0][1]) is nn.Dropout for queue in queues]
            if not any(dropping):
                name = queues[0][0][0] if queues[0] else ""
                parts.append(self.convert([queue.pop(0)[1] for queue in queues], f"{path}{name}."))
                continue
            dropouts = [q.pop(0)[1] if now else None for q, now in zip(queues, dropping, strict=True)]
            parts.append(_dropout(self, [d or nn.Dropout(0.0) for d in dropouts], path))
        return parts


def check_plain(module: nn.Module) -> None:
    """Unstackable when something hooks into the module that a stacked one would not call."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values(), *module._backward_hooks.values()]
    if any(not is_frozen_norm(hook) for hook in hooks):
        raise Unstackable(f"{type(module).__name__} has hooks")


def is_frozen_norm(hook: object) -> bool:
    """Whether a hook is the one that `build.freeze` puts on batch norms."""
    return getattr(hook, "__name__", "") == "_keep_statistics"


def _sequential(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    parts = _fused(net.children(modules, path))

    def run(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return run


def _fused(parts: list[Layer]) -> list[Layer]:
    """Each ReLU done by the Linear before it, which saves two trips through memory."""
    kept: list[Layer] = []
    for part in parts:
        before = kept[-1] if kept else None
        if type(part) is nn.ReLU and isinstance(before, layers.Linear) and not before.rectified:
            before.rectified = True
            continue
        if isinstance(before, layers.Linear) and isinstance(part, layers.Linear):
            before.owned = True
        kept.append(part)
    return kept


def _residual(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    inner = _sequential(net, modules, path)
    return lambda x: x + inner(x)


def _linear(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    return layers.Linear(net.values, path, modules[0])


def _elementwise(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    layer: Layer = modules[0]
    return layer


def _dropout(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    number = net.draws.layer(modules)

    def drop(x: Tensor) -> Tensor:
        if not net.training or not net.draws.active(number):
            return x
        return x * net.draws.factors(number, x.shape[1:], x.dtype)

    return drop


def _batch_norm(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    frozen = any(is_frozen_norm(hook) for hook in modules[0]._forward_pre_hooks.values())
    return layers.BatchNorm(net.values, path, modules[0], lambda: net.training, frozen)


def _layer_norm(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    return layers.LayerNorm(net.values, path, modules[0])


def _flatten(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    first, last = modules[0].start_dim, modules[0].end_dim
    if first < 1:
        raise Unstackable("it flattens the batch")
    return lambda x: x.flatten(first + 1, last if last < 0 else last + 1)


def _embedding(net: StackedNet, modules: Sequence[Any], path: str) -> layers.Embedding:
    module = modules[0]
    if module.max_norm is not None or module.sparse or module.scale_grad_by_freq or module.padding_idx not in (None, 0):
        raise Unstackable("an embedding with options of its own")
    if module.padding_idx == 0:
        net.padding.append(f"{path}weight")
    return layers.Embedding(net.values, path)


def _column_embedding(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    embed, offsets = _embedding(net, modules, path), f"{path}offsets"
    return lambda codes: embed(codes.long() + net.values[offsets][0])


def _table(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    module = modules[0]
    numeric = module.num_numeric
    if module.embed is None:
        return lambda x: x
    embed = net.convert([m.embed for m in modules], f"{path}embed.")

    def run(x: Tensor) -> Tensor:
        embedded = embed(x[..., numeric:]).flatten(2)
        if not numeric:
            return embedded
        return torch.cat((x[..., :numeric].expand(len(embedded), -1, -1), embedded), 2)

    return run


def _sequence(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    embed = _embedding(net, [m.embed for m in modules], f"{path}embed.")
    return lambda x: embed(x, total=True) / (x != 0).sum(2, keepdim=True).clamp(min=1)


def _one_hot_linear(net: StackedNet, modules: Sequence[Any], path: str) -> Layer:
    numeric = modules[0].num_numeric
    embed = net.convert([m.embed for m in modules], f"{path}embed.")
    line = net.convert([m.numeric for m in modules], f"{path}numeric.") if modules[0].numeric is not None else None

    def run(x: Tensor) -> Tensor:
        out = embed(x[..., numeric:]).sum(2)
        return out if line is None else out + line(x[..., :numeric])

    return run


Converter = Callable[[StackedNet, Sequence[Any], str], Layer]
# by the function that runs: a subclass that keeps it converts like its base
CONVERTERS: dict[object, Converter] = {
    nn.Sequential.forward: _sequential,
    nn.Linear.forward: _linear,
    nn.Dropout.forward: _dropout,
    nn.BatchNorm1d.forward: _batch_norm,
    nn.LayerNorm.forward: _layer_norm,
    nn.Flatten.forward: _flatten,
    nn.Embedding.forward: _embedding,
    inputs.ColumnEmbedding.forward: _column_embedding,
    inputs.TableVector.forward: _table,
    inputs.SequenceVector.forward: _sequence,
    linear._OneHotLinear.forward: _one_hot_linear,
    resmlp._Block.forward: _residual,
    **{kind.forward: _elementwise for kind in ELEMENTWISE},
}
