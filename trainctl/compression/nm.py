"""prune compressor=nm: N of every M consecutive input weights stay, the pattern that sparse tensor cores read.

Mishra et al. 2021 (2:4, pruned once by magnitude and fine-tuned). The CPU gains nothing; `semi_structured_speed`
measures what a GPU gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainctl.compression import masks
from trainctl.compression.base import Compressor, Context, Node
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_LAYERS = (nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, *_CONV)


class NM(Compressor):
    """Keeps the N largest of every M consecutive weights along the inputs (a convolution's: its channels).

    Linear, convolutional and recurrent layers and the projections of attention; one whose inputs are no multiple of M
    stays dense and is named. Zeros only: on a CPU, bytes and time stay what they were.
    """

    verb = "prune"
    trains = True
    masks = True

    def __init__(self, pattern: str = "2:4", exclude: Sequence[str] = (), plan: Node | None = None) -> None:
        super().__init__(plan)
        if pattern not in PATTERNS:
            raise UsageError(f"compressor.pattern={pattern} is not one of {', '.join(PATTERNS)}")
        self.pattern, self.exclude = pattern, tuple(exclude)

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """A net that holds no weights of its own, or no layer whose inputs are a multiple of M."""
        keep, group = PATTERNS[self.pattern]
        told = masks.refusal(net, self.exclude)
        if told is None and not any(size % group == 0 for size, _ in self._layers(net).values()):
            return f"none of its layers has a multiple of {group} inputs, which {keep}:{group} needs"
        return told

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The net with the hook that holds the pattern."""
        keep, group = PATTERNS[self.pattern]
        axes, known = {}, self._layers(net)
        for name in masks.prunable(net, self.exclude):
            if name not in known and net.get_parameter(name).dim() == 2:  # more are tables of positions and the like
                context.leave(name, "it is no weight of a layer that the pattern is known for")
        for name, (size, axis) in known.items():
            if size % group:
                context.leave(name, f"its {size} input{'s are' if size > 1 else ' is'} no multiple of {group}")
            else:
                axes[name] = axis
        masks.MaskHook(list(axes), LargestOfGroup(keep, group, axes)).attach(net)
        return net

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        """The zeros are in the weights and the hook is gone."""
        hook = masks.release(net)
        if hook is not None:
            self.plan = {"layers": list(hook.names)}
        return net

    def further(self, net: nn.Module) -> Node:
        """On a GPU: how fast the pattern is there."""
        return {"on_gpu": semi_structured_speed(net)} if torch.cuda.is_available() else {}

    def restore(self, net: nn.Module) -> nn.Module:
        """The net as it is: the zeros come with the weights."""
        return net

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """4:8 leaves more choice than 2:4."""
        return [{"pattern": pattern, "exclude": list(self.exclude)} for pattern in ("4:8", "2:4")]

    def _layers(self, net: nn.Module) -> dict[str, tuple[int, int]]:
        """Inputs and their axis by the name of the weight."""
        found = {}
        for name in masks.prunable(net, self.exclude):
            layer = net.get_submodule(name.rpartition(".")[0])
            if isinstance(layer, _LAYERS):
                axis = 0 if isinstance(layer, _TRANSPOSED) else 1
                found[name] = net.get_parameter(name).shape[axis], axis
        return found


class LargestOfGroup:
    """Selects all but the `keep` largest magnitudes of every `group` consecutive weights along an axis (by name)."""

    def __init__(self, keep: int, group: int, axes: dict[str, int]) -> None:
        self.keep, self.group, self.axes = keep, group, axes

    def __call__(self, weights: masks.Weights, progress: float) -> dict[str, Tensor]:
        return {name: self._mask(weight, self.axes[name]) for name, weight in weights.items()}

    def _mask(self, weight: Tensor, axis: int) -> Tensor:
        last = weight.abs().float().movedim(axis, -1)
        groups = last.reshape(-1, self.group)
        smallest = groups.argsort(dim=1, stable=True)[:, : self.group - self.keep]
        mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, smallest, True)
        return mask.view(last.shape).movedim(-1, axis)


def semi_structured_speed(net: nn.Module, rows: int = 4096, rounds: int = 50) -> dict[str, Any]:
    """Median ms of each Linear layer on the GPU in bfloat16, dense and 2:4 sparse, `rows` inputs at a time, in turns.

    {"rows", "layers": {name: {"dense_ms", "sparse_ms", "max_error"}}, "dense_ms", "sparse_ms", "ratio", "skipped":
    {name: why}}; the ratio is None when no layer could be run sparse. UsageError without CUDA.
    """
    if not torch.cuda.is_available():
        raise UsageError("the speed of 2:4 weights is measured on a GPU, and this machine has none")
    layers: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}
    for name, layer in net.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        why = unfit(layer)
        if why is None:
            try:
                layers[name] = _compare(layer, rows, rounds)
            except RuntimeError as error:  # a GPU or a build without sparse tensor cores
                why = str(error).splitlines()[0]
        if why is not None:
            skipped[name] = why
    dense, sparse = (sum(layer[key] for layer in layers.values()) for key in ("dense_ms", "sparse_ms"))
    return {
        "rows": rows,
        "layers": layers,
        "dense_ms": dense,
        "sparse_ms": sparse,
        "ratio": dense / sparse if sparse else None,
        "skipped": skipped,
    }


def unfit(layer: nn.Linear) -> str | None:
    """Why a Linear layer cannot be run on sparse tensor cores in bfloat16, or None."""
    outputs, inputs = layer.weight.shape
    if outputs % 32 or inputs % 64:
        return f"{outputs} outputs and {inputs} inputs are no multiples of 32 and 64"
    kept = (layer.weight.detach().reshape(-1, 4) != 0).sum(1)
    return None if int(kept.max()) <= 2 else "its weights are not in the 2:4 pattern"


@torch.no_grad()
def _compare(layer: nn.Linear, rows: int, rounds: int) -> dict[str, float]:
    weight = layer.weight.detach().to("cuda", torch.bfloat16).contiguous()
    bias = None if layer.bias is None else layer.bias.detach().to("cuda", torch.bfloat16)
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(rows, weight.shape[1], device="cuda", dtype=torch.bfloat16, generator=generator)
    packed = torch.sparse.to_sparse_semi_structured(weight)
    error = (functional.linear(x, weight, bias) - functional.linear(x, packed, bias)).abs().max().item()
    times: dict[str, list[float]] = {"dense_ms": [], "sparse_ms": []}
    for _ in range(rounds):
        for name, operand in (("dense_ms", weight), ("sparse_ms", packed)):
            times[name].append(_timed(x, operand, bias))
    return {name: median(values) for name, values in times.items()} | {"max_error": error}


def _timed(x: Tensor, weight: Tensor, bias: Tensor | None, calls: int = 20) -> float:
    """Mean ms of a call, by the GPU's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(calls):
        functional.linear(x, weight, bias)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / calls
