from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.compression.conftest import DATA, Bench
from trainctl import build
from trainctl.compression import latency, measure, onnx_weights
from trainctl.compression.cost import macs
from trainctl.compression.footprint import footprint
from trainctl.compression.onnx_net import OnnxNet, quietly, to_onnx
from trainctl.config.compose import compose, plain


def dense(width: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)).eval()


def by_modules(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds by the textbook: each kind of layer from its shapes."""
    total = 0

    def add(module: Any, given: tuple[Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.LSTM):
            total += math.prod(given[0].shape[:2]) * sum(p.numel() for p in module.parameters() if p.ndim > 1)
        elif hasattr(module, "query_key_value"):  # an attention block: query times key, weights times value
            _, length, dim = given[0].shape
            total += 2 * length * length * dim

    hooks = [module.register_forward_hook(add) for module in net.modules()]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("model", DATA)
def test_multiply_adds_are_those_of_the_textbook(model: str) -> None:
    config = plain(compose("train", [f"model={model}", *DATA[model]]))
    data = build.data(config)
    task = build.task(config, data.split("train") and data.spec, data)
    x = task.inputs(data.split("train").x[:1])
    counted = macs(task.net.train(), x)
    assert counted == by_modules(task.net.eval(), x) > 0
    task.net.train()
    macs(task.net, x)
    assert task.net.training, "the net is left as it was"


def test_layers_of_torch_that_run_as_one_operator_are_counted_too() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    assert macs(layer, torch.randn(1, 5, 16)) == 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16
    assert macs(nn.GRU(4, 8, batch_first=True), torch.randn(1, 3, 4)) == 3 * 24 * (4 + 8)


def test_counts_of_a_float_net_and_of_its_onnx_file_agree(bench: Callable[..., Bench], tmp_path: Path) -> None:
    made = bench("mlp")
    net, x = made.net, made.context.example
    with torch.no_grad():
        next(p for p in net.parameters() if p.shape == (128, 24) or p.ndim == 2)[:, 0] = 0.0
    files = [tmp_path / "model.safetensors", tmp_path / "model.onnx"]
    save_file(net.state_dict(), files[0])
    files[1].write_bytes(to_onnx(net, x))
    started = time.process_time()
    before = measure.static(net, x, files[:1])
    after = measure.static(OnnxNet(files[1].read_bytes()), x, files[1:], net)
    assert time.process_time() - started < 2, "measured 0.1 s"
    assert before["parameters"] == after["parameters"] == sum(p.numel() for p in net.parameters())
    assert before["non_zeros"] == after["non_zeros"] < before["parameters"]
    assert before["macs"] == after["macs"] == macs(net, x[:1])
    assert before["bytes"] == files[0].stat().st_size and 0 < before["zstd_bytes"] < before["bytes"]
    assert measure.static(OnnxNet(files[1].read_bytes()), x, files)["macs"] is None


def test_statistics_of_batch_norm_and_shapes_are_no_weights() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    parameters, _ = onnx_weights.count(to_onnx(net, torch.randn(2, 1, 4, 4)))
    assert sum(p.numel() for p in net.parameters()) - 8 <= parameters <= sum(p.numel() for p in net.parameters()), (
        "a norm may be folded into the weights before it"
    )


def test_an_integer_is_zero_at_its_zero_point_and_scales_are_no_weights(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    net, x = dense(), torch.randn(2, 8)
    with torch.no_grad():
        net[2].weight[:, :32] = 0.0
    path, parameters = tmp_path / "int8.onnx", sum(p.numel() for p in net.parameters())
    with quietly():
        model = onnx.load_model_from_string(to_onnx(net, x))
        for kind in (QuantType.QInt8, QuantType.QUInt8):  # the second has zero points that are not 0
            quantize_dynamic(model, path, weight_type=kind, op_types_to_quantize=["MatMul", "Gemm"])
            found = onnx_weights.count(path.read_bytes())
            assert found[0] == parameters
            assert found[1] <= parameters - 64 * 32 and found[1] > 0.9 * (parameters - 64 * 32)


def test_weights_of_four_bits_are_two_in_a_byte() -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    weight[:, :8] = 0.0
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["batch", size]) for name, size in (("x", 48), ("y", 32)))
    node, held = onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), onnx.numpy_helper.from_array(weight.numpy(), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "net", [x], [y], [held]))
    with quietly():
        quantizer = MatMulNBitsQuantizer(model, block_size=16, is_symmetric=True)
        quantizer.process()
    parameters, non_zeros = onnx_weights.count(quantizer.model.model.SerializeToString())
    assert parameters == 48 * 32
    assert 0.7 * 48 * 24 < non_zeros <= 48 * 24


def test_ratios_say_how_many_times_less_and_against_which_engine() -> None:
    before: measure.Figures = {
        "parameters": 100, "non_zeros": 100, "macs": None, "bytes": 400, "zstd_bytes": 300, "peak_memory_mb": 0.0,
        "load_ms": 4.0, "latency": {"torch": {"1": 8.0, "64": 30.0}, "onnxruntime": {"1": 4.0}},
    }  # fmt: skip
    after: measure.Figures = {
        "parameters": 50, "non_zeros": 10, "macs": 7, "bytes": 100, "zstd_bytes": 100, "peak_memory_mb": 1.0,
        "load_ms": None, "latency": {"onnxruntime": {"1": 2.0, "64": 10.0}},
    }  # fmt: skip
    assert measure.comparison(before, after) == {
        "parameters": 2.0, "non_zeros": 10.0, "bytes": 4.0, "zstd_bytes": 3.0,
        "latency": {"torch": {"1": 4.0, "64": 3.0}, "onnxruntime": {"1": 2.0}},
    }  # fmt: skip
    assert measure.comparison({}, after) == {}


def test_subjects_take_turns_and_the_process_is_left_as_it_was() -> None:
    told: list[tuple[str, int, int]] = []

    def subject(name: str) -> Callable[[Tensor], Any]:
        def call(x: Tensor) -> None:
            assert torch.is_inference_mode_enabled() and torch.get_num_threads() == 2
            told.append((name, len(x), len(told)))

        return call

    threads, rows = torch.get_num_threads(), {4: torch.zeros(4), 1: torch.zeros(1)}
    found = latency.latency({"a": subject("a"), "b": subject("b")}, rows, calls=25, threads=2)
    assert torch.get_num_threads() == threads
    assert [batch for batch in found["a"]] == [1, 4] and found["b"][1]["calls"] == 25
    assert set(found["a"][1]) == {"median_ms", "p95_ms", "p99_ms", "cpu_ms", "waited", "calls"}
    told.clear()
    with_one = {name: subject(name) for name in ("a", "b")}
    torch.set_num_threads(2)
    try:
        latency.latency(with_one, {"a": {1: torch.zeros(1)}, "b": {1: torch.zeros(1)}}, calls=50, threads=2)
    finally:
        torch.set_num_threads(threads)
    counted = [name for name, _, _ in told][2 * latency.WARM_UP :]
    assert {name: counted.count(name) for name in "ab"} == {"a": 55, "b": 55}, "5 turns of 10 calls and one before"


def test_on_one_thread_the_turns_are_of_single_calls_in_changing_order() -> None:
    told: list[str] = []
    subjects = {name: (lambda x, name=name: told.append(name)) for name in "abc"}
    latency.latency(subjects, {1: torch.zeros(1)}, calls=40)
    rounds = [tuple(told[at : at + 3]) for at in range(3 * latency.WARM_UP, len(told), 3)]
    assert len(rounds) == 40 and all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 3


def test_a_slow_subject_gets_fewer_calls_and_the_number_is_said() -> None:
    subjects = {"slow": lambda x: time.sleep(0.02), "quick": lambda x: None}
    found = latency.latency(subjects, {1: torch.zeros(1)}, calls=100, seconds=0.2)
    assert latency.FEWEST <= found["slow"][1]["calls"] <= 12 and found["quick"][1]["calls"] == 100
    assert 20 <= found["slow"][1]["median_ms"] <= found["slow"][1]["p99_ms"]
    assert found["slow"][1]["waited"] > 0.5, "it did not use the processor"


def test_percentiles_are_values_that_were_measured() -> None:
    calls = [(ms / 1e3, ms / 2e3) for ms in range(100, 0, -1)]
    assert latency.summary(calls) == {
        "median_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "cpu_ms": 25.0, "waited": 0.5, "calls": 100
    }  # fmt: skip


@pytest.mark.slow
def test_a_net_is_timed_by_every_engine_that_runs_it() -> None:
    net, x = dense(), torch.randn(7, 8)
    subjects = latency.subjects_of(net, x)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(subjects["onnxruntime"](x)[0]), subjects["torch"](x))
    content = latency.as_onnx(net, x)
    assert content is not None and list(latency.subjects_of(OnnxNet(content), x)) == ["onnxruntime"]


def test_a_net_that_cannot_be_exported_is_timed_in_torch_with_the_reason() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    notes: list[str] = []
    assert list(latency.subjects_of(Own(), torch.randn(2, 3), notes=notes)) == ["torch"]
    assert len(notes) == 1 and notes[0].startswith("not timed in ONNX Runtime: ")


def test_a_larger_net_takes_more_memory_and_a_failing_one_is_not_measured() -> None:
    def loader(width: int) -> Callable[[], nn.Module]:
        return lambda: dense(width)

    x = torch.randn(64, 8)
    small, large = footprint(loader(16), x), footprint(loader(1500), x)
    assert small["load_ms"] is not None and large["load_ms"] is not None
    if small["peak_memory_mb"] is not None:  # a container may forbid setting the peak back
        assert large["peak_memory_mb"] is not None
        assert small["peak_memory_mb"] < 2 and 8.5 < large["peak_memory_mb"] < 25, "9 MB of weights, made once"
    pid = os.getpid()
    assert footprint(lambda: 1 / 0, x) == {"peak_memory_mb": None, "load_ms": None}  # type: ignore[arg-type,return-value]
    assert footprint(lambda: time.sleep(9), x, patience=0.2)["load_ms"] is None  # type: ignore[arg-type,return-value]
    assert os.getpid() == pid
