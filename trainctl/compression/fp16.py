"""16-bit floats with 5 bits of exponent: half the bytes, nearly the same outputs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from trainctl.compression import onnx_bits
from trainctl.compression.base import Context
from trainctl.compression.halves import Half


class Fp16(Half):
    """onnxruntime: weights stored in float16, computed with in float32. torch: layers in float16, as they run too."""

    dtype: ClassVar[torch.dtype] = torch.float16

    def rewrite(self, model: Any, left: set[str], context: Context) -> Any:
        for weight in onnx_bits.to_float16(model, left):
            context.leave(weight.layer or weight.name, "it has values beyond 65504, the largest of float16")
        context.note("16-bit weights save bytes, not time: they are widened to float32 when the file is loaded")
        return model
