"""The journal of a study: whole lines for every reader, one writer at a time, torn lines cut."""

from __future__ import annotations

import fcntl
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainctl.errors import RunError
from trainctl.tuning import journal as journals
from trainctl.tuning.journal import Journal


def records(path: Path) -> list[int]:
    journal = Journal(path)
    found = [record["n"] for record in journal.read_logs(0)]
    journal.close()
    return found


def one(number: int) -> dict[str, int]:
    return {"op_code": 2, "n": number}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def test_records_are_read_in_order_and_once(path: Path) -> None:
    writer, reader = Journal(path), Journal(path)
    writer.append_logs([one(0), one(1)])
    assert [record["n"] for record in reader.read_logs(0)] == [0, 1]
    assert list(reader.read_logs(2)) == []
    writer.append_logs([one(2)])
    assert [record["n"] for record in reader.read_logs(2)] == [2]
    assert [record["n"] for record in reader.read_logs(1)] == [1, 2]


def test_a_batch_is_one_append_that_its_writer_reads_at_once(path: Path) -> None:
    writer, reader = Journal(path), Journal(path)
    with writer.batch():
        writer.append_logs([one(0)])
        assert [record["n"] for record in writer.read_logs(0)] == [0]
        writer.append_logs([one(1)])
        with writer.batch():
            writer.append_logs([one(2)])
        assert list(reader.read_logs(0)) == []
        assert [record["n"] for record in writer.read_logs(1)] == [1, 2]
    reader.append_logs([one(3)])
    assert [record["n"] for record in writer.read_logs(3)] == [3]
    assert records(path) == [0, 1, 2, 3]


def test_a_reader_that_fails_in_the_middle_goes_on_behind_that_record(path: Path) -> None:
    journal = Journal(path)
    with journal.batch():
        journal.append_logs([one(0), one(1), one(2)])
        for record in journal.read_logs(0):
            if record["n"] == 1:
                break
        assert [record["n"] for record in journal.read_logs(2)] == [2]
    journal.append_logs([one(3)])
    assert [record["n"] for record in journal.read_logs(3)] == [3]


@pytest.mark.parametrize("tail", [b'{"op_code":2,"n', b"\0" * 5000, b"x" * 200_000], ids=["half", "zeros", "long"])
def test_a_torn_last_line_is_no_record_and_is_cut_before_the_next(
    path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(path)
    journal.append_logs([one(0)])
    with open(path, "ab") as file:
        file.write(tail)
    assert records(path) == [0]
    with caplog.at_level(logging.WARNING, "trainctl"):
        journal.append_logs([one(1)])
        journal.append_logs([one(2)])
    assert caplog.messages == [f"repaired `{path}`: dropped 1 torn line"]
    assert records(path) == [0, 1, 2]


def test_a_torn_line_alone_is_cut(path: Path) -> None:
    path.write_bytes(b'{"op')
    Journal(path).append_logs([one(0)])
    assert records(path) == [0]


def test_a_line_that_is_no_record_is_a_sentence(path: Path) -> None:
    path.write_bytes(b'{"op_code":2,"n":0}\nhello\n')
    with pytest.raises(RunError) as caught:
        records(path)
    assert str(caught.value) == f"`{path}` is damaged: line 2 is not a record"


def test_a_lock_that_is_not_free_in_time_names_its_holder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import fcntl,sys,time; f=open(sys.argv[1]); fcntl.flock(f,2); print(1,flush=True); time.sleep(60)"
    path.touch()
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        monkeypatch.setattr(journals, "WAIT_S", 0.1)
        journal = Journal(path)
        with pytest.raises(RunError) as caught:
            journal.append_logs([one(0)])
        assert str(caught.value) == (
            f"study `{path}` is locked by pid {holder.pid}, and has been for too long; end that process, or try again "
            "later"
        )
        holder.send_signal(signal.SIGKILL)
    journal.append_logs([one(0)])  # a killed process leaves no lock
    assert records(path) == [0]


def test_a_full_disk_is_a_sentence_and_leaves_whole_lines(path: Path) -> None:
    code = (
        "import resource,signal,sys;from pathlib import Path;from trainctl.errors import ResourceError;"
        "from trainctl.tuning.journal import Journal;signal.signal(signal.SIGXFSZ,signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE,(100,100));j=Journal(Path(sys.argv[1]))\n"
        "j.append_logs([{'op_code':2,'n':0}])\n"
        "for _ in range(2):\n"
        "    try: j.append_logs([{'op_code':2,'n':1,'x':'y'*100}])\n"
        "    except ResourceError as error: print(str(error).partition(' writing')[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "the limit on file sizes (ulimit -f) is reached\n" * 2
    assert records(path) == [0]


def test_writers_that_are_killed_leave_whole_records(path: Path) -> None:
    code = (
        "import sys;from pathlib import Path;from trainctl.tuning.journal import Journal;j=Journal(Path(sys.argv[1]))\n"
        "n=0\n"
        "while True:\n"
        "    with j.batch(): j.append_logs([{'op_code':2,'n':n}]); j.append_logs([{'op_code':2,'n':n}])\n"
        "    n+=1\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    until = time.monotonic() + 20
    while (not path.exists() or path.stat().st_size < 50_000) and time.monotonic() < until:
        time.sleep(0.02)
    for writer in writers:
        writer.kill()
        writer.wait()
    found = records(path)
    assert len(found) > 1000
    assert found[::2] == found[1::2]  # batches are not mixed


def test_reading_waits_for_no_lock(path: Path) -> None:
    Journal(path).append_logs([one(0)])
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert records(path) == [0]
