"""Whether a written file gives what the run gives, on real rows, all at once and the first alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainctl.errors import GateError
from trainctl.exporting.ports import Runner, Sample

TINY = 1e-12


@dataclass(frozen=True)
class Parity:
    """difference: the largest, absolute; scale: the largest output; agreement: share of equal classes, else None."""

    difference: float
    scale: float
    agreement: float | None
    rows: int
    split: str

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest output."""
        return self.difference / self.scale

    def check(self, tolerance: float) -> None:
        """GateError unless the outputs are equal up to `tolerance`, relative to the largest."""
        if not self.relative <= tolerance:
            raise GateError(
                f"the written file gives other values than the run on {self.rows} rows of {self.split}: the largest "
                f"difference is {self.difference:.3g}, and at most {tolerance * self.scale:.3g} is allowed "
                f"(tolerance={tolerance:g} of the largest output); nothing was kept; pass a larger `tolerance=` "
                "if that will do"
            )


def compare(run: Runner, sample: Sample, classes: bool) -> Parity:
    """Run the file on the sample; GateError when it cannot be run or gives another shape."""
    found = []
    for feed, expected in sample.parts():
        count = len(expected)
        try:
            got = run(feed)
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            rows = f"{count} row{'s' * (count != 1)}"
            raise GateError(f"the written file cannot be run on {rows}, so nothing was kept: {said}") from error
        if got.shape != expected.shape:
            raise GateError(
                f"the written file gives {list(got.shape)} for {count} rows, the run {list(expected.shape)}; "
                "nothing was kept; try another `format=`"
            )
        found.append((got.astype(np.float64), expected.astype(np.float64)))
    difference = max(float(np.abs(got - expected).max()) for got, expected in found)
    got, expected = found[0]
    agreement = float((got.argmax(1) == expected.argmax(1)).mean()) if classes else None
    return Parity(difference, max(float(np.abs(expected).max()), TINY), agreement, len(expected), sample.split)
