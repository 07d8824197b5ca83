"""Table files that are as they should be, and every way in which they are not."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import polars as pl
import pytest

from trainctl.data.reading import Source
from trainctl.errors import DataError, UsageError

ROWS = [("a", 1, 0.5), ("b", 2, 1.5), ("c", 3, None)]
TEXT = "name,n,x\na,1,0.5\nb,2,1.5\nc,3,\n"


def write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sentence(path: Path, **options: str) -> str:
    """What a user is told when `path` is read."""
    with pytest.raises(DataError) as caught:
        Source(path, **options).read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_csv_is_read_with_types(tmp_path: Path) -> None:
    frame = Source(write(tmp_path, TEXT)).read()
    assert frame.rows() == ROWS
    assert frame.columns == ["name", "n", "x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("x.tsv", TEXT.replace(",", "\t").encode()),
        ("x.tsv.gz", gzip.compress(TEXT.replace(",", "\t").encode(), mtime=0)),
        ("x.csv", TEXT.replace(",", ";").encode()),
        ("x.txt", TEXT.replace(",", "|").encode()),
        ("x.csv", TEXT.replace("\n", "\r\n").encode()),
        ("x.csv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("x.csv", TEXT.replace("\nb", "\n\nb").encode() + b"\n\n"),
        ("x.csv", TEXT.replace(",\n", ", ?\n").encode()),
        ("x.csv", TEXT.replace("name,n,x", " name , n,x ").encode()),
    ],
)
def test_gzip_delimiters_line_ends_marks_and_blank_lines_make_no_difference(
    tmp_path: Path, name: str, content: bytes
) -> None:
    source = Source(write(tmp_path, content, name))
    assert source.read().rows() == ROWS
    batches = pl.concat(list(source.batches(2)))
    assert batches.rows() == [(a, str(n), None if x is None else str(x)) for a, n, x in ROWS]


def test_parquet_is_read_whole_and_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame(ROWS, schema=["name", "n", "x"], orient="row").write_parquet(path)
    source = Source(path)
    assert source.header == ["name", "n", "x"]
    assert source.read().rows() == ROWS
    assert source.read(columns=["n"]).columns == ["n"]
    assert [row for batch in source.batches(2) for row in batch.rows()] == ROWS
    assert source.where(4) == "row 5"


def test_quoted_text_may_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,"b c"\n1,"x,\ny"\n2,"he said ""hi"""\n')
    source = Source(path)
    assert source.read().rows() == [(1, "x,\ny"), (2, 'he said "hi"')]
    assert source.header == ["a", "b c"]
    assert [source.where(row) for row in (0, 1)] == ["line 2", "line 4"]


def test_quoted_line_breaks_and_missing_values_at_the_end_of_a_row(tmp_path: Path) -> None:
    source = Source(write(tmp_path, 'a,b,c\n1,"x\n\ny",\n\n2,\x01,5\n'))
    rows = [(1, "x\n\ny", None), (2, "\x01", 5)]
    assert source.read().rows() == rows
    assert [batch.rows() for batch in source.batches(10)] == [[("1", "x\n\ny", None), ("2", "\x01", "5")]]
    assert source.where(1) == "line 6"


MISSING = [("1", "x"), (None, None), (None, None), ("2", None), (None, None)]
HOLES = 'a,b\n\n1,x\n,\n\n?,NA\n2,\n\n"",""\n\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", HOLES.encode()),
        ("x.csv", HOLES.replace("\n", "\r\n").encode()),
        ("x.csv", ("\ufeff\n" + HOLES).encode()),
        ("x.csv", HOLES.rstrip("\n").encode()),
        ("x.csv", HOLES.replace("\n\n", "\n \t\n").encode()),
        ("x.tsv", HOLES.replace(",", "\t").encode()),
        ("x.tsv", HOLES.replace(",", "\t").replace("\n", "\r\n").encode()),
        ("x.csv.gz", gzip.compress(HOLES.encode(), mtime=0)),
    ],
)
def test_a_row_of_missing_cells_is_a_row_and_a_line_without_a_field_is_none(
    tmp_path: Path, name: str, content: bytes
) -> None:
    source = Source(write(tmp_path, content, name))
    assert source.read(text=["a"]).rows() == MISSING
    assert [row for batch in source.batches(2) for row in batch.rows()] == MISSING
    lines = gzip.decompress(content) if name.endswith("gz") else content
    row = next(i for i, line in enumerate(lines.splitlines(), start=1) if b"?" in line)
    assert source.where(2) == f"line {row}"


def test_a_row_of_missing_cells_is_a_row_in_another_encoding_too(tmp_path: Path) -> None:
    source = Source(write(tmp_path, HOLES.encode("utf-16")), encoding="utf-16")
    assert source.read(text=["a"]).rows() == MISSING
    assert [row for batch in source.batches(10) for row in batch.rows()] == MISSING


def test_blank_lines_inside_a_quoted_text_or_header_are_no_lines_of_the_table(tmp_path: Path) -> None:
    source = Source(write(tmp_path, '"a\n\nb",c\n,\n\n"x\n\n\ny",\n?,?\n'))
    expected = [(None, None), ("x\n\n\ny", None), (None, None)]
    assert source.read(text=["c"]).rows() == expected
    assert [row for batch in source.batches(10) for row in batch.rows()] == expected


def test_in_a_single_column_a_line_of_nothing_is_blank_and_a_missing_value_is_a_row(tmp_path: Path) -> None:
    source = Source(write(tmp_path, 'a\nx\n\nNA\n \n""\ny\n\n'))
    expected = [("x",), (None,), (None,), ("y",)]
    assert source.read().rows() == expected
    assert [row for batch in source.batches(10) for row in batch.rows()] == expected


