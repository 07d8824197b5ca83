"""8-bit weights, and activations that are rounded to 8 bits while the net runs: faster, and no data needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from torch import nn

from trainctl.compression import onnx_bits, torchao_nets, vnni
from trainctl.compression.base import Context, Node
from trainctl.compression.engines import Quantizer, listed
from trainctl.compression.onnx_net import quietly


class Int8Dynamic(Quantizer):
    """onnxruntime: MatMul, Gemm and LSTM in int8, other weights stored in 8 bits. torch: Linear layers, by torchao.

    reduce_range: weights of 7 bits, for CPUs without VNNI; auto: in ONNX Runtime where this one has none.
    """

    def __init__(
        self,
        backend: str = "auto",
        reduce_range: bool | str = "auto",
        exclude: Sequence[str] = (),
        plan: Node | None = None,
    ) -> None:
        super().__init__(backend, exclude, plan)
        self.reduce_range = reduce_range

    def refused_by_torch(self, net: nn.Module) -> str | None:
        return torchao_nets.refusal(net, "int8_dynamic")

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        onnx_bits.split_gemms(model)
        computed = onnx_bits.products(model, left) | _lstms(model, left)
        read = {name for node in model.graph.node if node.name in computed for name in node.input}
        stored = onnx_bits.to_int8(model, read, left)
        convolutions = [weight.layer for weight in stored if weight.operator.startswith("Conv")]
        if convolutions:
            context.note(
                f"{listed(convolutions)}: weights in 8 bits, computed in float32, since ONNX Runtime's dynamic int8 "
                "convolutions are slower than that; `compressor=int8_static` computes them in int8"
            )
        if not computed:
            return model
        self.plan["bits"] = vnni.bits_of(context, self.reduce_range)
        return _dynamic(model, list(computed), self.plan["bits"] < 8)

    def restore(self, net: nn.Module) -> nn.Module:
        vnni.warn_of(self.plan)
        return super().restore(net)

    def layers(self, net: nn.Module, context: Context) -> list[str]:
        return torchao_nets.choose(net, self.exclude, context)

    def changed(self, net: nn.Module) -> nn.Module:
        return torchao_nets.quantized(
            net, "Int8DynamicActivationInt8WeightConfig", self.plan["layers"], reduce_range=self.reduce_range is True
        )


def _lstms(model: Any, left: set[str]) -> dict[str, str]:
    """LSTM operators with constant weights of layers not `left`."""
    constants = {weight.name for weight in onnx_bits.weights(model) if weight.layer not in left}
    found = [n for n in model.graph.node if n.op_type == "LSTM" and {n.input[1], n.input[2]} <= constants]
    return {node.name: node.input[1] for node in found}


def _dynamic(model: Any, nodes: list[str], reduce_range: bool) -> Any:
    """ONNX Runtime's own rewriting of the operators `nodes`."""
    import onnx

    written = io.BytesIO()
    with quietly():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            model, written, op_types_to_quantize=["MatMul", "LSTM"], nodes_to_quantize=nodes, per_channel=True,
            reduce_range=reduce_range, weight_type=QuantType.QInt8,
        )  # fmt: skip
    return onnx.load_model_from_string(written.getvalue())
