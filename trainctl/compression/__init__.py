"""Making nets smaller and faster. A compressed net is a model like any other: `compressed(net, steps)`."""

from trainctl.compression.base import compressed

__all__ = ["compressed"]