def test_other_encodings_are_read_when_named(tmp_path: Path) -> None:
    latin = write(tmp_path, "stadt,n\nKöln,1\nNîmes,2\n".encode("latin-1"))
    assert Source(latin, encoding="latin-1").read().rows() == [("Köln", 1), ("Nîmes", 2)]
    assert len(list(Source(latin, encoding="latin-1").batches(1))) >= 1
    wide = write(tmp_path, "stadt,n\nKöln,1\n".encode("utf-16"), "wide.csv")
    assert Source(wide, encoding="utf-16").read().rows() == [("Köln", 1)]


def test_a_late_value_of_another_type_makes_the_column_text_or_decimal(tmp_path: Path) -> None:
    frame = Source(write(tmp_path, "a,b\n" + "1,2\n" * 20_000 + "x,2.5\n")).read()
    assert frame.dtypes == [pl.String, pl.Float64]


def test_columns_asked_for_as_text_keep_their_zeros(tmp_path: Path) -> None:
    assert Source(write(tmp_path, "zip,n\n007,1\n012,2\n")).read(text=["zip"]).rows() == [("007", 1), ("012", 2)]


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert Source(write(tmp_path, ",b\n0,2\n")).header == ["column_1", "b"]


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert sentence(path) == f"cannot read `{path}`: no such file; check `data.path`"


def test_a_directory(tmp_path: Path) -> None:
    assert sentence(tmp_path) == f"cannot read `{tmp_path}`: it is a directory; name a CSV or Parquet file"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, TEXT)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything, so the refusal is made by hand

        def refuse(*args: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    assert sentence(path) == f"cannot read `{path}`: permission denied"


def test_only_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n")
    assert sentence(path) == f"`{path}` has no data rows; it must hold at least one row below its header"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n", gzip.compress(b"", mtime=0)])
def test_empty_or_a_mark_only(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    assert sentence(path) == f"`{path}` is empty; it must hold a header and at least one row"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path, TEXT.encode(codec))
    message = sentence(path)
    if codec == "utf-16-be":  # without a mark the NULs come first
        assert "UTF-16" in message or "NUL" in message
    else:
        assert message == f"`{path}` is not UTF-8 (it looks like UTF-16); pass `data.encoding=utf-16`"


def test_nul_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,2\n3,\x00\n")
    assert sentence(path) == f"`{path}` holds NUL bytes (line 3); it is binary or damaged, not a text table"


def test_latin_1_without_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,x\n2,é\n".encode("latin-1"))
    assert sentence(path) == f"`{path}` is not UTF-8 (line 3); pass `data.encoding=`, such as latin-1"


def test_the_wrong_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,é\n")
    assert sentence(path, encoding="ascii") == f"`{path}` is not ascii; pass the right `data.encoding=`"


def test_a_spreadsheet(tmp_path: Path) -> None:
    path = write(tmp_path, b"PK\x03\x04....", "x.xlsx")
    assert sentence(path) == f"`{path}` is a zip or spreadsheet file; save it as CSV or Parquet"


def test_a_damaged_gzip(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(TEXT.encode() * 1000, mtime=0)[:-30], "x.csv.gz")
    assert sentence(path) == f"cannot read `{path}`: the gzip file is damaged or cut off; copy it again"


def test_no_parquet_in_a_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"PAR1 and then nothing", "x.parquet")
    assert sentence(path).startswith(f"cannot read `{path}`: ")


def test_duplicated_column_names(tmp_path: Path) -> None:
    path = write(tmp_path, "id,b,age,c,d,e, age\n1,2,3,4,5,6,7\n")
    assert sentence(path) == f"column `age` appears 2 times in `{path}` (columns 3, 7); give every column its own name"


@pytest.mark.parametrize("row", ["1,2,3", "1"])
def test_a_ragged_row(tmp_path: Path, row: str) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 410 + row + "\n1,2\n")
    fields = row.count(",") + 1
    expected = (
        f"`{path}`: line 412 has {fields} field{'s' * (fields != 1)}, the header has 2; "
        "correct the line, or quote the text that holds the delimiter"
    )
    assert sentence(path) == expected
    with pytest.raises(DataError) as caught:
        list(Source(path).batches(10))
    assert str(caught.value) == expected


def test_a_quote_that_never_closes(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n')
    assert sentence(path) == f"`{path}`: the quote that opens in line 3 is never closed; correct that line"


def test_options_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Source(tmp_path, delimiter="::")
    assert str(caught.value) == "`data.delimiter` is '::'; it must be one character such as ',' or ';'"
    with pytest.raises(UsageError) as caught:
        Source(tmp_path, encoding="latin1000")
    assert str(caught.value) == "`data.encoding` is 'latin1000'; try utf-8, latin-1 or utf-16"


def test_lines_that_end_with_a_carriage_return_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\r1,2\r")
    assert sentence(path) == (
        f"the lines of `{path}` end as on an old Macintosh (CR alone); save it with line ends LF or CRLF"
    )


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = [f"measurement_{i}" for i in range(10_000)]
    path = write(tmp_path, ",".join(names) + "\n" + ",".join(["1"] * 10_000) + "\n")
    assert Source(path).header == names
    assert Source(path).read().shape == (1, 10_000)


def test_a_tsv_without_tabs_is_read_by_its_own_delimiter(tmp_path: Path) -> None:
    assert Source(write(tmp_path, "a;b\n1;2\n", "x.tsv")).read().rows() == [(1, 2)]
    assert Source(write(tmp_path, "a\n1\n2\n", "x.tsv")).read().rows() == [(1,), (2,)]
