"""8-bit floats, weights and activations, for GPUs that multiply them (compute capability 8.9 and above)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainctl.compression import torchao_nets
from trainctl.compression.base import Context
from trainctl.compression.engines import Quantizer
from trainctl.errors import ResourceError

NEEDED = (8, 9)


class OnGpu(nn.Module):
    """`net` where its weights are: x [B, ...] from anywhere, the output goes back to where x was."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        place = next(self.net.parameters()).device
        return self.net(x.to(place)).to(x.device)  # type: ignore[no-any-return]


class Float8(Quantizer):
    """torch alone: Linear layers by torchao, scales from each batch. Their sizes must be multiples of 16."""

    automatic: ClassVar[str | None] = "torch"

    def refused_by_onnxruntime(self, net: nn.Module) -> str | None:
        return "ONNX Runtime computes nothing in float8 on the CPU; use compressor=int8_static"

    def refused_by_torch(self, net: nn.Module) -> str | None:
        if not torch.cuda.is_available():
            return _refused("this machine has no CUDA device")
        capability = torch.cuda.get_device_capability()
        if capability < NEEDED:
            return _refused(f"{torch.cuda.get_device_name()} has {capability[0]}.{capability[1]}")
        return torchao_nets.refusal(net, "float8")

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        raise AssertionError("refused before")

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        return super().compress(net, context, turn).cuda()

    def layers(self, net: nn.Module, context: Context) -> list[str]:
        return torchao_nets.choose(net, self.exclude, context, 16)

    def changed(self, net: nn.Module) -> nn.Module:
        refusal = self.refused_by_torch(net)
        if refusal is not None:
            raise ResourceError(refusal)
        made = torchao_nets.quantized(net, "Float8DynamicActivationFloat8WeightConfig", self.plan["layers"])
        return OnGpu(made)


def _refused(found: str) -> str:
    return f"float8 needs a GPU of compute capability 8.9 or more, and {found}; use compressor=int8_static"
