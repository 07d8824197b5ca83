"""Text cut into pieces of whole records."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest

from trainctl.data import blocks
from trainctl.data.reading import Source
from trainctl.errors import DataError

TEXT = b'a,b\r\n1,"x\n""y"""\n2,z\n3,"\n\n"\n4,w'


@pytest.mark.parametrize("size", range(1, 40))
def test_pieces_end_where_records_end(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(blocks, "LONGEST", 100)
    pieces = list(blocks.records(blocks.utf8(io.BytesIO(TEXT), "utf-8")))
    assert b"".join(pieces) == TEXT
    assert all(piece.count(b'"') % 2 == 0 and piece.endswith(b"\n") for piece in pieces[:-1])


def test_a_quote_that_is_never_closed_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4)
    pieces = list(blocks.records(blocks.utf8(io.BytesIO(b'a\n"' + b"1\n" * 100), "utf-8")))
    assert max(map(len, pieces)) < 4 * (blocks.LONGEST + 2)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8"])
@pytest.mark.parametrize("size", [7, 8, 1000])
def test_a_file_in_pieces_is_the_file_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, size: int
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes('\r\nstadt,"n\nm",x\nKöln,1,\n\n"Bad\n""Ems""",2,3\nNîmes,3,4'.encode(encoding))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    source = Source(path, encoding=encoding)
    assert source.header == ["stadt", "n\nm", "x"]
    expected = [("Köln", "1", None), ('Bad\n"Ems"', "2", "3"), ("Nîmes", "3", "4")]
    assert pl.concat(list(source.batches(2))).rows() == expected
    assert source.read(text=source.header).rows() == expected


def test_a_short_row_and_a_wrong_encoding_are_found_in_any_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 16)
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n" + "1,2,3\n" * 50 + "1,2\n")
    with pytest.raises(DataError) as caught:
        list(Source(path).batches(10))
    assert str(caught.value) == (
        f"`{path}`: line 52 has 2 fields, the header has 3; "
        "correct the line, or quote the text that holds the delimiter"
    )
    path.write_bytes(b"a,b\n" + b"1,2\n" * 50 + "ü,2\n".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        list(Source(path).batches(10))
    assert str(caught.value) == f"`{path}` is not UTF-8 (line 52); pass `data.encoding=`, such as latin-1"
