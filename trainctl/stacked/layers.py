"""Layers of K nets at once. x is [K, B, ...], or [1, B, ...] as long as all members see the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]
Values = Mapping[str, Tensor]  # parameters and buffers by name, [K, ...] each

LANES = 16  # matrix products are fastest when widths are multiples of this
NARROW = 16  # a layer with fewer outputs than this computes them class by class, as the loss wants them


class Linear:
    """[K or 1, B, ..., F] -> [K, B, ..., H]; `rectified`: with a ReLU behind it, in the same memory."""

    rectified = False
    owned = False  # the gradient that comes back is ours alone: what follows is another Linear

    def __init__(self, values: Values, path: str, module: nn.Linear) -> None:
        self.values, self.weight = values, f"{path}weight"
        self.bias = f"{path}bias" if module.bias is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.values[self.weight]
        bias = self.values[self.bias] if self.bias else None
        if x.ndim > 3:
            out: Tensor = self(x.flatten(1, -2))
            return out.view(len(out), *x.shape[1:-1], out.shape[-1])
        padded = x
        if torch.is_grad_enabled() and not x.requires_grad and x.shape[2] % LANES:
            padded = _with_ones(x)
        return _Linear.apply(padded, weight, bias, self.rectified, self.owned)  # type: ignore[no-any-return,no-untyped-call]


class _Linear(torch.autograd.Function):
    """y = x W^T + b for each member. Where x is wider than W, column F holds ones: they give the bias's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool, owned: bool) -> Tensor:
        out = _product(x[..., : weight.shape[2]].expand(len(weight), -1, -1), weight, bias)
        if rectified:
            out.relu_()
        ctx.save_for_backward(x, weight, out if rectified else None)
        ctx.biased, ctx.owned = bias is not None, owned
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, out = ctx.saved_tensors
        if out is not None:
            into = gradient if ctx.owned else torch.empty_like(gradient)
            gradient = torch.ops.aten.threshold_backward.grad_input(gradient, out, 0, grad_input=into)
        width = weight.shape[2]
        into_x = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        if into_x is not None and len(x) < len(into_x):
            into_x = into_x.sum(0, keepdim=True)
        into_weight = into_bias = None
        if ctx.needs_input_grad[1]:
            into_weight = torch.bmm(gradient.transpose(1, 2), x.expand(len(weight), -1, -1))
        if ctx.biased and ctx.needs_input_grad[2]:
            ones = into_weight is not None and into_weight.shape[2] > width
            into_bias = into_weight[..., width] if into_weight is not None and ones else gradient.sum(1)
        return into_x, None if into_weight is None else into_weight[..., :width], into_bias, None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.shape[1] < NARROW:
        x = x.transpose(1, 2)
        out = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias[:, :, None], weight, x)
        return out.transpose(1, 2)
    weight = weight.transpose(1, 2)
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias[:, None], x, weight)


def _with_ones(x: Tensor) -> Tensor:
    """x with a column of ones and then zeros up to a multiple of LANES."""
    width = x.shape[2]
    padded = x.new_zeros((*x.shape[:2], (width // LANES + 1) * LANES))
    padded[..., :width] = x
    padded[..., width] = 1
    return padded


class BatchNorm:
    """Batch norm over [K, B, H]; the statistics of the batch while `training()`, else the running ones."""

    def __init__(
        self, values: Values, path: str, module: nn.BatchNorm1d, training: Callable[[], bool], frozen: bool
    ) -> None:
        self.values, self.path, self.training, self.frozen = values, path, training, frozen
        self.eps, self.momentum = module.eps, module.momentum
        self.affine, self.tracks = module.affine, module.track_running_stats

    def __call__(self, x: Tensor) -> Tensor:
        of_batch = self.training() and not self.frozen
        weight, bias = (self._value(name) if self.affine else None for name in ("weight", "bias"))
        mean, var = (self._value(name) if self.tracks else None for name in ("running_mean", "running_var"))
        momentum = 0.0
        if of_batch and self.tracks:
            seen = self.values[f"{self.path}num_batches_tracked"].add_(1)
            momentum = 1 / float(seen[0]) if self.momentum is None else self.momentum
        if of_batch and x.shape[1] == 1:  # after counting it, as torch does
            raise TooFewRows
        known = "weight" if self.affine else "running_mean" if self.tracks else None
        members = len(self.values[self.path + known]) if known else len(x)
        flat = x.expand(members, -1, -1).transpose(0, 1).flatten(1)  # [B, K * H]: each feature is a channel of one net
        flat = F.batch_norm(flat, mean, var, weight, bias, of_batch or not self.tracks, momentum, self.eps)
        return flat.view(len(flat), members, -1).transpose(0, 1)

    def _value(self, name: str) -> Tensor:
        return self.values[self.path + name].reshape(-1)  # of running statistics, which are contiguous: a view


class TooFewRows(Exception):
    """One row has no statistics."""


class LayerNorm:
    """Layer norm over the last dimension of [K or 1, B, ..., H]."""

    def __init__(self, values: Values, path: str, module: nn.LayerNorm) -> None:
        self.values, self.eps, self.shape = values, module.eps, module.normalized_shape
        self.weight = f"{path}weight" if module.weight is not None else None
        self.bias = f"{path}bias" if module.bias is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        out = F.layer_norm(x, self.shape, eps=self.eps)
        between = [1] * (x.ndim - 1 - len(self.shape))
        if self.weight:
            weight = self.values[self.weight]
            out = out * weight.view(len(weight), *between, *self.shape)
        if self.bias:
            bias = self.values[self.bias]
            out = out + bias.view(len(bias), *between, *self.shape)
        return out


class Embedding:
    """Codes [K or 1, B, ...] -> [K, B, ..., D]; `total`: the sum over the last dimension of the codes instead."""

    def __init__(self, values: Values, path: str) -> None:
        self.values, self.weight = values, f"{path}weight"

    def __call__(self, codes: Tensor, total: bool = False) -> Tensor:
        weight = self.values[self.weight]
        members, size, dim = weight.shape
        if len(codes) == 1:  # one lookup of what all members have there: long vectors, few of them
            found = _look_up(codes[0], weight.transpose(0, 1).reshape(size, -1), total)
            return torch.unflatten(found, -1, (members, dim)).movedim(-2, 0)
        first = torch.arange(0, members * size, size, device=codes.device)
        return _look_up(codes + first.view(-1, *[1] * (codes.ndim - 1)), weight.reshape(-1, dim), total)


def _look_up(index: Tensor, table: Tensor, total: bool) -> Tensor:
    if not total:
        return F.embedding(index, table)
    summed = F.embedding_bag(index.reshape(-1, index.shape[-1]), table, mode="sum")
    return torch.unflatten(summed, 0, tuple(index.shape[:-1]))
