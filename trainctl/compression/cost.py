"""Multiply-adds of a net for one row, counted as torch dispatches them: whatever module or function they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def macs(net: nn.Module, row: Tensor) -> int:
    """Multiply-adds of linear, convolution, recurrent and attention products for `row` [1, ...].

    Embeddings, norms, activations and element-wise products count nothing. The net is left as it was.
    """
    training, fast = net.training, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator would hide a layer's products
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in trained:  # the counter cannot follow one that is given to a layer
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
            net.eval()(row)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fast)
        net.train(training)
    return int(counter.get_total_flops()) // 2


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Query times key, and the weights times value."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(x: Shape, of_input: Shape, of_state: Shape, *_: Any, **__: Any) -> int:
    """One direction of an LSTM layer: both matrices at each of the [time, batch] steps."""
    return 2 * math.prod(x[:-1]) * (math.prod(of_input) + math.prod(of_state))


def _matrix_vector(matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


# operators of the CPU that torch's own table leaves out
_UNCOUNTED: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten.mv: _matrix_vector,
}
