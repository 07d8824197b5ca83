"""prune compressor=channels: whole neurons, channels and attention heads go, so that the net is smaller and faster."""

from __future__ import annotations

import fnmatch
import importlib.util
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trainctl.compression import importance
from trainctl.compression.base import Artifact, Compressor, Context, Node
from trainctl.compression.cost import macs
from trainctl.compression.coupling import Group, Scratch
from trainctl.compression.removal import record, remove, resize
from trainctl.compression.shapes import Conv, Removal
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError, did_you_mean

TARGETS = ("channels", "macs")
IMPORTANCES = ("magnitude", "taylor", "batchnorm")
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
WIDE = 16  # channels that the kernels of ONNX Runtime take at once
CHECKED = 64  # rows at a time that the smaller net is run on
LEAST = 0.1  # of a layer's channels that a ranking across layers leaves: a layer of one channel cannot be trained again
Chosen = list[list[int]]  # for each group, the units that go


class Channels(Compressor):
    """Removes channels through the dependency graph of Torch-Pruning (Fang et al. 2023), then the net is fine-tuned.

    amount: the share of its channels that each layer loses (target=channels), or the share of the multiply-adds that
    the net loses (target=macs: 0.75 leaves a quarter). importance: weights' size, change of the loss on training data
    (taylor), or batch norms' scales. global_ranking: channels compete across layers, not within theirs. rounds: in
    equal shares of what is left, with fine-tuning after each. round_to: widths become multiples of it; auto: of 16, or
    of what is half of a layer that is narrow, since kernels take so many at once. exclude: patterns of layers whose
    outputs stay. The net's input and output stay as wide as they are.
    """

    verb = "prune"
    trains = True

    def __init__(
        self,
        amount: float = 0.5,
        target: Literal["channels", "macs"] = "channels",
        importance: Literal["magnitude", "taylor", "batchnorm"] = "magnitude",
        global_ranking: bool = False,
        rounds: int = 1,
        round_to: int | Literal["auto"] | None = None,
        exclude: Sequence[str] = (),
        plan: Node | None = None,
    ) -> None:
        super().__init__(plan)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1:
            raise UsageError(f"compressor.amount={amount} must be above 0 and below 1, e.g. compressor.amount=0.5")
        for key, value, known in (("target", target, TARGETS), ("importance", importance, IMPORTANCES)):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"compressor.{key}={value} is not one of {', '.join(known)}{hint}")
        for key, count in (("rounds", rounds), ("round_to", 1 if round_to == "auto" else round_to or 1)):
            if not isinstance(count, int) or count < 1:
                raise UsageError(f"compressor.{key}={count} must be a whole number of 1 or more")
        self.amount, self.target, self.importance = amount, target, importance
        self.global_ranking, self.rounds, self.round_to = global_ranking, rounds, round_to or 1
        self.exclude = tuple(exclude)
        self._first = 0
        self._before: dict[str, int] = {}  # units of each group, and multiply-adds, before the first round

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """A net of another engine or without layers, a pattern that names none, batch norms that are not there."""
        if isinstance(net, Artifact):
            return f"the weights are in `{net.file}` and cannot be pruned; prune the run that it was made from"
        if importlib.util.find_spec("torch_pruning") is None:
            return "compressor=channels needs Torch-Pruning; install it with `pip install torch-pruning`"
        layers = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | Conv | nn.RNNBase)]
        if not layers:
            return "the net has no layers whose channels could be pruned"
        for pattern in self.exclude:
            if not fnmatch.filter((name for name, _ in net.named_modules()), pattern):
                return f"compressor.exclude: `{pattern}` matches no layer; have: {', '.join(layers[:12])}"
        if self.importance == "batchnorm" and not any(map(importance.is_batchnorm, net.modules())):
            return "compressor.importance=batchnorm needs a net with batch norms; use compressor.importance=magnitude"
        return None

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The net with fewer channels, in its own mode and with its own flags; the plan holds its shapes so far."""
        example = context.example.to(next(net.parameters()).device)
        scratch = Scratch(net, example, embeddings=context.spec.kind == "sequence")
        for layer, reason in scratch.left.items():
            if not self._excluded((layer,)):
                context.leave(layer, reason)
        groups = [group for group in scratch.groups if not self._excluded(group.layers)]
        groups, scores = self._scored(net, groups, context, turn)
        if not groups:
            raise UsageError("no channels of this net can be pruned; use compressor=magnitude")
        if turn == 0 or not self._before:
            self._first = turn
            self._before = {group.name: group.units for group in groups}
            self._before[""] = macs(scratch.net, scratch.x[:1])
        passed = (turn + 1 - self._first) / self.rounds
        if self.target == "macs":
            removal = self._until(scratch, groups, scores, self._before[""] * (1 - self.amount) ** passed)
        else:
            self._check(groups)
            removal = _removal(groups, self._choose(groups, scores, 1 - (1 - self.amount) ** passed))
        if not scratch.holds(removal):
            raise UsageError("the net does not run without the channels that were chosen; use compressor=magnitude")
        before = sum(parameter.numel() for parameter in net.parameters())
        remove(net, removal)
        if before == sum(parameter.numel() for parameter in net.parameters()):
            context.note(f"no channel goes: compressor.amount={self.amount:g} and round_to leave each layer its width")
        self._check_runs(net, context)
        self.plan = record(net, removal, self.plan)
        return net

    def _check_runs(self, net: nn.Module, context: Context) -> None:
        """UsageError when the net computes otherwise for other rows than those it was looked at with, and fails."""
        training, every = net.training, context.calibration
        try:
            with torch.no_grad():  # not inference: what the net keeps of a pass may be trained with
                for rows in (every[:1], *torch.split(every, CHECKED)):
                    net.eval()(rows.to(next(net.parameters()).device))
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise UsageError(
                f"the net does not run without the channels that were chosen ({first}): what it computes depends on "
                "its rows, or needs more channels; use compressor.exclude=[LAYER] for the layers on such a way, a "
                "smaller compressor.amount, or compressor=magnitude"
            ) from error
        finally:
            net.train(training)

    def restore(self, net: nn.Module) -> nn.Module:
        """The net with the shapes of the plan, its weights zero until they are loaded."""
        return resize(net, self.plan)

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """A tenth of the channels to nine tenths, or of the multiply-adds."""
        kept: Node = {"target": self.target, "importance": self.importance, "global_ranking": self.global_ranking}
        kept |= {"rounds": self.rounds, "round_to": self.round_to, "exclude": list(self.exclude)}
        return [{"amount": amount, **kept} for amount in AMOUNTS]

    def _excluded(self, layers: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(layer, pattern) for layer in layers for pattern in self.exclude)

    def _scored(
        self, net: nn.Module, groups: list[Group], context: Context, turn: int
    ) -> tuple[list[Group], list[Tensor]]:
        """The groups that can be scored, and the scores of their units."""
        if not groups or self.importance == "magnitude":
            return groups, importance.magnitude(net, groups)
        if self.importance == "taylor":
            if turn:  # no longer the parent's net
                return groups, importance.taylor(net, groups, context)
            name = f"taylor {[group.name for group in groups]}"
            return groups, context.remember(name, lambda: importance.taylor(net, groups, context))
        found = list(zip(groups, importance.batchnorm(net, groups), strict=True))
        for group, scores in found:
            if scores is None:
                context.leave(group.name, "no batch norm follows it (compressor.importance=batchnorm)")
        return [g for g, s in found if s is not None], [s for _, s in found if s is not None]

    def _check(self, groups: Sequence[Group]) -> None:
        """UsageError when a layer would lose all of its channels; heads are few, and one always stays."""
        if self.global_ranking and self.amount > 1 - LEAST:
            raise UsageError(
                f"compressor.amount={self.amount} must be {1 - LEAST} or less with compressor.global_ranking=true, "
                "which leaves a tenth of every layer"
            )
        for group in groups:
            count = self._before.get(group.name, group.units)
            if count * (1 - self.amount) <= 0.5 and not group.is_heads:
                most = math.floor(100 * (1 - 1 / count)) / 100
                raise UsageError(
                    f"compressor.amount={self.amount} would take all {count * group.width} channels of `{group.name}`; "
                    f"use compressor.amount={most} or less, or exclude it: compressor.exclude=[{group.name}]"
                )

    def _choose(self, groups: Sequence[Group], scores: Sequence[Tensor], share: float) -> Chosen:
        """The units that go when `share` of what was there before the first round is to be gone."""
        initial = [self._before.get(group.name, group.units) for group in groups]
        if self.global_ranking:
            left = self._ranked(groups, scores, share, initial)
        else:
            left = [count - int(count * share + 0.5) for count in initial]
        chosen = []
        for group, score, stay in zip(groups, scores, left, strict=True):
            step = 1 if group.is_heads else self._step(group)
            stay = min(max(round(stay / step) * step, step, 1), group.units)
            chosen.append(importance.lowest(score, group.units - stay))
        return chosen

    def _step(self, group: Group) -> int:
        """Units of which a group keeps a multiple; a unit is several channels wide in attention."""
        before = self._before.get(group.name, group.units) * group.width
        wanted = min(WIDE, 2 ** int(math.log2(max(1, before // 2)))) if self.round_to == "auto" else self.round_to
        return wanted // math.gcd(wanted, group.width)

    def _ranked(
        self, groups: Sequence[Group], scores: Sequence[Tensor], share: float, initial: Sequence[int]
    ) -> list[int]:
        """Units that stay in each group when the lowest of all groups go first."""
        everything = sum(count * group.width for count, group in zip(initial, groups, strict=True))
        excess = importance.total(groups) - everything * (1 - share)
        left = [group.units for group in groups]
        least = [math.ceil(LEAST * count) for count in initial]
        owner = [index for index, group in enumerate(groups) for _ in range(group.units)]
        for unit in torch.cat(list(scores)).sort(stable=True).indices.tolist():
            index = owner[unit]
            if excess <= 0:
                break
            if left[index] > least[index]:
                left[index] -= 1
                excess -= groups[index].width
        return left

    def _until(self, scratch: Scratch, groups: Sequence[Group], scores: Sequence[Tensor], wanted: float) -> Removal:
        """The smallest removal after which `wanted` multiply-adds or fewer are left; UsageError when none is."""

        def left(chosen: Chosen) -> int:
            return scratch.measured(_removal(groups, chosen), lambda net, x: macs(net, x[:1]))

        best = self._choose(groups, scores, 1.0)
        if (fewest := left(best)) > wanted:
            most = math.floor(100 * (1 - fewest / self._before[""])) / 100
            raise UsageError(
                f"compressor.amount={self.amount} of the multiply-adds cannot go, {most:g} is the most in this net; "
                f"use compressor.amount={most:g} or less"
            )
        low, high = 0.0, 1.0
        for _ in range(12):
            middle = (low + high) / 2
            chosen = self._choose(groups, scores, middle)
            low, high, best = (low, middle, chosen) if left(chosen) <= wanted else (middle, high, best)
        ranked = [sorted(units, key=score.tolist().__getitem__) for units, score in zip(best, scores, strict=True)]
        for index in range(
            len(groups) if self.round_to == 1 else 0
        ):  # one share for all layers takes a little too much
            fewer = [units[:-1] if at == index else units for at, units in enumerate(ranked)]
            ranked = fewer if ranked[index] and left(fewer) <= wanted else ranked
        return _removal(groups, ranked)


def _removal(groups: Sequence[Group], chosen: Chosen) -> Removal:
    removal = Removal()
    for group, units in zip(groups, chosen, strict=True):
        group.removal(units, removal)
    return removal
