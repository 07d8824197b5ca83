"""What an optimizer is built on: parameters grouped by whether weight decay applies; and the optimizer torch lacks.

An optimizer config is a partial that is called with these groups. `fused=True` halves AdamW's and Adam's time per step
on the CPU; with 16-bit gradient scaling a fused optimizer unscales by itself, so clipping must unscale first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(net: nn.Module, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Optimizer groups of `net`'s trainable parameters: `name` "weights", which decay, and "rest", which do not.

    The rest are biases, norms, embeddings and every other parameter of fewer than two dimensions. Frozen parameters
    (requires_grad False) are left out, a shared one counts once, and an empty group is dropped.
    """
    exempt = {
        parameter
        for module in net.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, *_NORMS))
        for parameter in module.parameters(recurse=False)
    }
    weights: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in net.parameters():
        if parameter.requires_grad:
            ndim = getattr(parameter, "whole_ndim", parameter.ndim)  # a shard of it is a vector
            (rest if ndim < 2 or parameter in exempt else weights).append(parameter)
    groups = [
        {"params": weights, "weight_decay": weight_decay, "name": "weights"},
        {"params": rest, "weight_decay": 0.0, "name": "rest"},
    ]
    return [group for group in groups if group["params"]]


class Muon(Optimizer):
    """Muon for hidden matrices and AdamW for all else, as one optimizer with one lr.

    Muon takes the 2-d parameters of the group "weights" that have at least `min_size` rows and columns (so neither
    embeddings nor a narrow head); its step is scaled to AdamW's size, so that one lr suits both. Groups, state and
    `state_dict` are this optimizer's own: schedulers, clipping and resume need to know nothing more.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        min_size: int = 16,
        fused: bool = True,
    ) -> None:
        matrices, others = _split(params, min_size)
        self._inner: dict[str, Optimizer] = {}
        if matrices:
            self._inner["muon"] = torch.optim.Muon(
                matrices, lr, weight_decay, momentum, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
            )
        if others:
            self._inner["adamw"] = AdamW(others, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)
        groups = [{**group, "by": by} for by, inner in self._inner.items() for group in inner.param_groups]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Let both parts work on this optimizer's groups and state."""
        for by, inner in self._inner.items():
            inner.param_groups = [group for group in self.param_groups if group["by"] == by]
            inner.state = self.state

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both parts, after `closure` (if any) has computed the loss and gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner in self._inner.values():
            inner.step()
        return loss


def _split(groups: Iterable[dict[str, Any]], min_size: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups for Muon and groups for AdamW."""
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        hidden = [p for p in group["params"] if group.get("name", "weights") == "weights" and _is_matrix(p, min_size)]
        chosen = set(hidden)
        others = [p for p in group["params"] if p not in chosen]
        for part, params in zip(parts, (hidden, others), strict=True):
            if params:
                part.append({**group, "params": params})
    return parts


def _is_matrix(parameter: Tensor, min_size: int) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) >= min_size
