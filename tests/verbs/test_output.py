from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from trainctl.errors import ResourceError, UsageError
from trainctl.verbs import output

FRAME = pl.DataFrame({"row": [0, 1], "prediction": ["no", "yes"]})


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_the_file_appears_whole_at_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    with output.PredictionFile(path) as written:
        written.write(FRAME)
        assert not path.exists()
        written.write(FRAME)
    assert written.rows == 4 and [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyError), output.PredictionFile(path) as written:
        written.write(FRAME)
        raise KeyError
    assert path.read_text(encoding="utf-8") == "old" and [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "o.csv"
    with pytest.raises(Exception, match="its directory is gone"), output.PredictionFile(path):
        pass


@pytest.mark.parametrize("name", ["o.csv", "o.parquet", "o.jsonl"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(ResourceError) as caught, output.PredictionFile(tmp_path / name) as written:
            written.write(pl.DataFrame({"row": range(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == f"the limit on file sizes (ulimit -f) is reached writing to `{tmp_path / name}`"
    assert list(tmp_path.iterdir()) == []


def test_text_that_a_spreadsheet_would_run() -> None:
    frame = pl.DataFrame({"=cmd": ["=1+1", "+1", "-1e3", "-x", "@a", "\tx", "", None, "ok"], "n": range(9)})
    safe = output.harmless(frame)
    assert safe.columns == ["'=cmd", "n"]
    assert safe["'=cmd"].to_list() == ["'=1+1", "+1", "-1e3", "'-x", "'@a", "'\tx", "", None, "ok"]


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.touch()
    with pytest.raises(UsageError, match="at most 255 fit"):
        output.check(source, tmp_path / ("x" * 252 + ".csv"))
    output.check(source, None)
