"""Reading IDX files, the format of MNIST and its relatives: a magic number, the sizes, then unsigned bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from trainctl.errors import DataError

UNSIGNED_BYTE = 8


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file of unsigned bytes, gzipped or not; DataError when it is damaged or something else."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"`{path}` is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read `{path}`: {error.strerror}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE or not 1 <= content[3] <= 4:
        raise DataError(f"`{path}` is not an IDX file of unsigned bytes; fetch it again")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"`{path}` ends within its header; it is damaged: fetch it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    announced, held = int(np.prod(shape, dtype=np.int64)), len(content) - start
    if announced != held:
        raise DataError(f"`{path}` holds {held} values and its header announces {announced}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
