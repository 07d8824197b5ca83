"""8-bit weights with a scale per channel, computed with in float32: a quarter of the bytes, at the speed of float32."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainctl.compression import onnx_bits, torchao_nets
from trainctl.compression.base import Context
from trainctl.compression.engines import Quantizer


class Int8WeightOnly(Quantizer):
    """onnxruntime: every weight matrix, widened when the file is loaded. torch: Linear layers, by torchao."""

    def refused_by_torch(self, net: nn.Module) -> str | None:
        return torchao_nets.refusal(net, "int8_weight_only")

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        onnx_bits.to_int8(model, (), left)
        context.note(
            "8-bit weights save bytes, not time: they are widened to float32 when the file is loaded; "
            "`compressor=int8_dynamic` and `int8_static` compute in int8"
        )
        return model

    def layers(self, net: nn.Module, context: Context) -> list[str]:
        return torchao_nets.choose(net, self.exclude, context)

    def changed(self, net: nn.Module) -> nn.Module:
        return torchao_nets.quantized(net, "Int8WeightOnlyConfig", self.plan["layers"])
