"""Printing that cannot harm a run: tables as rich draws them on a terminal, aligned plain lines otherwise.

Text that came from users is never read as markup, control characters are escaped, and a stdout that is closed or
knows ASCII only ends nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from trainctl.run.files import shown_text


@dataclass
class Table:
    """A table to print: column titles, rows of text, the columns (by number) that hold figures, and the one that is
    cut when a terminal is narrow (without it, columns wrap)."""

    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    title: str = ""
    figures: tuple[int, ...] = ()
    gives_way: int | None = None

    def lines(self) -> list[str]:
        """Aligned plain text, two spaces between columns."""
        cells = [list(self.columns), *self.rows] if any(self.columns) else self.rows
        cells = [[shown_text(cell) for cell in row] for row in cells]
        widths = [max((len(row[column]) for row in cells), default=0) for column in range(len(self.columns))]
        text = [
            "  ".join(
                cell.rjust(width) if column in self.figures else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return [shown_text(self.title), *text] if self.title else text


Block = str | Table


def emit(*blocks: Block, stream: TextIO | None = None) -> None:
    """Print blocks to `stream` (default stdout): rich tables on a terminal, plain lines otherwise."""
    stream = stream or sys.stdout
    fancy = not stream.closed and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    for block in blocks:
        if isinstance(block, Table) and fancy:
            write(_rich(block, stream), stream)
        else:
            write("\n".join(block.lines() if isinstance(block, Table) else map(shown_text, block.split("\n"))), stream)


def emit_json(content: Any) -> None:
    """Print one JSON object on stdout."""
    write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), sys.stdout)


def emit_error(sentence: str) -> None:
    """Print `trainctl: error: <sentence>` as one line on stderr."""
    write(f"trainctl: error: {shown_text(sentence)}", sys.stderr)


def write(text: str, stream: TextIO) -> None:
    """Print text and flush; what the stream cannot encode is escaped, and a reader that left is not an error."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (BrokenPipeError, ValueError):
        _silence(stream)
    except OSError:
        # A full disk behind `> file`, a terminal that is gone: printing must not end a run.
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Point the stream's descriptor nowhere, or Python complains once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _rich(table: Table, stream: TextIO) -> str:
    from io import StringIO

    from rich.box import ASCII, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    box = SIMPLE_HEAD if "utf" in (stream.encoding or "").lower() else ASCII
    drawn = RichTable(
        box=box,
        title=Text(shown_text(table.title)) if table.title else None,
        show_header=any(table.columns),
        show_edge=table.gives_way is None,
        pad_edge=table.gives_way is None,
    )
    cut = [table.gives_way == number for number in range(len(table.columns))]
    for number, column in enumerate(table.columns):
        drawn.add_column(
            Text(shown_text(column)),
            justify="right" if number in table.figures else "left",
            overflow="ellipsis" if cut[number] else "fold",
            no_wrap=table.gives_way is not None and not cut[number],
        )
    for row in table.rows:
        drawn.add_row(*(Text(shown_text(cell), no_wrap=cut[number] or None) for number, cell in enumerate(row)))
    text = StringIO()
    Console(file=text, force_terminal=True, width=Console(file=stream).width).print(drawn, end="")
    return text.getvalue().rstrip("\n")
