"""prune compressor=layers: whole residual or transformer blocks go, those first that the net misses least."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.compression.base import Artifact, Compressor, Context, Node
from trainctl.data.spec import DataSpec
from trainctl.errors import RunError, UsageError

log = logging.getLogger("trainctl")

BATCHES = 8  # of training data, whose loss decides between blocks that cost the same score
WORKING = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)


class PassThrough(nn.Module):
    """What stands in the place of a block: its first input, whatever else it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first input."""
        return args[0] if args else next(iter(kwargs.values()))


class Layers(Compressor):
    """Drops blocks that give what they take in shape, one after the other, measured again after each.

    A block is a child of a Sequential or ModuleList with layers of its own inside. The one without which the score on
    val is highest goes first (the loss on training data decides between equals). amount: the share of such blocks
    that goes, rounded, at least one; one always stays if there are several.
    """

    verb = "prune"
    trains = True

    def __init__(self, amount: float = 0.5, plan: Node | None = None) -> None:
        super().__init__(plan)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1:
            raise UsageError(f"compressor.amount={amount} must be above 0 and below 1, e.g. compressor.amount=0.5")
        self.amount = amount

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """A net of another engine, or one that is not made of blocks."""
        if isinstance(net, Artifact):
            return f"the weights are in `{net.file}` and cannot be pruned; prune the run that it was made from"
        return None if _composed(net) else _no_blocks()

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The net without its least missed blocks; the plan holds their names."""
        names = droppable(net, context.example)
        if not names:
            raise UsageError(_no_blocks())
        count = min(max(1, int(self.amount * len(names) + 0.5)), max(1, len(names) - 1))
        dropped: list[str] = list(self.plan.get("dropped", []))
        for _ in range(count):
            worth = {name: _without(net, name, context) for name in names}
            least = max(names, key=worth.__getitem__)
            log.info("dropped `%s`: score %.4g, loss %.4g", least, worth[least][0], -worth[least][1])
            _put(net, least, PassThrough())
            names.remove(least)
            dropped.append(least)
        self.plan = {"dropped": dropped}
        return net

    def restore(self, net: nn.Module) -> nn.Module:
        """The net without the blocks of the plan; RunError when it has no such block."""
        for name in self.plan.get("dropped", []):
            try:
                net.get_submodule(name)
            except AttributeError as error:
                raise RunError(f"the net of the config has no block `{name}`, which its compression dropped") from error
            _put(net, name, PassThrough())
        return net

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """One block to all but one."""
        count = len(droppable(net, context.example))
        return [{"amount": 0.5}] if count == 1 else [{"amount": dropped / count} for dropped in range(1, count)]


def droppable(net: nn.Module, example: Tensor) -> list[str]:
    """Names of the blocks that keep the shape of `example`'s features and without which the net still runs.

    The outermost ones, but the parts of a plain Sequential rather than it.
    """
    blocks = {name: net.get_submodule(name) for name in _composed(net)}
    kept = dict.fromkeys(blocks, False)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            taken = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(taken, Tensor) and isinstance(output, Tensor):
                kept[name] = taken.shape == output.shape and taken.dtype == output.dtype

        return hook

    hooks = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in blocks.items()]
    try:
        shape = _run(net, example)
    finally:
        for hook in hooks:
            hook.remove()
    found = [name for name in blocks if kept[name]]
    found = [n for n in found if type(blocks[n]) is not nn.Sequential or not any(o.startswith(f"{n}.") for o in found)]
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return [name for name in outermost if _runs_without(net, name, example, shape)]


def _composed(net: nn.Module) -> list[str]:
    """Children of sequences that are made of several modules, some of which compute products."""
    return [
        f"{name}.{key}" if name else key
        for name, parent in net.named_modules()
        if isinstance(parent, nn.Sequential | nn.ModuleList)
        for key, child in parent.named_children()
        if any(True for _ in child.children()) and any(isinstance(part, WORKING) for part in child.modules())
    ]


def _no_blocks() -> str:
    return (
        "the net has no residual or transformer blocks in an nn.Sequential or nn.ModuleList that could be dropped "
        "whole; use compressor=channels"
    )


def _run(net: nn.Module, x: Tensor) -> torch.Size:
    """The shape of the output, in evaluation mode."""
    training = net.training
    try:
        with torch.no_grad():
            output: Tensor = net.eval()(x.to(next(net.parameters()).device))
        return output.shape
    finally:
        net.train(training)


def _runs_without(net: nn.Module, name: str, example: Tensor, shape: torch.Size) -> bool:
    with _replaced(net, name):
        try:
            return _run(net, example) == shape
        except Exception:  # whatever a net of unknown make raises when it looks into its blocks
            return False


def _without(net: nn.Module, name: str, context: Context) -> tuple[float, float]:
    """Score on val without a block, and minus the loss on some training data."""
    training = net.training
    with _replaced(net, name):
        score = context.score(net)
        with torch.no_grad():
            net.eval()
            losses = [float(context.loss(net(x), y)) for x, y in itertools.islice(context.batches(), BATCHES)]
    net.train(training)
    return score, -sum(losses) / max(1, len(losses))


@contextmanager
def _replaced(net: nn.Module, name: str) -> Iterator[None]:
    """The net without a block, for a while."""
    block = net.get_submodule(name)
    _put(net, name, PassThrough())
    try:
        yield
    finally:
        _put(net, name, block)


def _put(net: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    net.get_submodule(owner)._modules[leaf] = module
