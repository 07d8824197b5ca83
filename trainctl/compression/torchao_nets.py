"""Linear layers of a torch module quantized by torchao; imported where it is used, since that takes two seconds."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from trainctl.compression.base import Context
from trainctl.compression.engines import excluded


def quantized(net: nn.Module, config: str, layers: Collection[str], **options: Any) -> nn.Module:
    """The net with the weights of the Linear modules `layers` made quantized tensors, in place.

    config: the name of a configuration of torchao.quantization, `options` what it is given.
    """
    assert config.endswith("Config")
    with silently():
        import torchao.quantization as ao

        wanted = getattr(ao, config)(set_inductor_config=False, **options)
        ao.quantize_(net, wanted, filter_fn=lambda module, name: name in layers)
    return net


def linear_layers(net: nn.Module) -> list[str]:
    """Names of the modules that torchao can take."""
    return [name for name, module in net.named_modules() if _is_linear(module)]


def choose(net: nn.Module, exclude: Sequence[str], context: Context, multiple: int = 1) -> list[str]:
    """Names of the Linear modules to quantize; other modules with matrices are left, and named to `context`.

    multiple: what both of a layer's sizes must be a multiple of.
    """
    holders = {name: module for name, module in net.named_modules() if _has_matrix(module)}
    left = excluded(exclude, holders)
    chosen = []
    for name, module in holders.items():
        if name in left or isinstance(module, NonDynamicallyQuantizableLinear):  # its nn.MultiheadAttention is named
            continue
        if not _is_linear(module):
            context.leave(name or "net", f"torchao quantizes Linear layers, and it is {_kind(module)}")
        elif any(size % multiple for size in sizes(module)):
            shape = " x ".join(map(str, sizes(module)))
            context.leave(name or "net", f"its size {shape} is no multiple of {multiple}")
        else:
            chosen.append(name)
    return chosen


def refusal(net: nn.Module, method: str) -> str | None:
    """Why there is nothing to do for torchao in this net."""
    if linear_layers(net):
        return None
    return f"compressor={method} in torch takes Linear layers, and the net has none; use backend=onnxruntime"


def sizes(linear: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a Linear."""
    assert isinstance(linear, nn.Linear)
    return linear.in_features, linear.out_features


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """torchao tells in logs and warnings which of its optional libraries it did not load."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _is_linear(module: nn.Module) -> bool:
    """A Linear that is called; the output of nn.MultiheadAttention is one whose weight is read past it."""
    return isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _has_matrix(module: nn.Module) -> bool:
    return any(p.ndim >= 2 and p.is_floating_point() for p in module.parameters(recurse=False))


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    return f"an {name}" if name[0] in "AEIOL" and name != "Linear" else f"a {name}"
