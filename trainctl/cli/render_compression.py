"""What the command line says about compressed runs (compression.json) and about a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainctl.cli.console import Block, Table
from trainctl.durations import duration
from trainctl.metrics import names
from trainctl.run.files import megabytes

NOISE, LOAD_NOISE = 0.05, 0.25  # ratios this near to 1 are not told as faster or slower
BUSY = 0.1  # share of waiting from which it is said
ENGINES = {"torch": "torch", "onnxruntime": "ONNX Runtime"}
Figures = Mapping[str, Any]


def table(content: Figures) -> list[Block]:
    """Before, after and ratio of each figure of compression.json, a line each, and what has to be said with them."""
    before, after, ratio = (content.get(name) or {} for name in ("before", "after", "ratio"))
    shown = Table(["", "before", "after", ""], figures=(1, 2))
    for name, label, text in _COUNTS:
        if before.get(name) is not None or after.get(name) is not None:
            said = less(ratio.get(name), "smaller" if "bytes" in name or name == "peak_memory_mb" else "fewer")
            said = faster(ratio.get(name), LOAD_NOISE) if name == "load_ms" else said
            shown.rows.append([label, text(before.get(name)), text(after.get(name)), said])
    shown.rows += _latency_rows(before.get("latency") or {}, after.get("latency") or {}, ratio.get("latency") or {})
    shown.rows += _score_rows(before, after)
    blocks: list[Block] = [shown]
    if content.get("masked"):
        blocks.append(masked(ratio))
    if found := content.get("sparse"):
        blocks.append(sparse(found, after.get("bytes")))
    if gate := content.get("gate"):
        missed = gate.get("missed") or []
        blocks.append(f"budget: {'; '.join(missed) if missed else 'met'}")
    blocks += [f"note: {sentence}" for sentence in content.get("notes") or []]
    method, took = content.get("method"), content.get("took_s")
    if method:
        blocks.append(f"method: {method}" + (f", took {duration(took)}" if isinstance(took, int | float) else ""))
    return blocks


def masked(ratio: Figures) -> str:
    """What zeros alone do and do not."""
    fall, packed, stored = (ratio.get(name) or 1.0 for name in ("non_zeros", "zstd_bytes", "bytes"))
    told = f"masked: non-zeros fall {_times(fall)}"
    if stored >= 1 + NOISE:
        return f"{told}, bytes {_times(stored)} by sparse storage; latency does not; `compressor=channels` shrinks it"
    also = f" (packed with zstd: {_times(packed)})" if packed >= 1 + NOISE else ""
    return f"{told}; bytes{also} and latency do not; `compressor=channels` shrinks them"


def sparse(found: Figures, stored: float | None) -> str:
    """What sparse storage gives and costs; an offer where `stored` bytes are those of the dense file."""
    dense, packed = found["dense_bytes"], found["sparse_bytes"]
    fall = f"{megabytes(packed)} instead of {megabytes(dense)} ({_times(dense / packed)})"
    costs = f"{milliseconds(found['decode_ms'])} of decoding at each load"
    used = stored is not None and abs(stored - packed) < abs(stored - dense)
    return f"stored sparsely: {fall} for {costs}" if used else f"`sparse=true` would store {fall} for {costs}"


def benchmark(content: Figures) -> list[Block]:
    """The tables of `trainctl benchmark`: what each run is and takes, then its calls by threads, batch and engine."""
    runs = content["runs"]
    short = [one["name"] for one in runs]
    labels = short if len(set(short)) == len(short) else [one["run"] for one in runs]
    sizes = Table(["run", *(label for _, label, _ in _COUNTS)], figures=tuple(range(1, len(_COUNTS) + 1)))
    for number, one in enumerate(runs):
        ratio = one["ratio"] if number else {}
        cells = [_with_ratio(text(one.get(name)), ratio.get(name)) for name, _, text in _COUNTS]
        sizes.rows.append([labels[number], *cells])
    firsts = list(next(iter(runs[0]["latency"].values()), {}))
    columns = ["threads", "batch", "run", "engine", "median", "p95", "p99", "CPU", "rows/s"]
    calls = Table([*columns, *(f"vs {ENGINES.get(e, e)}" for e in firsts)], figures=(0, 1, *range(4, 9 + len(firsts))))
    for threads in map(str, content["threads"]):
        for batch in content["batches"]:
            for label, one in zip(labels, runs, strict=True):
                calls.rows += _call_rows(one, label, threads, batch, firsts)
    blocks: list[Block] = [sizes, "", calls]
    if len(runs) > 1:
        blocks.append(f"(x): times less than `{labels[0]}`; vs: times faster than it in that engine")
    fewest = min((times["calls"] for one in runs for times in _all_times(one)), default=content["calls"])
    if fewest < content["calls"]:
        blocks.append(
            f"note: {fewest} calls, not {content['calls']}, of what takes long; `--seconds` gives it more time"
        )
    if content["waited"] > BUSY:
        blocks.append(
            f"note: the machine was busy: calls on one thread waited {100 * content['waited']:.0f} % of the time for a "
            "core, so compare by CPU time"
        )
    blocks += [
        f"note: {label}: {sentence}" for label, one in zip(labels, runs, strict=True) for sentence in one["notes"]
    ]
    return blocks


def _call_rows(one: Figures, label: str, threads: str, batch: int, firsts: list[str]) -> list[list[str]]:
    rows = []
    for engine, times in one["latency"][threads].items():
        found = _at(times, batch)
        speeds = one["ratio"]["latency"][threads][engine]
        ratios = [_times(_at(speeds.get(first) or {}, batch)) for first in firsts]
        figures = [milliseconds(found[f"{name}_ms"]) for name in ("median", "p95", "p99", "cpu")]
        rate = f"{batch / found['median_ms'] * 1e3:,.0f}"
        shown = [threads, str(batch), label, ENGINES.get(engine, engine)]
        rows.append([*shown, *figures, rate, *ratios])
    return rows


def _all_times(one: Figures) -> Iterator[Figures]:
    """The figures of each thread count, engine and batch size."""
    for engines in one["latency"].values():
        for times in engines.values():
            yield from times.values()


def _at(by_batch: Figures, batch: int) -> Any:
    """The entry of a batch size, which is text in a file."""
    return by_batch.get(batch, by_batch.get(str(batch)))  # type: ignore[call-overload]


def _latency_rows(before: Figures, after: Figures, ratio: Figures) -> list[list[str]]:
    """A line for each batch size and engine of `before`, beside the same engine or the only one of `after`."""
    rows = []
    for engine, times in before.items():
        other = engine if engine in after else next(iter(after), engine)
        name = ENGINES.get(engine, engine)
        label = name if other == engine else f"{name}, then {ENGINES.get(other, other)}"
        for batch, ms in times.items():
            own = (after.get(other) or {}).get(batch)
            told = faster((ratio.get(engine) or {}).get(batch))
            rows.append([f"batch {batch} ({label})", milliseconds(ms), milliseconds(own), told])
    return rows


def _score_rows(before: Figures, after: Figures) -> list[list[str]]:
    """The objective on each split with its interval, the paired difference, and the share of equal predictions."""
    rows, name = [], str(after.get("objective") or before.get("objective") or "objective")
    for split in before.get("scores") or {}:
        one, other = before["scores"][split], (after.get("scores") or {}).get(split)
        rows.append([f"{split}/{name}", _score(one), _score(other), _difference(name, after, split)])
    for split, share in (after.get("agreement") or {}).items():
        rows.append([f"{split} agreement", "", f"{100 * share:.2f} %", "of rows predicted as before"])
    return rows


def _score(score: Figures | None) -> str:
    if not score or score.get("value") is None:
        return "-"
    interval = score.get("interval")
    return f"{score['value']:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _difference(name: str, after: Figures, split: str) -> str:
    """`-0.0010 [-0.0030, 0.0010], worse`: a word only where the interval leaves no doubt."""
    found = (after.get("difference") or {}).get(split) or {}
    value, interval = found.get("value"), found.get("interval")
    if value is None:
        return ""
    text = f"{value:+.4f}" + (f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "")
    if not interval or interval[0] <= 0 <= interval[1]:
        return text
    return f"{text}, {'better' if (value > 0) == (names.mode(name) == 'max') else 'worse'}"


def less(ratio: float | None, word: str) -> str:
    """`3.9x smaller`, `the same`, or how much more it is."""
    if ratio is None:
        return ""
    if abs(ratio - 1) < 0.005:
        return "the same"
    opposite = {"smaller": "larger", "fewer": "more"}[word]
    return f"{_times(ratio)} {word}" if ratio > 1 else f"{_times(1 / ratio)} {opposite}"


def faster(ratio: float | None, noise: float = NOISE) -> str:
    """`2.1x faster`, `1.3x slower`, or `as fast` within the noise."""
    if ratio is None:
        return ""
    if 1 / (1 + noise) <= ratio <= 1 + noise:
        return "as fast"
    return f"{_times(ratio)} faster" if ratio > 1 else f"{_times(1 / ratio)} slower"


def milliseconds(value: float | None) -> str:
    """`0.042 ms`, `12.3 ms`."""
    if value is None:
        return "-"
    return f"{value:.3f} ms" if value < 1 else f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.0f}x" if ratio >= 99.95 else f"{ratio:.2f}x" if ratio < 1.995 else f"{ratio:.1f}x"


def _with_ratio(text: str, ratio: float | None) -> str:
    """What a run has, and how many times less than the first that is."""
    return text if ratio is None or abs(ratio - 1) < 0.005 else f"{text} ({_times(ratio)})"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _size(value: float | None) -> str:
    return "-" if value is None else megabytes(value)


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} MB"


_COUNTS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("parameters", "parameters", _count),
    ("non_zeros", "non-zeros", _count),
    ("macs", "multiply-adds", _count),
    ("bytes", "bytes", _size),
    ("zstd_bytes", "bytes (zstd)", _size),
    ("peak_memory_mb", "peak memory", _megabytes),
    ("load_ms", "load", milliseconds),
)
