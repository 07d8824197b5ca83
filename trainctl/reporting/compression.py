"""The part of a report that says what a compression gave: before and after, or the points of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.reporting import plots
from trainctl.reporting import templates as html
from trainctl.reporting.plots import short
from trainctl.run import files
from trainctl.run.run import Run

_COUNTS = {
    "parameters": "parameters", "non_zeros": "non-zeros", "macs": "multiply-adds", "bytes": "bytes",
    "zstd_bytes": "bytes, packed with zstd", "peak_memory_mb": "peak memory, MB", "load_ms": "load, ms",
}  # fmt: skip


def sections(run: Run) -> list[str]:
    """The sections of compression.json and compress.json, where a run has them."""
    found = []
    for name, body in (("compression.json", _before_and_after), ("compress.json", _points)):
        if (run.path / name).exists():
            content = files.read_json(run.path / name)
            if isinstance(content, dict):
                found += body(content)
    return found


def _before_and_after(content: Mapping[str, Any]) -> list[str]:
    before, after, ratio = (content.get(name) or {} for name in ("before", "after", "ratio"))
    rows = [
        [label, _number(before.get(name)), _number(after.get(name)), _times(ratio.get(name))]
        for name, label in _COUNTS.items()
        if before.get(name) is not None or after.get(name) is not None
    ]
    for engine, times in (before.get("latency") or {}).items():
        for batch, value in times.items():
            own = ((after.get("latency") or {}).get(engine) or {}).get(batch)
            speed = ((ratio.get("latency") or {}).get(engine) or {}).get(batch)
            rows.append([f"{engine}, batch {batch}, ms", _number(value), _number(own), _times(speed)])
    for split, score in (before.get("scores") or {}).items():
        change = ((after.get("difference") or {}).get(split) or {}).get("value")
        own = ((after.get("scores") or {}).get(split) or {}).get("value")
        rows.append([f"{split}/{before.get('objective')}", _number(score.get("value")), _number(own), _signed(change)])
    for split, share in (after.get("agreement") or {}).items():
        rows.append([f"{split}, equal predictions", "", f"{100 * share:.2f} %", ""])
    notes = [str(note) for note in content.get("notes") or []]
    if content.get("masked"):
        notes.insert(0, "The weights are masked: zeros are stored and computed like any other number.")
    paragraphs = "".join(f'<p class="note">{plots.safe(note)}</p>' for note in notes)
    title = f"Compression by {content.get('method')}, beside its parent"
    return [html.section(title, html.table(["", "before", "after", "times"], rows), paragraphs)]


def _points(content: Mapping[str, Any]) -> list[str]:
    points = content.get("points") or []
    sizes = list(points[0]["latency_ms"]) if points else []
    rows = [
        [
            ("front" if point["front"] else "") + (", best" if point["number"] == content.get("best") else ""),
            point["what"],
            _signed(point["figures"]["drop"]),
            _number(point["bytes"]),
            *(_number(point["latency_ms"][size]) for size in sizes),
            point["run"],
        ]
        for point in points
    ]
    heads = ["", "point", "drop", "bytes", *(f"batch {size}, ms" for size in sizes), "run"]
    changes = ("int8", "int4", "half")
    scan = [
        [row["layer"], f"{100 * row['share']:.1f} %", *(_signed(row["drop"].get(name)) for name in changes)]
        for row in content.get("sensitivity") or []
    ]
    scanned = html.table(["layer", "of all weights", "8 bits", "4 bits", "half of its outputs gone"], scan)
    return [
        html.section("Points", html.table(heads, rows)),
        html.section("Sensitivity: the drop when one layer alone is changed", scanned),
    ]


def _number(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return short(value) if isinstance(value, float) else "-"


def _signed(value: object) -> str:
    return f"{value:+.4f}" if isinstance(value, int | float) else "-"


def _times(ratio: object) -> str:
    return f"{ratio:.2f}" if isinstance(ratio, int | float) else ""
