"""How much a machine that stood still spoilt a count: what makes the experiment repeat one."""

from __future__ import annotations

from typing import Any

import pytest

from ..stalls import Look, allowed, held_up, noise_of, shortness


def printed(looks: int, *, peak: int = 0, kind: str = "reap", late_s: float = 0.0) -> dict[str, Any]:
    """What accumulate.py prints of a hundred forks in a second, with so many looks meanwhile."""
    samples = [{"forked_before": 10 + i, "forked_after": 12 + i, "zombies": 0, "living": 0} for i in range(looks)]
    return {"samples": samples, "forked": 100, "peak": peak, "parent": kind, "late_s": late_s, "forking_s": 1.0}


def test_enough_looks_are_quiet() -> None:
    assert noise_of(printed(5)) == noise_of(printed(50)) == 0


def test_each_look_that_is_missing_is_a_fifth_of_noise() -> None:
    assert [noise_of(printed(looks)) for looks in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def test_zombies_of_a_parent_that_was_held_up_are_noise() -> None:
    assert noise_of(printed(5, peak=6, late_s=0.3)) == 0.3
    assert noise_of(printed(5, peak=5, late_s=0.3)) == 0


def test_zombies_of_a_parent_that_never_waits_are_none() -> None:
    assert noise_of(printed(5, peak=100, kind="never", late_s=0.3)) == 0


def test_noise_is_never_more_than_all_of_the_time() -> None:
    assert noise_of(printed(5, peak=6, late_s=7.0)) == held_up(7.0, 1.0) == held_up(0.0, 0.0) == 1


def test_a_time_that_is_short_is_a_time() -> None:
    assert held_up(0.001, 0.004) == 0.25


@pytest.mark.parametrize(("forked", "most"), [(20, 3), (60, 3), (79, 3), (80, 4), (100, 5), (5000, 250)])
def test_a_twentieth_of_the_zombies_is_allowed_and_three_at_least(forked: int, most: int) -> None:
    assert allowed(forked) == most


def test_a_look_before_the_first_fork_or_after_the_last_shows_nothing() -> None:
    assert [Look(before, before, before, 0).is_sharp(100) for before in (0, 1, 99, 100)] == [False, True, True, False]


@pytest.mark.parametrize(("forked", "most"), [(20, 6), (60, 6), (69, 6), (70, 7), (100, 10)])
def test_a_look_is_sharp_where_few_forks_came_and_few_children_lived(forked: int, most: int) -> None:
    assert Look(1, 1 + most, 1, 0).is_sharp(forked)
    assert Look(1, 1, 1, most).is_sharp(forked)
    assert not Look(1, 2 + most, 1, 0).is_sharp(forked)
    assert not Look(1, 1, 1, most + 1).is_sharp(forked)


def test_two_looks_between_the_same_forks_are_one() -> None:
    assert shortness([Look(10, 10, 10, 0)] * 9, 100) == pytest.approx(0.8)
