"""What the command line says about the points of a `compress` run (compress.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.cli.console import Block, Table
from trainctl.cli.render_compression import milliseconds
from trainctl.run.files import megabytes


def front(content: Mapping[str, Any]) -> list[Block]:
    """A line per point: what was done, what it costs in the objective, what it saves; `*`: on the Pareto front."""
    sizes = list(content["points"][0]["latency_ms"]) if content["points"] else []
    batches = [f"batch {size}" for size in sizes]
    table = Table(["", "point", "drop", "bytes", *batches, "run"], figures=tuple(range(2, 4 + len(sizes))))
    for point in content["points"]:
        number = point["number"]
        mark = ("*" if point["front"] else " ") + (" best" if number == content["best"] else "")
        ratio = point["figures"].get("bytes")
        packed = megabytes(point["bytes"]) + (f" ({ratio:.1f}x)" if ratio and number else "")
        times = [_time(point, size, number) for size in sizes]
        table.rows.append([mark, point["what"], f"{point['figures']['drop']:+.4f}", packed, *times, point["run"]])
    blocks: list[Block] = [table]
    name = (content.get("objective") or {}).get("name")
    blocks.append(f"drop: of {name or 'the objective'} beside the run; *: no other point is better in every column")
    blocks += [f"warning: {one['what']} failed: {one['error']}" for one in content.get("failed") or []]
    return blocks


def _time(point: Mapping[str, Any], size: str, number: int) -> str:
    text = milliseconds(point["latency_ms"][size])
    return f"{text} ({point['faster'][size]:.1f}x)" if number else text
