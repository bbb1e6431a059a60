"""Times by turns, and what beside each tells whose time it was."""

from __future__ import annotations

import os
import time

import pytest

from vmlab_guest import timing
from vmlab_guest.child import Child


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_work_and_waiting_are_told_apart() -> None:
    worked, waited = timing.sampled(lambda: busy(0.05)), timing.sampled(lambda: time.sleep(0.05))
    assert worked["cpu_ns"] >= 50_000_000
    assert worked["wall_ns"] >= worked["cpu_ns"] * 0.99
    assert waited["wall_ns"] >= 50_000_000
    assert waited["cpu_ns"] < 25_000_000
    assert waited["voluntary"] >= 1


def test_being_taken_off_the_processor_is_counted() -> None:
    def contend() -> dict[str, int]:
        timing.pin()
        return timing.sampled(lambda: busy(0.2))

    with Child(contend) as one, Child(contend) as other:
        samples = [child.report() for child in (one, other)]
    assert all(isinstance(each, dict) and each["involuntary"] > 0 and each["wall_ns"] > each["cpu_ns"] for each in samples)


def test_arms_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []
    arms = {name: lambda name=name: order.append(name) for name in "abc"}
    samples = timing.by_turns(arms, 3, warm_up=1)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert set(samples["a"][0]) == {"wall_ns", "cpu_ns", "involuntary", "voluntary"}


def test_a_time_is_taken_also_when_the_block_breaks() -> None:
    watch = timing.Stopwatch()
    with pytest.raises(KeyError), watch:
        raise KeyError
    assert watch.sample["wall_ns"] > 0


def test_a_thread_is_pinned() -> None:
    def look() -> list[object]:
        chosen = max(os.sched_getaffinity(0))
        return [timing.pin(chosen) == chosen, list(os.sched_getaffinity(0)) == [chosen], timing.pin() == chosen]

    with Child(look) as child:
        assert child.report() == [True, True, True]
    with pytest.raises(OSError, match="Invalid"):
        timing.pin(100_000)


def test_the_time_of_children() -> None:
    before = timing.children_cpu_s()
    with Child(lambda: busy(0.05)) as child:
        child.report()
    assert timing.children_cpu_s() - before >= 0.04
