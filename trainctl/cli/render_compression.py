"""What the command line says about compressed runs (compression.json) and about a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.cli.console import Block, Table


def table(content: Mapping[str, Any]) -> list[Block]:
    """Before, after and ratio of each figure of compression.json, a line each, and what has to be said with them."""
    return [Table(["", "before", "after", ""], figures=(1, 2))]


def benchmark(content: Mapping[str, Any]) -> list[Block]:
    """The tables of `trainctl benchmark`: latency by threads, batch and engine, and what each run takes."""
    return [Table(["run"])]
