"""Where the shipped configs lie.

One place for a checkout and an installed wheel: in the repository `trainctl/conf` is a link to `conf/`, and the
wheel holds the files themselves.
"""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The folder with `train.yaml` and the groups that ship with trainctl."""
    return Path(__file__).resolve().parents[1] / "conf"
