"""The data of a study, read and fitted by a process of its own and handed over packed; and what a trial will take."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Collection
from typing import Any

import torch

from trainctl import launch, repeat
from trainctl.data import shared
from trainctl.data.base import Data
from trainctl.errors import ResourceError, TrainctlError
from trainctl.run import failures, record
from trainctl.tuning import facts
from trainctl.tuning.talk import Line
from trainctl.verbs.kept_data import KeptData, key


def prepare(end: socket.socket, config: dict[str, Any], options: launch.Options, packed: Collection[str]) -> None:
    """Hand over the data of a config but what is `packed` already, and say what a trial of it takes, or went wrong."""
    given = (config.get("trainer") or {}).get("threads")
    # on a busy machine threads that wait for each other would be timed, a hundred times as long
    torch.set_num_threads(given if isinstance(given, int) else 1)
    launch.user_code_importable(options)
    launch.quieten()
    try:
        found = measured(end, record.resolved(config), packed)
        answer: dict[str, Any] = {"facts": found}
    except Exception as error:
        answer = {"error": problem(error)}
    Line(end).send({"event": "prepared", **answer})


def measured(end: socket.socket, config: dict[str, Any], packed: Collection[str]) -> dict[str, Any]:
    """The fields of `Facts`, of the first fold or seed where there are several; the data of each is handed over."""
    kind = repeat.wanted(config)
    parts = [record.changed(config, changes) for changes in repeat.children(kind, config)] if kind else [config]
    kept = KeptData()
    for name, part in {key(part): part for part in parts}.items():
        data, _ = kept.lend(part)
        descriptor = shared.pack(data) if isinstance(data, Data) and name not in packed else None
        if descriptor is not None:
            socket.send_fds(end, [json.dumps({"packed": name}).encode() + b"\n"], [descriptor])
            os.close(descriptor)
    data = kept.lend(parts[0])[0]
    try:
        return facts.measure(parts[0], data)
    except TrainctlError:
        raise
    except Exception:  # a step that fails, for want of memory or by a mistake in a net, is that trial's own end
        logging.getLogger("trainctl").exception("the first trial could not be measured")
        return {}


def problem(error: Exception) -> dict[str, Any]:
    """Exit code and sentence; the traceback of an error that is ours to mend goes to the log."""
    if failures.is_out_of_memory(error):
        error = ResourceError("out of memory while the first trial was measured")
    if isinstance(error, TrainctlError):
        return {"code": error.exit_code, "message": str(error)}
    logging.getLogger("trainctl").exception("the data could not be prepared")
    return {"code": 1, "message": f"internal error: {type(error).__name__}: {error}"}
