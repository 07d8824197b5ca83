"""Weights held at zero while a net is trained: which they may be, and the hook that keeps them there.

The hook sits on the net itself, not on a training loop: before every forward pass the pruned weights are set to zero
in place. So a mask holds whatever trains the net (several mini-batches per step, averaged weights, checkpoints).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainctl.compression.base import Artifact
from trainctl.errors import UsageError

Weights = Mapping[str, Tensor]
UPDATES = 100  # how often a gradual schedule chooses again, at most
PASSES = "passes_of_mask"  # a buffer of the net, so that a checkpoint knows the place in the schedule


class Select(Protocol):
    """A rule for which weights go. It is a plain object, so that a net with a hook can be copied."""

    def __call__(self, weights: Weights, progress: float) -> dict[str, Tensor]:
        """True where a weight is to be zero; `progress` in (0, 1] is the place in a gradual schedule."""


class MaskHook:
    """Holds what `select` chose at zero; over `ramp` training passes it chooses anew, harder each time.

    A checkpoint taken meanwhile holds all that the hook knows: zeros and the passes so far.
    Until the ramp has ended, a pass in evaluation mode sees the net pruned to the full amount and leaves the weights
    as they were: the figures by which the best epoch is picked are those of what would ship from there.
    """

    def __init__(self, names: Sequence[str], select: Select, ramp: int = 0) -> None:
        self.names, self.select, self.ramp = tuple(names), select, ramp
        self.passes = 0
        self.pruned: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._seen: tuple[tuple[int, ...], dict[str, Tensor]] | None = None

    def attach(self, net: nn.Module) -> None:
        """Begin: without a ramp the choice is made now and stands."""
        net.register_forward_pre_hook(self)
        if self.ramp:
            net.register_buffer(PASSES, torch.zeros((), dtype=torch.int64))
            net.register_forward_hook(self.put_back, always_call=True)
            net.register_state_dict_pre_hook(self.zeroed)  # type: ignore[no-untyped-call]
        else:
            weights = self.weights(net)
            self.pruned = self._choose(weights, 1.0)
            zero(weights, self.pruned)

    def __call__(self, net: nn.Module, inputs: Any) -> None:
        weights = self.weights(net)
        if self.ramp and not self.passes:
            self._go_on(net, weights)
        if net.training and self.passes < self.ramp:
            if self.passes % max(1, self.ramp // UPDATES) == 0 or self.passes + 1 == self.ramp:
                self.pruned = self._choose(weights, (self.passes + 1) / self.ramp)
            self.passes += torch.is_grad_enabled()
            net.get_buffer(PASSES).fill_(self.passes)
        elif self.passes < self.ramp:
            zero(weights, self.pruned)
            self._kept = {name: weight.clone() for name, weight in weights.items()}
            zero(weights, self._whole(net, weights))
            return
        zero(weights, self.pruned)

    def _go_on(self, net: nn.Module, weights: Weights) -> None:
        """Take up the schedule where the checkpoint that `net` was loaded from had come to."""
        self.passes = int(net.get_buffer(PASSES))
        if self.passes:
            self.pruned = {name: weight == 0 for name, weight in weights.items()}

    def zeroed(self, net: nn.Module, prefix: str = "", keep_vars: bool = False) -> None:
        """Before a checkpoint is taken: an optimizer's step may have moved what the next pass sets to zero."""
        zero(self.weights(net), self.pruned)

    def put_back(self, net: nn.Module, inputs: Any, output: Any) -> None:
        """Undo what an evaluation within the ramp did."""
        for name, weight in self.weights(net).items() if self._kept else ():
            weight.copy_(self._kept[name])
        self._kept = {}

    def weights(self, net: nn.Module) -> dict[str, Tensor]:
        """The weights by name. `data`: a change of what is zero anyway is none to autograd, between two passes too."""
        return {name: net.get_parameter(name).data for name in self.names}

    def _choose(self, weights: Weights, progress: float) -> dict[str, Tensor]:
        """What is zero already stays so: masks only grow, and a pruned net can be pruned further."""
        with torch.no_grad():
            return {name: mask | (weights[name] == 0) for name, mask in self.select(weights, progress).items()}

    def _whole(self, net: nn.Module, weights: Weights) -> dict[str, Tensor]:
        """The choice at the full amount, made once for all batches of an evaluation."""
        now = (self.passes, *(net.get_parameter(name)._version for name in self.names))
        if self._seen is None or self._seen[0] != now:
            self._seen = now, self._choose(weights, 1.0)
        return self._seen[1]

    def final(self, net: nn.Module) -> dict[str, Tensor]:
        """What ships as zero: after a ramp it is chosen for the weights at hand, which may be of any epoch."""
        return self._choose(self.weights(net), 1.0) if self.ramp else self.pruned


def zero(weights: Weights, pruned: Mapping[str, Tensor]) -> None:
    """Set the pruned weights to +0.0 in place (a product with a mask would leave -0.0 behind)."""
    with torch.no_grad():
        for name, mask in pruned.items():
            weights[name].masked_fill_(mask.to(weights[name].device), 0.0)


def release(net: nn.Module) -> MaskHook | None:
    """Take the hook off `net`, or off a copy of the net that it was attached to, and zero a last time."""
    found = next((hook for hook in net._forward_pre_hooks.values() if isinstance(hook, MaskHook)), None)
    if found is None:
        return None
    for hooks in (net._forward_pre_hooks, net._forward_hooks, net._state_dict_pre_hooks):
        for key in [key for key, hook in hooks.items() if found in (hook, getattr(hook, "__self__", None))]:
            for of_key in (hooks, net._forward_hooks_always_called):
                of_key.pop(key, None)
    net._buffers.pop(PASSES, None)
    found.pruned = found.final(net)
    zero(found.weights(net), found.pruned)
    return found


def prunable(net: nn.Module, exclude: Sequence[str] = (), embeddings: bool = False) -> dict[str, nn.Parameter]:
    """Parameters of two dimensions or more by name: no biases, no norms; embeddings only when wanted.

    exclude: patterns such as `head.*`, or the name of a module. UsageError when a pattern matches none of them.
    """
    tables = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    found = {
        name: parameter
        for name, parameter in net.named_parameters()
        if parameter.ndim >= 2 and parameter.is_floating_point() and (embeddings or id(parameter) not in tables)
    }
    left = dict(found)
    for pattern in exclude:
        matched = [n for n in found if fnmatch.fnmatchcase(n, pattern) or n.startswith(pattern.rstrip(".*") + ".")]
        if not matched:
            raise UsageError(
                f"`compressor.exclude` pattern '{pattern}' matches no weight; there are: {', '.join(found)}"
            )
        for name in matched:
            left.pop(name, None)
    return left


def refusal(net: nn.Module, exclude: Sequence[str] = (), embeddings: bool = False) -> str | None:
    """Why the weights of `net` cannot be set to zero, or None."""
    if isinstance(net, Artifact):
        return f"the weights are in `{net.file}` and cannot be trained any more; prune the run that it was made from"
    plain = (Tensor, nn.Parameter)
    odd = next((name for name, p in net.named_parameters() if type(p) not in plain or type(p.data) is not Tensor), None)
    if odd is not None:
        return f"`{odd}` is quantized; prune first, then quantize"
    return None if prunable(net, exclude, embeddings) else "it has no weight matrix to prune"
