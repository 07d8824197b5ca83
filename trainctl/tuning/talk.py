"""What a study's process and its workers say to each other: JSON objects, a line each, over a socket.

`Line` is either end. `Talk` is a worker's side while it has trials in its hands: epochs go out, answers come back.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
Row = dict[str, Any]
_MOST_DESCRIPTORS = 64  # that come at once

_MOST_DESCRIPTORS = 64  # that come at once


class Line:
    """One end of a socket that carries JSON lines.

    `send` and `receive` wait; `push`, `flush` and `arrived` never do: they leave what does not go through for later.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.closed = False  # the other end is gone
        self._in, self._out = bytearray(), bytearray()
        self._whole: deque[Message] = deque()

    def fileno(self) -> int:
        """For selectors."""
        return self.end.fileno()

    @property
    def unsent(self) -> bool:
        """Whether `flush` has something left to write."""
        return bool(self._out)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a message, all of it; OSError when the other end is gone."""
        self.end.sendall(_encoded(message))

    def receive(self) -> Message | None:
        """The next message, waited for; None when the other end is gone."""
        while not self._whole and not self.closed:
            self._take(self._read(0))
        return self._whole.popleft() if self._whole else None

    def push(self, message: Mapping[str, Any]) -> None:
        """Write what the socket takes now and keep the rest for `flush`."""
        self._out += _encoded(message)
        self.flush()

    def flush(self) -> None:
        """Write on; an end that is gone drops what is left."""
        try:
            while self._out:
                del self._out[: self.end.send(self._out, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()

    def arrived(self) -> list[Message]:
        """The whole messages that are here by now; `closed` says whether more can come."""
        with contextlib.suppress(BlockingIOError):
            while not self.closed:
                self._take(self._read(socket.MSG_DONTWAIT))
        found = list(self._whole)
        self._whole.clear()
        return found

    def _read(self, flags: int) -> bytes:
        try:
            return self.end.recv(65_536, flags)
        except BlockingIOError:
            raise
        except OSError:
            return b""

    def _take(self, received: bytes) -> None:
        self.closed = not received
        self._in += received
        if b"\n" in received:
            *lines, rest = bytes(self._in).split(b"\n")
            self._in = bytearray(rest)
            self._whole.extend(json.loads(line) for line in lines)


class FdLine(Line):
    """A line that descriptors come over, too, in the order of the messages that speak of them."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self.descriptors: list[int] = []

    def _read(self, flags: int) -> bytes:
        try:
            # socket.recv_fds of Python 3.11 forgets the flags
            room = socket.CMSG_LEN(_MOST_DESCRIPTORS * array.array("i").itemsize)
            received, extra, _, _ = self.end.recvmsg(65_536, room, flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise
        except OSError:
            return b""
        for _, kind, content in extra:
            if kind == socket.SCM_RIGHTS:
                self.descriptors += array.array("i", content[: len(content) // 4 * 4])
        return received


class Talk:
    """A worker's trials, told to the process of the study. `wait`: it answers every report of epochs.

    When that process is gone, so is this one: nobody is to record an end that came from there.
    """

    def __init__(self, line: Line, wait: bool) -> None:
        self.line, self.wait = line, wait
        self.told: set[int] = set()  # trials whose end was told

    def tell(self, rows: Mapping[int, Row]) -> dict[int, str]:
        """Send the rows of metrics.jsonl that an epoch ended with, by trial; returns why trials are to stop now."""
        named = {str(number): row for number, row in rows.items()}
        self.send({"event": "epochs", "rows": named, "wait": self.wait})
        if not self.wait:
            return {}
        answer = self.line.receive()
        if answer is None:
            os._exit(1)
        return {int(number): why for number, why in answer.get("stop", {}).items()}

    def done(
        self,
        number: int,
        status: str = "completed",
        metrics: Mapping[str, float | None] | None = None,
        *,
        code: int = 0,
        message: str = "",
        epochs: int = 0,
        best_epoch: int | None = None,
        halted: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        cpu_s: float = 0.0,
        notes: Sequence[str] = (),
    ) -> None:
        """Say how a trial ended: `completed`, `failed` (with the exit code and the sentence) or `stopped`.

        `halted`: the epoch at which a stopper ended it, and why. `notes`: lines for the user.
        """
        figures = {"metrics": dict(metrics or {}), "epochs": epochs, "best_epoch": best_epoch, "halted": halted}
        cost = {"seconds": round(seconds, 4), "cpu_s": round(cpu_s, 4)}
        end = {"event": "done", "number": number, "status": status, "code": code, "message": message}
        self.send({**end, **figures, **cost, "notes": list(notes)})
        self.told.add(number)

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell something else."""
        try:
            self.line.send(message)
        except OSError:
            os._exit(1)


def _encoded(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=True, allow_nan=True).encode() + b"\n"
