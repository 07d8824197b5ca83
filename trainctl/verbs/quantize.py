"""quantize: a run with weights of fewer bits, measured beside its parent; a run like any other afterwards."""

from __future__ import annotations

from trainctl.verbs.compressing import compress
from trainctl.verbs.job import Job, Outcome


def quantize(job: Job) -> Outcome:
    """Quantize the source run's net by the compressor of the config. UsageError for what the method cannot do."""
    return compress(job)
