"""What the methods that need no calibration share: one engine of two, chosen once and kept in the plan.

onnxruntime: the net becomes an ONNX graph whose weights are rewritten (see onnx_bits). torch: the net stays a module
whose tensors change (see torchao_nets).
"""

from __future__ import annotations

import fnmatch
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainctl.compression.attention import to_lean_onnx
from trainctl.compression.base import Artifact, Compressor, Context, Node
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError

ENGINES = ("onnxruntime", "torch")
SLOW = "fewer bits save bytes, not time, in torch on a CPU"
FASTER = "; backend=onnxruntime has the kernels"


class Quantizer(Compressor):
    """A method on one of two engines. backend: auto, onnxruntime, torch. exclude: layers that stay, as patterns.

    A subclass writes `rewrite` (the ONNX graph, in place) and `changed` (the torch module); `layers` says which.
    """

    verb = "quantize"
    automatic: ClassVar[str | None] = None  # what `auto` means for this method, wherever it runs

    def __init__(self, backend: str = "auto", exclude: Sequence[str] = (), plan: Node | None = None) -> None:
        super().__init__(plan)
        self.backend = str(self.plan.get("backend") or backend)
        self.exclude = tuple(exclude)

    @property
    def engine(self) -> str:
        """`onnxruntime` or `torch`; `auto` is torch where there is a GPU."""
        if self.backend != "auto":
            return self.backend
        return self.automatic or ("torch" if torch.cuda.is_available() else "onnxruntime")

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        if self.engine not in ENGINES:
            return f"`backend` must be auto, onnxruntime or torch, got '{self.backend}'"
        if is_quantized(net):
            return "the run is quantized already; quantize the run that it was made from"
        return self.refused_by_torch(net) if self.engine == "torch" else self.refused_by_onnxruntime(net)

    def refused_by_onnxruntime(self, net: nn.Module) -> str | None:
        """Why ONNX Runtime cannot do it."""
        return None

    def refused_by_torch(self, net: nn.Module) -> str | None:
        """Why torch cannot do it here."""
        return None

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        self.plan["backend"] = self.engine
        if self.engine == "torch":
            self.plan["layers"] = self.layers(net, context)
            if not torch.cuda.is_available():
                context.note(SLOW + ("" if self.refused_by_onnxruntime(net) else FASTER))
            return self.changed(net.eval())
        from trainctl.compression import onnx_bits

        model = onnx_bits.read(to_lean_onnx(net, context))
        model = self.rewrite(model, excluded(self.exclude, onnx_bits.layers(model)), context)
        return OnnxNet(onnx_bits.write(model))

    def restore(self, net: nn.Module) -> nn.Module:
        return OnnxNet() if self.engine == "onnxruntime" else self.changed(net.eval())

    @abstractmethod
    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        """The graph with fewer bits; the layers `left` keep theirs."""

    @abstractmethod
    def layers(self, net: nn.Module, context: Context) -> list[str]:
        """Names of the modules that `changed` changes in torch; what it cannot take is said to `context`."""

    @abstractmethod
    def changed(self, net: nn.Module) -> nn.Module:
        """The net with the modules of `plan["layers"]` changed; fresh or trained, the structure is the same."""


def excluded(patterns: Sequence[str], names: Iterable[str], key: str = "exclude") -> set[str]:
    """Layers that match a pattern such as `head.*` or the name of a module; UsageError when one matches none."""
    found, names = set(), list(names)
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = {n for n in names if fnmatch.fnmatchcase(n, pattern) or n.startswith(pattern.rstrip(".*") + ".")}
        if not matched:
            raise UsageError(f"`compressor.{key}` pattern '{pattern}' matches no layer of: {', '.join(names)}")
        found |= matched
    return found


def is_quantized(net: nn.Module) -> bool:
    """Whether a net's weights are in fewer bits already."""
    odd = (p for p in net.parameters() if type(p) not in (Tensor, nn.Parameter) or type(p.data) is not Tensor)
    halves = (p for p in net.parameters() if p.is_floating_point() and p.dtype not in (torch.float32, torch.float64))
    return isinstance(net, Artifact) or next(odd, None) is not None or next(halves, None) is not None


def listed(layers: Iterable[str]) -> str:
    """Names of layers for a sentence, the first six of them."""
    names = [f"`{name}`" if name else "the net itself" for name in dict.fromkeys(layers)]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
