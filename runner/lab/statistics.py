"""What checks need of statistics: a median with its interval, from raw samples, the same each time for the same samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from runner.lab.evidence import EvidenceProblem

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A median, and the bounds between which a bootstrap finds it in 95 % of its draws."""

    low: float
    middle: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g}, n = {self.n})"


def median_interval(samples: Sequence[float], *, at_least: int = 3) -> Interval:
    """The median of ``samples`` with its 95 % interval, by the percentile bootstrap (Efron, 1979).

    The draws are made from a fixed seed, so that the same evidence always gives the same verdict. EvidenceProblem when there are fewer than
    ``at_least`` samples: an interval of one or two says nothing.
    """
    if len(samples) < at_least:
        raise EvidenceProblem(f"expected at least {at_least} samples, found {len(samples)}")
    draw = random.Random(1).choices  # noqa: S311  (Chance is needed here, secrecy is not.)
    medians = sorted(median(draw(samples, k=len(samples))) for _ in range(_RESAMPLES))
    return Interval(medians[_RESAMPLES // 40], median(samples), medians[-(_RESAMPLES // 40) - 1], len(samples))
