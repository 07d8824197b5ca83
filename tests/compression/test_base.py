"""The model node of a compressed run, and ONNX as a net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.compression import compressed
from trainctl.compression.base import Compressor, is_compressed, node_of
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import RunError, UsageError


class Halve(Compressor):
    """Keeps the first half of a Linear's outputs."""

    verb = "prune"

    def compress(self, net: nn.Module, context: Any, turn: int = 0) -> nn.Module:
        raise AssertionError("restore needs no data")

    def restore(self, net: nn.Module) -> nn.Module:
        return nn.Linear(net.in_features, self.plan["width"])  # type: ignore[arg-type]


def make(node: dict[str, Any]) -> Any:
    kinds = {"linear": nn.Linear, "halve": Halve}
    return kinds[node["_target_"]](**{key: value for key, value in node.items() if key != "_target_"})


def test_steps_are_restored_in_their_order() -> None:
    whole = {"_target_": "linear", "in_features": 4, "out_features": 8}
    first = node_of(whole, {"_target_": "halve", "plan": {"width": 4}})
    both = node_of(first, {"_target_": "halve", "plan": {"width": 2}})
    assert is_compressed(both) and [step["plan"]["width"] for step in both["steps"]] == [4, 2]
    net = compressed(make, both["net"], both["steps"])
    assert isinstance(net, nn.Linear) and (net.in_features, net.out_features) == (4, 2)


def test_a_step_that_is_no_compressor_is_refused() -> None:
    node = {"_target_": "linear", "in_features": 4, "out_features": 8}
    with pytest.raises(UsageError, match="^`linear` is no compressor; see `trainctl list compressor`$"):
        compressed(make, node, [node])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "resmlp", "linear", "cnn", "resnet", "lstm", "transformer"])
def test_onnx_gives_the_outputs_of_the_net_for_any_batch_size(bench: Callable[..., Any], model: str) -> None:
    b = bench(model)
    net = b.exported
    for rows in (1, 2, 7, 64):
        x = b.context.calibration[:rows]
        with torch.inference_mode():
            assert torch.allclose(net(x), b.net.eval()(x), atol=1e-4)


def test_damaged_onnx_is_refused_in_a_sentence() -> None:
    with pytest.raises(RunError, match="^`model.onnx` cannot be run: "):
        OnnxNet(b"not onnx")
