"""A torch net in 16-bit floats that takes and gives float32; what `fp16` and `bf16` have in common."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainctl.compression.base import Context
from trainctl.compression.engines import Quantizer, excluded
from trainctl.errors import UsageError


class Halves(nn.Module):
    """`net` with the modules `layers` in `dtype`; x [B, ...] as before, output float32.

    Values are cast where such a module takes them, not at the entrance: a table's x holds category codes, and a code
    above 256 is another one in bf16.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype, layers: Collection[str]) -> None:
        super().__init__()
        self.net = net
        self.dtype = dtype
        for name, module in net.named_modules():
            if name in layers:
                _convert(module, dtype)
                if _is_torchs(module) and not isinstance(module, nn.Embedding | nn.EmbeddingBag):  # they take codes
                    module.register_forward_pre_hook(self._cast, with_kwargs=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).float()  # type: ignore[no-any-return]

    def _cast(self, module: nn.Module, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return _to(args, self.dtype), _to(options, self.dtype)


class Half(Quantizer):
    """A quantizer whose result in torch is `Halves` of `dtype`.

    Parameters that the net multiplies by itself become 16-bit too, unless it does not run so: a matrix that meets
    float32 values stays float32.
    """

    dtype: ClassVar[torch.dtype]
    _whole = True  # also modules that are none of torch.nn

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        if self.engine == "torch":
            self._whole = self._failure(net, self._holders(net), context.example) is None
            layers = self.layers(net, context)
            problem = None if self._whole else self._failure(net, layers, context.example)
            if problem:
                name = str(self.dtype).removeprefix("torch.")
                raise UsageError(f"the net does not run in {name} on this machine: {problem}")
        return super().compress(net, context, turn)

    def layers(self, net: nn.Module, context: Context) -> list[str]:
        chosen = []
        for name in self._holders(net):
            module = net.get_submodule(name)
            if self._whole or _is_torchs(module):
                chosen.append(name)
            else:
                context.leave(
                    name or "net", f"{type(module).__name__} is no layer of torch.nn, and does not compute in 16 bits"
                )
        return chosen

    def _holders(self, net: nn.Module) -> list[str]:
        """Modules that hold floats and are not excluded."""
        holders = [name for name, module in net.named_modules() if _floats(module)]
        left = excluded(self.exclude, holders)
        return [name for name in holders if name not in left]

    def _failure(self, net: nn.Module, layers: list[str], example: Tensor) -> str | None:
        """Why the net does not run with these modules in 16 bits."""
        try:
            with torch.inference_mode():
                Halves(copy.deepcopy(net).eval(), self.dtype, layers)(example)
        except Exception as error:
            return (str(error).splitlines() or [type(error).__name__])[0]
        return None

    def changed(self, net: nn.Module) -> nn.Module:
        return Halves(net, self.dtype, self.plan["layers"])


def _floats(module: nn.Module) -> list[Tensor]:
    """A module's own parameters and buffers that hold floats."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return [tensor for tensor in own if tensor.is_floating_point()]


def _is_torchs(module: nn.Module) -> bool:
    """Of a class of torch.nn, or one made from it: its parameters meet nothing but its inputs."""
    return any(kind.__module__.startswith("torch.nn.modules") for kind in type(module).__mro__ if kind is not nn.Module)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """The module's own floats in `dtype`; its children stay."""
    module._apply(lambda t: t.to(dtype) if t.is_floating_point() else t, recurse=False)  # type: ignore[no-untyped-call]


def _to(value: Any, dtype: torch.dtype) -> Any:
    """Float tensors cast, in whatever they are packed; all else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _to(item, dtype) for key, item in value.items()}
    return type(value)(_to(item, dtype) for item in value) if type(value) in (tuple, list) else value
