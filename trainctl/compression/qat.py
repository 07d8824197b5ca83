"""Quantization-aware fine-tuning: the net is trained while it computes with rounded weights and activations.

Weights are rounded as int8_static will round them, activations to 8 bits in ranges first measured on train and then
followed while training; gradients pass the rounding as if it were not there (Jacob et al. 2018). A batch norm after a
convolution scales each of its outputs, and so each scale: it needs no folding before. What ships is int8_static's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainctl.compression import vnni
from trainctl.compression.base import Context, Node
from trainctl.compression.engines import excluded
from trainctl.compression.int8_static import Int8Static, rows_of

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
MOMENTUM = 0.01
INPUT_RANGE = "input_range"


class RoundedWeight(nn.Module):
    """A weight in signed 8 bits, symmetric, with a scale for each index of its first axis or one for all."""

    def __init__(self, per_channel: bool, bits: int = 8) -> None:
        super().__init__()
        self.per_channel, self.top = per_channel, vnni.TOP[bits]

    def forward(self, weight: Tensor) -> Tensor:
        if not self.per_channel:
            step = (weight.detach().abs().amax() / self.top).clamp(min=1e-12)
            return torch.fake_quantize_per_tensor_affine(
                weight, step, torch.zeros(1, dtype=torch.int32), -self.top, self.top
            )
        steps = (weight.detach().abs().flatten(1).amax(1) / self.top).clamp(min=1e-12)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -self.top, self.top)


class InputRange(nn.Module):
    """The range of a layer's input, and the rounding to 8 bits in it; in training it follows the batches slowly."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.low.lerp_(x.amin().clamp(max=0), MOMENTUM)
                self.high.lerp_(x.amax().clamp(min=0), MOMENTUM)
        step = ((self.high - self.low) / 255).clamp(min=1e-12)
        zero = (-self.low / step).round().clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 255)


class QAT(Int8Static):
    """int8_static after fine-tuning that knows of the rounding; its keys are int8_static's, and lr_scale.

    lr_scale: of the run's learning rate, unless `optimizer.lr=` is given: the net is trained already, and large steps
    would leave what it has learned.
    The checkpoints of the fine-tuning hold the unrounded weights under `parametrizations.weight.original`.
    """

    trains = True
    method = "qat"

    def __init__(
        self,
        calibration: str = "minmax",
        percentile: float = 99.99,
        per_channel: bool = True,
        rows: int = 512,
        exclude: Sequence[str] = (),
        lr_scale: float = 0.1,
        reduce_range: bool | str = "auto",
        backend: str = "auto",
        plan: Node | None = None,
    ) -> None:
        super().__init__(calibration, percentile, per_channel, rows, exclude, (), reduce_range, backend, plan)
        self.lr_scale = lr_scale

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        names = [name for name, module in net.named_modules() if isinstance(module, (*LAYERS, nn.Embedding))]
        left = excluded(self.exclude, names)
        rows = torch.from_numpy(rows_of(context, self.rows)).to(context.calibration.device)
        taken = {name: net.get_submodule(name) for name in names if name not in left}
        # an embedding reads codes, which may come as floats: they are not to be rounded
        seen = _input_ranges(net, {n: m for n, m in taken.items() if isinstance(m, LAYERS)}, rows)
        for name, module in net.named_modules():
            if any(True for _ in module.parameters(recurse=False)) and _is_other(module):
                context.leave(name, f"fine-tuning does not round the weights of {type(module).__name__}")
        bits = vnni.bits_of(context, self.reduce_range)
        for name, module in taken.items():
            per_channel = bool(self.per_channel) or isinstance(module, nn.Embedding)
            parametrize.register_parametrization(module, "weight", RoundedWeight(per_channel, bits))
            if name in seen:
                module.add_module(INPUT_RANGE, InputRange(*seen[name]))
                module.register_forward_pre_hook(_round_input)
        return net

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        for module in net.modules():
            if hasattr(module, INPUT_RANGE):
                delattr(module, INPUT_RANGE)
                hooks = module._forward_pre_hooks
                for key in [key for key, hook in hooks.items() if hook is _round_input]:
                    del hooks[key]
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        return super().finish(net, context)


def _round_input(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook that belongs to no module: a copy of a net then rounds in its own range."""
    return module.get_submodule(INPUT_RANGE)(given[0]), *given[1:]


def _input_ranges(net: nn.Module, layers: dict[str, nn.Module], rows: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """(low, high) of what each layer reads on `rows`; none for a layer that is not called."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            low, high = given[0].amin().clamp(max=0), given[0].amax().clamp(min=0)
            if name in seen:
                low, high = torch.minimum(low, seen[name][0]), torch.maximum(high, seen[name][1])
            seen[name] = low, high

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    was_training = net.training
    try:
        with torch.no_grad():
            for batch in torch.split(rows, 64):
                net.eval()(batch)
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return seen


def _is_other(module: nn.Module) -> bool:
    """Whether a module has matrices of its own that are not rounded: an LSTM, attention in one piece."""
    if isinstance(module, (*LAYERS, nn.Embedding)):
        return False
    return isinstance(module, (nn.RNNBase, nn.MultiheadAttention, nn.modules.conv._ConvTransposeNd))
