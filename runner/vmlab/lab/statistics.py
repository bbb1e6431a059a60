"""What checks need of statistics: a median, or a ratio of two, with its interval, from raw samples, the same for the same samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Literal

from vmlab.lab.evidence import EvidenceProblem

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A median or a ratio of medians, and the bounds between which a bootstrap finds it in 95 % of its draws."""

    low: float
    middle: float
    high: float
    n: int

    def against(self, low: float, high: float) -> Literal["inside", "outside", "across"]:
        """Where it lies to two bounds: ``inside`` or ``outside`` them as a whole, or ``across`` one of them, which decides nothing."""
        if low <= self.low and self.high <= high:
            return "inside"
        return "outside" if self.high < low or self.low > high else "across"

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g}, n = {self.n})"


def median_interval(samples: Sequence[float], *, at_least: int = 3) -> Interval:
    """The median of ``samples`` with its 95 % interval, by the percentile bootstrap (Efron, 1979).

    Of few samples such an interval says less than its name: from the smallest to the largest of n, which it is for n below 6, holds the
    true median with the probability 1 - 2^(1 - n), so 75 % for three.

    The draws are made from a fixed seed, so that the same evidence always gives the same verdict. EvidenceProblem when there are fewer than
    ``at_least`` samples: an interval of one or two says nothing.
    """
    return _bootstrap([samples], _median, at_least)


def ratio_interval(samples: Sequence[float], others: Sequence[float], *, at_least: int = 3) -> Interval:
    """How many times the median of ``others`` the median of ``samples`` is: as `median_interval`, both drawn anew each time.

    EvidenceProblem also for others that are not above zero.
    """
    if any(other <= 0 for other in others):
        raise EvidenceProblem("expected times above zero to divide by")
    return _bootstrap([samples, others], _ratio, at_least)


def _bootstrap(sets: Sequence[Sequence[float]], statistic: Callable[[Sequence[Sequence[float]]], float], at_least: int) -> Interval:
    fewest = min(len(samples) for samples in sets)
    if fewest < at_least:
        raise EvidenceProblem(f"expected at least {at_least} samples, found {fewest}")
    return _interval(tuple(map(tuple, sets)), statistic)


# (The same samples come again: for a check of which another value is looked at, and when a report is judged anew.)
@lru_cache(maxsize=1024)
def _interval(sets: tuple[tuple[float, ...], ...], statistic: Callable[[Sequence[Sequence[float]]], float]) -> Interval:
    draw = random.Random(1).choices  # noqa: S311  (Chance is needed here, secrecy is not.)
    found = sorted(statistic([draw(samples, k=len(samples)) for samples in sets]) for _ in range(_RESAMPLES))
    return Interval(found[_RESAMPLES // 40], statistic(sets), found[-(_RESAMPLES // 40) - 1], min(map(len, sets)))


def _median(drawn: Sequence[Sequence[float]]) -> float:
    return median(drawn[0])


def _ratio(drawn: Sequence[Sequence[float]]) -> float:
    return median(drawn[0]) / median(drawn[1])
