"""What a compressor is, what it is given, and the model node that a compressed run has.

A compressor is a class with `conf/compressor/<name>.yaml`. `compress` does the work and leaves in `plan` (JSON) what
`restore` needs to build the same structure again without data; the weights come from the run.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

log = logging.getLogger("trainctl")

Node = dict[str, Any]


@dataclass
class Context:
    """What a compressor may use besides the net. Every x is what the net takes: images are normalised float32 here.

    example: the first rows of train [2, ...]. calibration: x of rows of train, drawn by the seed [N, ...].
    batches: one epoch of shuffled training batches (x, y), in the same order each time it is called.
    loss(output, y): the task's mean loss. score(net): the objective on val; the larger, the better.
    steps: optimizer steps of the fine-tuning that follows a call of `compress`; 0 when there is none. resolution: the
    change of `score` that a few rows of val make, below which a drop says nothing. remember(name, make): what `make()`
    gave before for the same parent; of what depends on its net, data and seed alone.
    """

    spec: DataSpec
    example: Tensor
    calibration: Tensor
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    seed: int = 0
    steps: int = 0
    strict: bool = False
    resolution: float = 0.0
    remember: Callable[[str, Callable[[], Any]], Any] = lambda name, make: make()
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Say something once, now and in the run's record."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            log.info("%s", sentence)

    def leave(self, layer: str, reason: str) -> None:
        """Say that a layer stays as it is; with `strict` it is refused instead (UsageError)."""
        if self.strict:
            raise UsageError(f"`{layer}` cannot be compressed: {reason}; leave out `strict=true` to keep it as it is")
        self.note(f"`{layer}` stays as it is: {reason}")


class Compressor(ABC):
    """One method. Its constructor's parameters are the keys of conf/compressor/<name>.yaml, and `plan`.

    verb: the verb that takes it. trains: whether fine-tuning between `compress` and `finish` is of use. rounds: how
    often `compress` and fine-tuning take turns. lr_scale: of the run's learning rate then. masks: zeros only, neither
    bytes nor time fall. estimators: whether it is for trees and forests, not for nets.
    """

    verb: ClassVar[Literal["prune", "quantize"]]
    trains: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    estimators: ClassVar[bool] = False
    rounds: int = 1
    lr_scale: float = 1.0

    def __init__(self, plan: Node | None = None) -> None:
        self.plan: Node = dict(plan or {})

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        """Why it cannot be done with this net or on this machine, a sentence; asked before any work."""
        return None

    @abstractmethod
    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        """The net of round `turn` (0 .. rounds - 1), ready to be fine-tuned; `net` may be changed and returned."""

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        """What ships, after the last fine-tuning; the net itself by default."""
        return net

    @abstractmethod
    def restore(self, net: nn.Module) -> nn.Module:
        """An uncompressed net of the same config -> the structure that `finish` returned; weights are loaded later."""

    def further(self, net: nn.Module) -> Node:
        """Figures of what ships that only this method has, for the record (JSON); none by default."""
        return {}

    def candidates(self, net: nn.Module, context: Context) -> list[Node]:
        """Settings (constructor parameters) from the gentlest to the hardest, for a search within a budget."""
        return []


class Artifact(nn.Module):
    """A net whose weights are one file of the run, `file`, that another engine runs; it cannot be trained."""

    file: ClassVar[str]
    content: bytes = b""

    def load(self, content: bytes) -> None:
        """Take the file's content; RunError when it is damaged. Threads: as torch has now."""
        raise TypeError(f"{type(self).__name__} must define load()")


def compressed(make_node: Callable[[Node], Any], net: Node, steps: Sequence[Node]) -> nn.Module:
    """The net of the node `net` in the structure that `steps` (nodes of compressors with their plans) gave it.

    `make_node` builds a node; `build.net` passes it.
    """
    made: nn.Module = make_node(net)
    for step in steps:
        compressor = make_node(step)
        if not isinstance(compressor, Compressor):
            raise UsageError(f"`{step.get('_target_')}` is no compressor; see `trainctl list compressor`")
        made = compressor.restore(made)
    return made


def node_of(model: Node, step: Node) -> Node:
    """The model node of a run whose model was `model`, after one more `step` (its node with the plan in it)."""
    net, steps = (model["net"], model["steps"]) if is_compressed(model) else (model, [])
    return {"_target_": "trainctl.compression.compressed", "_recursive_": False, "net": net, "steps": [*steps, step]}


def parent_of(model: Node) -> Node:
    """The model node of the run that a compressed one was made from: without its last step."""
    *steps, _ = model["steps"]
    return {**model, "steps": steps} if steps else dict(model["net"])


def is_compressed(model: Node) -> bool:
    """Whether a model node is one of `node_of`."""
    return model.get("_target_") == "trainctl.compression.compressed"
