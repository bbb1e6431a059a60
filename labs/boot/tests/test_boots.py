"""One boot, read: where its time went, how much the machine disturbed it, and what several of them say together."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab import EvidenceProblem, Record

from .. import boots
from ..boots import Boot, Mark

QUIET = {"wall_s": 10.0, "cpus": 2, "others_cpu_s": 0.0, "steal_s": 0.0, "waited_s": 0.0}


def made(**ends: tuple[float, float]) -> Boot:
    """A boot whose services began and ended then; the host's clock is a second ahead."""
    begins = {name: Mark(begin, begin + 1) for name, (begin, _) in ends.items()}
    return Boot("boot", "arm", "graph", begins, {name: Mark(end, end + 1) for name, (_, end) in ends.items()}, Mark(9, 10.5), 3.0, 0.0)


def recorded(**changes: Any) -> dict[str, Any]:
    """A boot as it is recorded: one service, and the last that says that all are ready."""
    marks = [
        {"event": event, "service": name, "guest_s": at, "host_s": at + 1, **({"cpu_s": 0.1, "work": 3} if event == "end" else {})}
        for event, name, at in (("begin", "a", 5.0), ("end", "a", 6.0), ("begin", "ready-g", 6.1), ("end", "ready-g", 6.2))
    ]
    plain = {"arm": "x", "graph": "g", "marks": marks, "console": [{"at_s": 2.5, "text": "vmlab-initrd: up"}], "noise": QUIET}
    return plain | changes


def test_a_boot_is_read() -> None:
    boot = boots.read(Record("boot", recorded()))
    assert boot.begins == {"a": Mark(5.0, 6.0)}
    assert boot.ends == {"a": Mark(6.0, 7.0, 0.1, 3)}
    assert (boot.services_s, boot.services_by_host_s, boot.whole_s, boot.initrd_s, boot.noise) == (1.0, 1.0, 7.2, 2.5, 0.0)
    assert (boot.arm, boot.graph, boot.place, boot.at_once) == ("x", "g", "boot", 1)
    assert boot.phases() == {"firmware": 1.0, "kernel": 1.5, "early": 3.5, "services": 1.0, "ready": 0.2}


def without(event: str, service: str) -> dict[str, Any]:
    return recorded(marks=[each for each in recorded()["marks"] if (each["event"], each["service"]) != (event, service)])


def with_mark(**mark: Any) -> dict[str, Any]:
    return recorded(marks=[*recorded()["marks"], mark])


@pytest.mark.parametrize(
    "wrong",
    [
        without("begin", "a"),
        without("end", "a"),
        without("end", "ready-g"),
        recorded(marks=recorded()["marks"][2:]),
        with_mark(event="end", service="ready-h", guest_s=7.0, host_s=8.0, cpu_s=0, work=0),
        with_mark(event="begin", service="a", guest_s=5.5, host_s=6.0),
        with_mark(event="begin", service="b", guest_s=5.5, host_s=6.0),
        recorded(marks=[{**each, "guest_s": 7.0} if each["event"] == "begin" else each for each in recorded()["marks"]]),
        recorded(marks=[{**each, "guest_s": -1.0} for each in recorded()["marks"]]),
        recorded(marks=[{**each, "host_s": -1.0} for each in recorded()["marks"]]),
        recorded(marks=[{**each, "cpu_s": -1} for each in recorded()["marks"]]),
        recorded(marks=[{**each, "work": -1} for each in recorded()["marks"]]),
        recorded(console=[{"at_s": 2.5, "text": "vmlab-initrd: down"}]),
        recorded(console=[{"at_s": -2.5, "text": "vmlab-initrd: up"}]),
        recorded(noise={**QUIET, "wall_s": 0.09}),
        recorded(noise={**QUIET, "cpus": 0}),
        recorded(noise={**QUIET, "others_cpu_s": -1}),
        recorded(noise={**QUIET, "steal_s": -1}),
        recorded(noise={**QUIET, "waited_s": -1}),
    ],
)
def test_a_boot_that_contradicts_itself_is_no_evidence(wrong: dict[str, Any]) -> None:
    with pytest.raises(EvidenceProblem):
        boots.read(Record("boot", wrong))


def test_a_service_may_take_no_time() -> None:
    marks = [{**each, "guest_s": 6.0} for each in recorded()["marks"]]
    assert boots.read(Record("boot", recorded(marks=marks))).services_s == 0


@pytest.mark.parametrize(
    ("noise", "share"),
    [
        ({}, 0.0),
        ({"others_cpu_s": 2.0}, 0.1),
        ({"steal_s": 2.0}, 0.1),
        ({"others_cpu_s": 2.0, "steal_s": 2.0}, 0.2),
        ({"others_cpu_s": 2.0, "cpus": 64}, 2 / 640),
        ({"waited_s": 2.0}, 0.1),
        ({"waited_s": 2.0, "others_cpu_s": 4.0}, 0.2),
        ({"waited_s": 2.0, "wall_s": 0.1, "others_cpu_s": 0.01}, 10.0),
    ],
)
def test_disturbance(noise: dict[str, float], share: float) -> None:
    assert boots.disturbance(Record("noise", QUIET | noise)) == pytest.approx(share)
    assert boots.noise_of({"noise": QUIET | noise}) == pytest.approx(share)


def test_the_boot_in_the_middle() -> None:
    one, two, three, four = (made(a=(0, seconds)) for seconds in (1, 2, 3, 4))
    assert boots.in_the_middle([three, one, two]) is two
    assert boots.in_the_middle([four, three, one, two]) is three
    assert boots.in_the_middle([one]) is one


def test_what_hit_only_some_boots_is_gone_from_the_quickest_of_each_service() -> None:
    chain = {"a": (), "b": ("a",)}
    first, second = made(a=(5, 9), b=(9, 10)), made(a=(7, 8), b=(8, 13))
    assert boots.without_stalls_s([first, second], chain) == 2
    assert boots.without_stalls_s([first], chain) == 5
    beside = {"a": (), "b": ()}
    assert boots.without_stalls_s([made(a=(5, 9), b=(5, 6)), made(a=(7, 8), b=(7, 12))], beside) == 1
    diamond = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    assert boots.without_stalls_s([made(a=(1, 2), b=(2, 5), c=(2, 3), d=(5, 6))], diamond) == 5


def test_the_boots_that_count() -> None:
    def noisy(level: float) -> Boot:
        boot = made(a=(0, 1))
        return Boot(boot.place, boot.arm, boot.graph, boot.begins, boot.ends, boot.ready, boot.initrd_s, level)

    quiet, limit, loud = noisy(0.0), noisy(0.1), noisy(0.11)
    assert boots.undisturbed([quiet, loud, limit, quiet], 3) == [quiet, limit, quiet]
    assert boots.undisturbed([quiet, loud, quiet], 3) == [quiet, loud, quiet]
    assert boots.disturbed([quiet, loud, limit]) == 0.1
