"""The text of a table in pieces of whole records: a file larger than memory is read a few megabytes at a time.

A record ends at a line break outside quotes, as in polars: one that an even number of quotes stands before.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO

BLOCK_BYTES = 1 << 22
BLANK = codecs.BOM_UTF8 + b"\r\n"  # bytes that may stand before the header
LONGEST = 16  # blocks in a record; what is longer is a quote that is never closed, and handed out as it is


def utf8(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """The content of `stream` as UTF-8, a block at a time; UnicodeError when it is not in `encoding`."""
    parts = iter(lambda: stream.read(BLOCK_BYTES), b"")
    if codecs.lookup(encoding).name.startswith("utf-8"):
        yield from parts
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    for part in parts:
        yield decoder.decode(part).encode()
    yield decoder.decode(b"", final=True).encode()


def records(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, cut where records end; every piece but the last holds a record that is not blank."""
    held, blocks = b"", 0
    for part in parts:
        held, blocks = held + part, blocks + 1
        end = last_end(held)
        blank = not held[:end].strip(BLANK)
        if not blank or blocks > LONGEST:
            yield held[: end or len(held)]
            held, blocks = held[end or len(held) :], 0
    if held:
        yield held


def last_end(text: bytes) -> int:
    """The position after the last record that is whole; 0 when none is."""
    before, stop = text.count(b'"'), len(text)
    while (at := text.rfind(b"\n", 0, stop)) >= 0:
        before -= text.count(b'"', at, stop)
        if before % 2 == 0:
            return at + 1
        stop = at
    return 0


def first_end(text: bytes) -> int:
    """The position after the first record, blank lines before it included; the end when none is whole."""
    start = len(text) - len(text.lstrip(BLANK))
    at = start - 1
    while (at := text.find(b"\n", at + 1)) >= 0:
        if text.count(b'"', start, at) % 2 == 0:
            return at + 1
    return len(text)
