"""4-bit weights of linear layers with a scale per block of inputs: a sixth of their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from trainctl.compression import onnx_bits, torchao_nets
from trainctl.compression.base import Context, Node
from trainctl.compression.engines import Quantizer, excluded, listed
from trainctl.compression.onnx_net import quietly


class Int4WeightOnly(Quantizer):
    """onnxruntime: MatMul and Gemm by MatMulNBits, other weights in 8 bits. torch: torchao, where it runs.

    block_size: inputs that share a scale and a zero point, a power of two of at least 16. eight: linear layers for
    which 4 bits are too few, as patterns: 8 bits in onnxruntime, as they are in torch.
    """

    def __init__(
        self,
        backend: str = "auto",
        block_size: int = 32,
        eight: Sequence[str] = (),
        exclude: Sequence[str] = (),
        plan: Node | None = None,
    ) -> None:
        super().__init__(backend, exclude, plan)
        self.block_size, self.eight = block_size, tuple(eight)

    def refused_by_torch(self, net: nn.Module) -> str | None:
        try:
            with torch.inference_mode():
                probe = nn.Sequential(nn.Linear(256, 64))
                self._quantized(probe, ["0"])(torch.zeros(2, 256))
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return f"torchao's 4-bit weights do not run on this machine ({reason}); use backend=onnxruntime"
        return torchao_nets.refusal(net, "int4_weight_only")

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        onnx_bits.split_gemms(model)
        eight = excluded(self.eight, onnx_bits.layers(model), "eight")
        packed = onnx_bits.products(model, left | eight)
        others = onnx_bits.to_int8(model, set(packed.values()), left)
        if others:
            few = "4 bits are for linear layers" + (" without those of `compressor.eight`" if eight else "")
            context.note(f"{few}; 8-bit weights in {listed(weight.layer for weight in others)}")
        return self._packed(model, set(packed)) if packed else model

    def layers(self, net: nn.Module, context: Context) -> list[str]:
        return torchao_nets.choose(net, (*self.exclude, *self.eight), context, self.block_size)

    def changed(self, net: nn.Module) -> nn.Module:
        return self._quantized(net, self.plan["layers"])

    def _quantized(self, net: nn.Module, layers: list[str]) -> nn.Module:
        return torchao_nets.quantized(net, "Int4WeightOnlyConfig", layers, group_size=self.block_size)

    def _packed(self, model: Any, nodes: set[str]) -> Any:
        """ONNX Runtime's own rewriting of the MatMul operators `nodes`."""
        with quietly():
            from onnxruntime.quantization import matmul_nbits_quantizer as nbits

            others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in nodes]
            config = nbits.DefaultWeightOnlyQuantConfig(block_size=self.block_size, accuracy_level=4)
            quantizer = nbits.MatMulNBitsQuantizer(model, algo_config=config, nodes_to_exclude=others)
            quantizer.process()
        return quantizer.model.model
