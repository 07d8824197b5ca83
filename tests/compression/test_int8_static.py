"""Static int8: what it gives, what it leaves, and that the same rows give the same file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trainctl.compression import calibration, onnx_int8
from trainctl.compression.int8_nodes import int8, uint8
from trainctl.compression.int8_static import Int8Static
from trainctl.compression.onnx_net import OnnxNet, to_onnx
from trainctl.errors import UsageError


def made(b: Any, **keys: Any) -> tuple[OnnxNet, Int8Static]:
    compressor = Int8Static(**keys)
    net = compressor.finish(compressor.compress(b.exported, b.context), b.context)
    assert isinstance(net, OnnxNet)
    return net, compressor


def operators(net: OnnxNet) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(net.content).graph.node]


def moved(net: nn.Module, b: Any) -> float:
    """How far the outputs on val moved, as a share of their size."""
    expected = b.outputs(b.net)
    return float((b.outputs(net) - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("model", "kernel"), [("mlp", "QGemm"), ("cnn", "QLinearConv"), ("resnet", "QLinearConv"), ("transformer", "")]
)
def test_layers_are_computed_in_int8_and_the_accuracy_stays(bench: Callable[..., Any], model: str, kernel: str) -> None:
    b = bench(model)
    net, compressor = made(b)
    assert (kernel or "MatMulIntegerToFloat") in operators(net)
    assert not {"Conv", "Gemm"} & set(operators(net))
    assert set(compressor.plan["layers"].values()) <= {"static", "weight"}
    assert b.context.score(net) >= b.context.score(b.net) - 0.01
    assert moved(net, b) < 0.05
    assert len(net.content) < len(b.exported.content) / 2


def test_the_same_rows_give_the_same_file_which_restore_takes(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    first, compressor = made(b)
    again, _ = made(bench("cnn"))
    assert first.content == again.content
    restored = Int8Static(plan=compressor.plan).restore(b.net)
    assert isinstance(restored, OnnxNet)
    restored.load(first.content)
    assert torch.equal(b.outputs(restored), b.outputs(first))


@pytest.mark.parametrize("method", calibration.METHODS)
def test_every_calibration_keeps_the_accuracy(bench: Callable[..., Any], method: str) -> None:
    b = bench("cnn")
    net, _ = made(b, calibration=method, percentile=99.9)
    assert b.context.score(net) >= b.context.score(b.net) - 0.02


def test_excluded_layers_and_other_operators_stay_in_float(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    net, compressor = made(b, exclude=["head.*"])
    assert "Gemm" in operators(net) and "QGemm" not in operators(net)
    assert {compressor.plan["layers"][name] for name in ("head.2", "head.4")} == {"float"}
    net, compressor = made(b, operators=["Gemm"])
    assert "QGemm" in operators(net) and "Conv" in operators(net)
    for operator in ("Convs", "LSTM"):
        with pytest.raises(UsageError) as caught:
            made(b, operators=[operator])
        assert str(caught.value) == (
            f"`compressor.operators` holds '{operator}', which is none of Conv, Gemm, MatMul, Gather; "
            "this net has Conv, Gemm"
        )


def test_an_lstm_stays_in_float_or_is_refused(bench: Callable[..., Any]) -> None:
    b = bench("lstm")
    net, compressor = made(b)
    assert "LSTM" in operators(net) and compressor.plan["layers"]["lstm"] == "float"
    assert b.notes == [
        "`lstm` stays as it is: ONNX Runtime has no static int8 LSTM; `compressor=int8` makes it dynamic"
    ]
    b.context.strict = True
    with pytest.raises(UsageError, match="^`lstm` cannot be compressed: ONNX Runtime has no static int8 LSTM; "):
        made(b)


def test_a_single_dense_layer_in_int8_keeps_the_relu_after_it(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    model = onnx_int8.prepare(b.exported.content)
    rows = b.context.calibration.numpy()
    maker = onnx_int8.Maker(model, calibration.ranges(model, rows), rows)
    for layer in onnx_int8.layers(model):
        for mode in layer.modes:
            assert maker.error({layer.node: mode}) < 0.02


def test_seven_bits_for_a_cpu_without_vnni(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    model = onnx_int8.prepare(b.exported.content)
    ranges = calibration.ranges(model, b.context.calibration.numpy())
    modes = {layer.node: layer.modes[0] for layer in onnx_int8.layers(model)}
    content = onnx_int8.quantized(model, modes, ranges, bits=7)
    weights = [
        t for t in onnx.load_model_from_string(content).graph.initializer if t.data_type == 3 and len(t.dims) > 1
    ]
    assert weights and max(int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max()) for t in weights) <= 64
    assert b.context.score(OnnxNet(content)) >= b.context.score(b.net) - 0.02


def test_torch_and_a_quantized_net_are_refused(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    assert Int8Static(backend="torch").refusal(b.net, b.context.spec) == (
        "`compressor=int8_static` is carried out by ONNX Runtime, not by torch; leave out `backend=torch`, "
        "or take `compressor=int8_dynamic`"
    )
    assert Int8Static().refusal(b.net, b.context.spec) is None
    assert Int8Static().refusal(OnnxNet(), b.context.spec) == (
        "the run is quantized already; quantize the run that it was made from"
    )


def test_no_rows_and_nothing_to_quantize_are_refused(bench: Callable[..., Any]) -> None:
    b = bench("linear")
    with pytest.raises(UsageError, match="^`compressor=int8_static` finds nothing to quantize: no convolution, "):
        made(b, operators=["Conv"])
    b.context.calibration = b.context.calibration[:0]
    with pytest.raises(UsageError, match="^there are no calibration rows; give e.g. `calibration.rows=512`$"):
        made(b)


def test_rounding_keeps_zero_and_the_ends_of_the_range() -> None:
    codes, scale = int8(np.array([[-1.0, 0.5], [0.0, 0.0]], np.float32), 0)
    assert codes.tolist() == [[-127, 64], [0, 0]] and scale.tolist() == pytest.approx([1 / 127, 1])
    step, zero = uint8((-1.0, 3.0))
    assert float(step) == pytest.approx(4 / 255) and int(zero) == 64


def test_ranges_of_percentile_and_entropy_leave_outliers_out() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    values = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    values[0, 0] = 40.0
    model = onnx_int8.prepare(to_onnx(Twice(), values[:2]))
    full = calibration.ranges(model, values.numpy())
    assert full["x"][1] == 40 and full["y"][1] == 80
    for method in ("percentile", "entropy"):
        low, high = calibration.ranges(model, values.numpy(), method, 99.9)["y"]
        assert full["y"][0] <= low < -4 and 4 < high < 20
