"""Intervals: the same for the same samples, wider for scattered ones, and none from too few."""

from __future__ import annotations

import random

import pytest

from vmlab.lab import EvidenceProblem, Interval, median_interval, ratio_interval


def test_a_median_and_a_ratio_of_medians() -> None:
    assert median_interval([1.0, 2.0, 9.0]).middle == 2.0
    found = ratio_interval([10.0, 11.0, 12.0], [2.0, 2.2, 2.4, 2.6])
    assert found.middle == pytest.approx(11 / 2.3)
    assert 10 / 2.6 <= found.low < 11 / 2.3 < found.high <= 12 / 2.0
    assert found.n == 3


def test_the_same_samples_give_the_same_interval() -> None:
    pick = random.Random(3)
    samples = [pick.gauss(5, 1) for _ in range(9)]
    assert median_interval(samples) == median_interval(list(samples))
    assert ratio_interval(samples, samples) == ratio_interval(samples, samples)


def test_an_interval_holds_the_truth_most_of_the_time() -> None:
    pick = random.Random(5)
    held = sum(
        found.low <= 2.0 <= found.high
        for found in (ratio_interval([pick.gauss(8, 1) for _ in range(12)], [pick.gauss(4, 0.5) for _ in range(12)]) for _ in range(100))
    )
    assert held >= 85, "an interval of 95 % from a dozen samples"


@pytest.mark.parametrize(
    ("low", "high", "where"), [(1, 4, "inside"), (2, 3, "inside"), (2.5, 4, "across"), (0, 1, "outside"), (4, 5, "outside")]
)
def test_an_interval_against_bounds(low: float, high: float, where: str) -> None:
    assert Interval(2.0, 2.5, 3.0, 4).against(low, high) == where


def test_too_little_gives_none() -> None:
    with pytest.raises(EvidenceProblem, match="at least 3 samples, found 2"):
        median_interval([1.0, 2.0])
    with pytest.raises(EvidenceProblem, match="at least 3 samples, found 0"):
        ratio_interval([1.0, 2.0, 3.0], [])
    with pytest.raises(EvidenceProblem, match="above zero"):
        ratio_interval([1.0, 2.0, 3.0], [1.0, 0.0, 2.0])
