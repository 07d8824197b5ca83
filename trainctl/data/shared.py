"""A data module that is set up, in an anonymous file that other processes map into memory.

Forking a process that has read a table does not do: polars' threads do not survive it. So one process reads and
fits, and the others take its tensors as they are; nothing is written to the disk, and nothing is left behind.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainctl.data.augment import build_augment
from trainctl.data.base import SPLITS, Data, Split

ALIGNED = 64


def shareable(data: Data) -> bool:
    """Whether tensors and fitted files are all there is: one of our modules, held in memory."""
    if not type(data).__module__.startswith("trainctl.data.") or not hasattr(os, "memfd_create"):
        return False
    known = data.augment is None or hasattr(data, "augment_config")
    return known and all(isinstance(data.split(name).x, Tensor) for name in SPLITS)


def pack(data: Data) -> int | None:
    """The descriptor of an anonymous file for `unpack`; None for data that cannot be shared so."""
    data.setup()
    if not shareable(data):
        return None
    arrays: dict[str, np.ndarray] = {}
    for name in SPLITS:
        split = data.split(name)
        parts = {"x": split.x.numpy(), "y": None if split.y is None else split.y.numpy(), "rows": split.rows}
        arrays |= {f"{name}/{part}": np.ascontiguousarray(array) for part, array in parts.items() if array is not None}
    with tempfile.TemporaryDirectory() as folder:
        data.save(Path(folder))
        for name, content in content_of(Path(folder)).items():
            arrays[f"fitted/{name}"] = np.frombuffer(content, np.uint8)
    places: dict[str, tuple[str, list[int], int]] = {}
    size = 0
    for name, array in arrays.items():
        places[name] = (array.dtype.str, list(array.shape), size)
        size += -(-array.nbytes // ALIGNED) * ALIGNED
    head = json.dumps({"arrays": places, "description": data.describe(), "warnings": data.warnings}).encode()
    start = -(-(8 + len(head)) // ALIGNED) * ALIGNED
    descriptor = os.memfd_create("trainctl-data", os.MFD_CLOEXEC)
    os.truncate(descriptor, start + size)
    with mmap.mmap(descriptor, start + size) as memory:
        memory[: 8 + len(head)] = len(head).to_bytes(8, "little") + head
        for name, array in arrays.items():
            into = np.frombuffer(memory, array.dtype, array.size, start + places[name][2])
            into[:] = array.reshape(-1)
            del into
    return descriptor


def unpack(descriptor: int, data: Data) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Give `data`, fresh from its config, what `pack` wrote; returns its description and the files it had fitted."""
    # private: torch wants memory that can be written, and a change stays in this process
    memory = mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    length = int.from_bytes(memory[:8], "little")
    head = json.loads(memory[8 : 8 + length])
    start = -(-(8 + length) // ALIGNED) * ALIGNED
    arrays = {}
    for name, (kind, shape, place) in head["arrays"].items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, np.dtype(kind), count, start + place).reshape(shape)
    content = {name.removeprefix("fitted/"): array.tobytes() for name, array in arrays.items() if "fitted/" in name}
    with tempfile.TemporaryDirectory() as folder:
        for name, payload in content.items():
            (Path(folder) / name).write_bytes(payload)
        data.restore(Path(folder))
    data._splits = {name: _split(arrays, name) for name in SPLITS}
    data._hashes = {name: part["sha256"] for name, part in head["description"]["splits"].items()}
    data.warnings = list(head["warnings"])
    options = getattr(data, "augment_config", None)
    if options is not None and data.spec.image_shape is not None:
        data.augment = build_augment(options, len(data.spec.classes), data.spec.image_shape[1:])
    return head["description"], content


def content_of(folder: Path) -> dict[str, bytes]:
    """The files in a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _split(arrays: dict[str, np.ndarray], name: str) -> Split:
    y = arrays.get(f"{name}/y")
    return Split(torch.from_numpy(arrays[f"{name}/x"]), None if y is None else torch.from_numpy(y),
                 arrays[f"{name}/rows"])
