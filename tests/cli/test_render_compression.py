from __future__ import annotations

import copy
from typing import Any

from trainctl.cli import render_compression
from trainctl.cli.console import Block, Table

CONTENT: dict[str, Any] = {
    "method": "int8_static",
    "masked": False,
    "before": {
        "parameters": 500_000, "non_zeros": 500_000, "macs": 4_000_000, "bytes": 2_000_000, "zstd_bytes": 1_900_000,
        "peak_memory_mb": 8.0, "load_ms": 3.0, "objective": "accuracy",
        "latency": {"torch": {"1": 0.9, "64": 12.0}, "onnxruntime": {"1": 0.3, "64": 6.0}},
        "scores": {"val": {"value": 0.91, "interval": [0.9, 0.92]}, "test": {"value": 0.9, "interval": None}},
    },
    "after": {
        "parameters": 500_000, "non_zeros": 499_000, "macs": 4_000_000, "bytes": 520_000, "zstd_bytes": 480_000,
        "peak_memory_mb": None, "load_ms": 3.2, "objective": "accuracy",
        "latency": {"onnxruntime": {"1": 0.1, "64": 12.0}},
        "scores": {"val": {"value": 0.9, "interval": [0.89, 0.91]}, "test": {"value": 0.9, "interval": None}},
        "agreement": {"val": 0.9925, "test": 0.99},
        "difference": {"val": {"value": -0.01, "interval": [-0.015, -0.005]}, "test": {"value": 0.0, "interval": None}},
    },
    "ratio": {
        "parameters": 1.0, "non_zeros": 1.002, "macs": 1.0, "bytes": 3.846, "zstd_bytes": 3.958, "load_ms": 0.9375,
        "latency": {"torch": {"1": 9.0, "64": 1.0}, "onnxruntime": {"1": 3.0, "64": 0.5}},
    },
    "notes": ["`head.1` stays as it is: too small"],
    "gate": {"missed": []},
    "took_s": 12.34,
}  # fmt: skip


def text(blocks: list[Block]) -> list[str]:
    return [line for block in blocks for line in (block.lines() if isinstance(block, Table) else [block])]


def rows(content: dict[str, Any]) -> dict[str, list[str]]:
    block = render_compression.table(content)[0]
    assert isinstance(block, Table)
    return {row[0]: row[1:] for row in block.rows}


def test_each_figure_has_a_line_with_before_after_and_what_that_means() -> None:
    assert rows(CONTENT) == {
        "parameters": ["500,000", "500,000", "the same"],
        "non-zeros": ["500,000", "499,000", "the same"],
        "multiply-adds": ["4,000,000", "4,000,000", "the same"],
        "bytes": ["2 MB", "520 kB", "3.8x smaller"],
        "bytes (zstd)": ["1.9 MB", "480 kB", "4.0x smaller"],
        "peak memory": ["8.0 MB", "-", ""],
        "load": ["3.00 ms", "3.20 ms", "as fast"],
        "batch 1 (torch, then ONNX Runtime)": ["0.900 ms", "0.100 ms", "9.0x faster"],
        "batch 64 (torch, then ONNX Runtime)": ["12.0 ms", "12.0 ms", "as fast"],
        "batch 1 (ONNX Runtime)": ["0.300 ms", "0.100 ms", "3.0x faster"],
        "batch 64 (ONNX Runtime)": ["6.00 ms", "12.0 ms", "2.0x slower"],
        "val/accuracy": ["0.9100 [0.9000, 0.9200]", "0.9000 [0.8900, 0.9100]", "-0.0100 [-0.0150, -0.0050], worse"],
        "test/accuracy": ["0.9000", "0.9000", "+0.0000"],
        "val agreement": ["", "99.25 %", "of rows predicted as before"],
        "test agreement": ["", "99.00 %", "of rows predicted as before"],
    }
    assert text(render_compression.table(CONTENT))[-3:] == [
        "budget: met", "note: `head.1` stays as it is: too small", "method: int8_static, took 12 s"
    ]  # fmt: skip


def test_masked_weights_are_called_masked() -> None:
    content = copy.deepcopy(CONTENT) | {"masked": True}
    content["gate"] = {"missed": ["bytes fell 1 times, `--target` is bytes=4x"]}
    content["ratio"] |= {"non_zeros": 5.0, "bytes": 1.0, "zstd_bytes": 3.9}
    content["sparse"] = {"dense_bytes": 520_000, "sparse_bytes": 130_000, "decode_ms": 1.5}
    told = text(render_compression.table(content))
    assert told[-5:-2] == [
        "masked: non-zeros fall 5.0x; bytes (packed with zstd: 3.9x) and latency do not; "
        "`compressor=channels` shrinks them",
        "`sparse=true` would store 130 kB instead of 520 kB (4.0x) for 1.50 ms of decoding at each load",
        "budget: bytes fell 1 times, `--target` is bytes=4x",
    ]
    content["after"]["bytes"], content["ratio"]["bytes"] = 131_000, 4.0
    assert text(render_compression.table(content))[-5:-3] == [
        "masked: non-zeros fall 5.0x, bytes 4.0x by sparse storage; latency does not; `compressor=channels` shrinks it",
        "stored sparsely: 130 kB instead of 520 kB (4.0x) for 1.50 ms of decoding at each load",
    ]


def test_a_loss_that_fell_is_better_and_an_empty_record_is_an_empty_table() -> None:
    content = copy.deepcopy(CONTENT)
    for name in ("before", "after"):
        content[name]["objective"] = "rmse"
    assert rows(content)["val/rmse"][2] == "-0.0100 [-0.0150, -0.0050], better"
    assert rows({}) == {}


def entry(name: str, median: float, engines: tuple[str, ...], ratio: float) -> dict[str, Any]:
    figures = {"median_ms": median, "p95_ms": 2 * median, "p99_ms": 3 * median, "cpu_ms": median, "calls": 20}
    return {
        "run": f"runs/{name}", "name": name, "parameters": 10, "non_zeros": 10, "macs": None, "bytes": 4000,
        "zstd_bytes": 3000, "peak_memory_mb": None, "load_ms": 1.0, "notes": ["made of air"] if ratio > 1 else [],
        "latency": {"1": {engine: {"1": figures} for engine in engines}},
        "ratio": {"bytes": ratio, "latency": {"1": {engine: {"torch": {"1": ratio}} for engine in engines}}},
    }  # fmt: skip


def test_a_benchmark_compares_with_the_first_run() -> None:
    runs = [entry("train/1", 0.5, ("torch",), 1.0), entry("quantize/2", 0.25, ("onnxruntime",), 2.0)]
    content = {"threads": [1], "batches": [1], "calls": 200, "waited": 0.5, "runs": runs}
    lines = [line.split() for line in text(render_compression.benchmark(content))]
    assert lines[2] == ["quantize/2", "10", "10", "-", "4", "kB", "(2.0x)", "3", "kB", "-", "1.00", "ms"]
    assert lines[5] == "1 1 train/1 torch 0.500 ms 1.00 ms 1.50 ms 0.500 ms 2,000 1.00x".split()
    assert lines[6] == "1 1 quantize/2 ONNX Runtime 0.250 ms 0.500 ms 0.750 ms 0.250 ms 4,000 2.0x".split()
    assert text(render_compression.benchmark(content))[-4:] == [
        "(x): times less than `train/1`; vs: times faster than it in that engine",
        "note: 20 calls, not 200, of what takes long; `--seconds` gives it more time",
        "note: the machine was busy: calls on one thread waited 50 % of the time for a core, so compare by CPU time",
        "note: quantize/2: made of air",
    ]
