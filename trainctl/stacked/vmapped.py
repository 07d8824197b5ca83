"""Nets without a stacked form of their own, run by `torch.func.vmap` over their parameters and buffers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainctl.stacked import Unstackable
from trainctl.stacked.draws import Draws
from trainctl.stacked.layers import TooFewRows, Values
from trainctl.stacked.nets import StackedNet, check_plain

CLOSE = 1e-4  # relative difference between a net and its vmapped self that rounding explains


def stacked_net(nets: Sequence[nn.Module], values: Values, draws: Draws, sample: Tensor) -> StackedNet | VmappedNet:
    """The fastest exact form of the nets; Unstackable when there is none. `sample`: a few rows as a net gets them."""
    try:
        return StackedNet(nets, values, draws)
    except Unstackable as error:
        draws.rates.clear()
        return VmappedNet(nets, values, sample, str(error))


class VmappedNet:
    """x [K or 1, B, ...] -> [K, B, outputs], as `StackedNet`; `reason`: why there is no stacked form."""

    padding: tuple[str, ...] = ()  # the module itself leaves them out of its gradients

    def __init__(self, nets: Sequence[nn.Module], values: Values, sample: Tensor, reason: str) -> None:
        self.net, self.values, self.reason = nets[0], values, reason
        self.training = True
        for net in nets:
            for module in net.modules():
                check_plain(module)
                if _drops(module):
                    raise Unstackable(f"{reason}, and its dropout draws by itself")
        self._check(nets[-1], sample)

    def __call__(self, x: Tensor) -> Tensor:
        self.net.train(self.training)
        values = dict(self.values)
        shared = len(x) == 1
        run = vmap(self._one, in_dims=(0, None if shared else 0), randomness="error")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # no batching rule: right, but slow
                out: Tensor = run(values, x[0] if shared else x)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise TooFewRows from error
            raise
        return out

    def _one(self, values: dict[str, Tensor], x: Tensor) -> Any:
        return functional_call(self.net, values, (x,))

    def _check(self, last: nn.Module, sample: Tensor) -> None:
        """Unstackable unless the last member's vmapped output is its own, and every parameter takes part."""
        self.training = False
        leaves = [value for value in self.values.values() if value.requires_grad]
        mode = last.training
        try:
            out = self(sample[None])
            gradients = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
            with torch.no_grad():
                own = last.eval()(sample.cpu()).to(out)
        except Exception as error:
            if "randomness" in str(error):
                raise Unstackable(f"{self.reason}, and it draws random numbers") from error
            raise Unstackable(f"{self.reason}, and it cannot be vmapped: {str(error).splitlines()[0]}") from error
        finally:
            last.train(mode)
            self.training = True
        if own.shape != out[-1].shape or not torch.allclose(own, out[-1], rtol=CLOSE, atol=CLOSE):
            raise Unstackable(f"{self.reason}, and vmapped it gives another output")
        if any(gradient is None for gradient in gradients):
            raise Unstackable("some parameters take no part in the output")


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return float(getattr(module, "dropout", 0.0) or 0.0) > 0 if isinstance(module, RECURRENT) else False


RECURRENT = (nn.RNNBase, nn.MultiheadAttention)
