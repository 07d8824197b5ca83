"""16-bit floats with the range of float32 and 8 bits of precision: half the bytes; fast where the hardware has them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from trainctl.compression.base import Context
from trainctl.compression.halves import Half


class Bf16(Half):
    """torch alone: layers in bfloat16, also while they run."""

    automatic: ClassVar[str | None] = "torch"
    dtype: ClassVar[torch.dtype] = torch.bfloat16

    def refused_by_onnxruntime(self, net: nn.Module) -> str | None:
        return "ONNX Runtime computes nothing in bfloat16 on the CPU; use backend=torch, or compressor=fp16"

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        raise AssertionError("refused before")
