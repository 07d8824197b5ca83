"""One plain line per epoch, and on a terminal a bar with figures, speed and the time left."""

from __future__ import annotations

import contextlib
import logging
import os
import pty

import pytest

from trainctl.callbacks import Record, Show

ROW = {"epoch": 3, "step": 30, "seconds": 0.1234, "lr": 0.001, "train/loss": 0.41234, "val/loss": None, "val_acc": 0.5}


def test_a_line_per_epoch(caplog):
    caplog.set_level(logging.INFO, "trainctl")
    Show(10, "val/loss").epoch_line(ROW)
    Show(None, "val/loss").epoch_line(ROW)
    assert caplog.messages == [
        "epoch 3/10  train/loss 0.4123  val/loss n/a  val_acc 0.5  0.12 s",
        "epoch 3  train/loss 0.4123  val/loss n/a  val_acc 0.5  0.12 s",
    ]


def test_a_line_has_at_most_200_bytes(caplog):
    caplog.set_level(logging.INFO, "trainctl")
    Show(10, "val/loss").epoch_line({**ROW, **{f"val/figure_number_{k}": 0.12345 for k in range(40)}})
    assert len(caplog.messages[0].encode()) <= 200 and caplog.messages[0].endswith("  0.12 s")


@contextlib.contextmanager
def terminal(gone: bool = False):
    """stderr is a terminal; the value reads what was shown so far. gone: nobody is at its other end."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)

    def shown() -> str:
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(master, 65536):
                parts.append(part)
        return b"".join(parts).decode()

    stream = os.fdopen(slave, "w", encoding="utf-8")
    try:
        with contextlib.redirect_stderr(stream):
            if gone:
                os.close(master)
            yield shown
    finally:
        with contextlib.suppress(OSError):
            stream.close()
        if not gone:
            os.close(master)


@pytest.fixture(autouse=True)
def a_common_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def test_a_bar_on_a_terminal(fit):
    with terminal() as shown:
        show = Show(2, "val/loss")
        assert show.live
        fit("trainer.max_epochs=2", callbacks=(Record(show.epoch_line), show))
        text = shown()
    for part in ("epoch 1/2", "steps/s", "loss ", "epoch 2/2  train/loss"):
        assert part in text


def test_no_bar_when_quiet(fit):
    with terminal() as shown:
        show = Show(1, "val/loss", quiet=True)
        fit(callbacks=(Record(show.epoch_line), show))
        assert shown() == ""


def test_a_terminal_that_is_gone_does_not_end_training(fit):
    with terminal(gone=True):
        show = Show(2, "val/loss")
        show.live = True
        done = fit("trainer.max_epochs=2", callbacks=(Record(show.epoch_line), show))
    assert done.task.progress.epoch == 2
