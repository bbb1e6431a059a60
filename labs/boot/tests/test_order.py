"""Controls at the bounds of order: overlaps by either clock, dependencies, how many at once, and which boots count at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, World, put

from .. import checks_time
from ..boots import Boot, Mark
from ..graph import Service
from .recorded import LSB, NATIVE, SEQUENTIAL, SOUND, STARTPAR, boots, lasting, mark, noise, shift, stretch

CONTROLS = Controls(SOUND)
ONE, DEBIAN, KEPT = "truly_sequential_is_one_at_a_time", "debian_starts_in_parallel_by_default", "dependencies_are_kept"
SUM, CHAIN, CPU = "sequential_time_adds_up", "control_a_chain_gains_nothing", "control_one_cpu_gains_nothing"


# --- what the controls of the sequential arm do counts as well ---------------------------------------------------------------------


@CONTROLS.control(ONE)
def the_chain_of_the_sequential_arm_overlaps(world: World) -> None:
    shift(boots(world, SEQUENTIAL, "chain")[1], "second", -0.3)


@CONTROLS.control(ONE)
def the_burners_of_the_sequential_arm_overlap(world: World) -> None:
    mark(boots(world, SEQUENTIAL, "burners")[0], "begin", "burn2")["host_s"] -= 0.5


@CONTROLS.control(ONE)
def the_burners_of_the_sequential_arm_do_nothing(world: World) -> None:
    mark(boots(world, SEQUENTIAL, "burners")[0], "end", "burn2")["cpu_s"] = 0.5


def begins_earlier(arm: str, name: str, before: str, seconds: float) -> Callable[[World], None]:
    """A service begins so long before another has ended."""

    def change(world: World) -> None:
        for boot in boots(world, arm):
            mark(boot, "begin", name)["guest_s"] = mark(boot, "end", before)["guest_s"] - seconds

    return change


# The guest's clock has hundredths, and is read twice: two of them may be missing.
CONTROLS.passes(KEPT, begins_earlier(LSB, "shop", "database", 0.019), name="as far as the clock tells")
CONTROLS.fails(KEPT, begins_earlier(LSB, "shop", "database", 0.021), name="just too early")


@CONTROLS.control(DEBIAN)
def eight_at_once(world: World) -> None:
    at_once(world, 8)


@CONTROLS.control(DEBIAN, kind=PASS)
def seven_at_once(world: World) -> None:
    at_once(world, 7)


def at_once(world: World, many: int) -> None:
    """As many services overlap in one boot, and no two more."""
    boot = boots(world, STARTPAR)[1]
    names = [each["service"] for each in boot["marks"] if each["event"] == "begin" and not each["service"].startswith("ready-")]
    for number, name in enumerate(names):
        mark(boot, "begin", name)["guest_s"] = 10.0 + (0 if number < many else number)
        mark(boot, "end", name)["guest_s"] = 10.9 + (0 if number < many else number)


CONTROLS.fails(DEBIAN, put("sysv.startpar_call", "startpar -p 8 -t 20"))
CONTROLS.fails(DEBIAN, put("sysv.startpar_call", ""))
CONTROLS.is_inconclusive(DEBIAN, put("sysv.depend_bytes", {}))


def apart(seconds: float) -> Callable[[World], None]:
    """The host's clock saw the sequential services take so much longer than the guest's did."""

    def change(world: World) -> None:
        lasting(world, SEQUENTIAL, 8.8)
        boot = boots(world, SEQUENTIAL)[2]
        last = max((each for each in boot["marks"] if not each["service"].startswith("ready-")), key=lambda each: float(each["guest_s"]))
        last["host_s"] += seconds

    return change


CONTROLS.passes(SUM, apart(0.87), name="clocks that differ by less than a tenth")
CONTROLS.is_inconclusive(SUM, apart(0.89), name="clocks that differ by more than a tenth")


@CONTROLS.control(DEBIAN, kind=PASS)
def two_at_once(world: World) -> None:
    at_once(world, 2)


CONTROLS.is_inconclusive(DEBIAN, put("sysv.depend_bytes", {".depend.start": -1}))


# --- which clock, and how near --------------------------------------------------------------------------------------------------------


@CONTROLS.control(ONE)
def an_overlap_by_the_guests_clock_alone(world: World) -> None:
    mark(boots(world, SEQUENTIAL)[0], "begin", "mail")["guest_s"] -= 0.4


def begins_when_the_one_before_ends(clock: str, *, before_s: float = 0.0) -> Callable[[World], None]:
    """By one clock, `mail` begins when `keys` ends, or so long before."""

    def change(world: World) -> None:
        boot = boots(world, SEQUENTIAL)[0]
        mark(boot, "begin", "mail")[clock] = mark(boot, "end", "keys")[clock] - before_s

    return change


CONTROLS.passes(ONE, begins_when_the_one_before_ends("guest_s"), name="in the same hundredth of a second")
CONTROLS.passes(ONE, begins_when_the_one_before_ends("guest_s", before_s=0.019), name="as far as the guest's clock tells")
CONTROLS.fails(ONE, begins_when_the_one_before_ends("guest_s", before_s=0.021), name="just too early by the guest's clock")
CONTROLS.passes(ONE, begins_when_the_one_before_ends("host_s"), name="both lines came at once")
CONTROLS.fails(ONE, begins_when_the_one_before_ends("host_s", before_s=0.001), name="just too early by the host's clock")


@CONTROLS.control(ONE, kind=PASS)
def marks_in_another_order(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        boot["marks"].reverse()


@CONTROLS.control(ONE, kind=PASS)
def boots_in_another_order(world: World) -> None:
    world["boots"]["boots"].reverse()


@CONTROLS.control(ONE)
def an_overlap_in_the_only_control(world: World) -> None:
    world.parameters["controls"] = world["plan"]["controls"] = 1
    world["controls"]["boots"] = [boot for boot in world["controls"]["boots"] if boot["turn"] == 1]
    shift(boots(world, SEQUENTIAL, "chain")[0], "second", -0.3)


def chain_apart(seconds: float) -> Callable[[World], None]:
    """The host's clock saw the chain take so much longer than the guest's did."""

    def change(world: World) -> None:
        lasting(world, NATIVE, 2.4, "chain")
        mark(boots(world, NATIVE, "chain")[0], "end", "third")["host_s"] += seconds

    return change


CONTROLS.passes(CHAIN, chain_apart(0.29), name="as near as clocks of short services need to be")
CONTROLS.is_inconclusive(CHAIN, chain_apart(0.31), name="clocks that differ")


# --- which boots count ----------------------------------------------------------------------------------------------------------------


@CONTROLS.control(SUM, kind=PASS)
def one_of_three_was_disturbed(world: World) -> None:
    """Two are too few for an interval, so all three count."""
    noise(boots(world, SEQUENTIAL)[0], 0.5)


@CONTROLS.control(SUM, kind=PASS)
def one_of_four_was_disturbed_and_slow(world: World) -> None:
    """Three make an interval, so the slow one does not count."""
    world.parameters["repeats"] = world["plan"]["repeats"] = 4
    copy = World({"boots": {"boots": boots(world, SEQUENTIAL)[:1]}}, {}, {})["boots"]["boots"][0]
    world["boots"]["boots"].append(copy)
    copy["turn"] = 4
    stretch(copy, 2)
    noise(copy, 0.5)


@CONTROLS.control(SUM, kind=INCONCLUSIVE)
def one_of_three_is_quick_enough_to_be_true(world: World) -> None:
    """Two took less than a fifth below the prediction, and one more."""
    lasting(world, SEQUENTIAL, 6.9)
    stretch(boots(world, SEQUENTIAL)[0], 7.3 / 6.9)


def nothing_to_do(world: World) -> None:
    for service in world["plan"]["graphs"]["burners"]["services"].values():
        service["burn"] = 0.0


CONTROLS.is_inconclusive(CPU, nothing_to_do, name="services that take no time")


@CONTROLS.control(CHAIN, kind=PASS)
def half_the_scale(world: World) -> None:
    world.parameters["scale"] = world["plan"]["scale"] = 0.5
    world["plan"]["predicted_s"]["chain"] = {SEQUENTIAL: 0.9, NATIVE: 0.9}


@CONTROLS.control(CHAIN, kind=INCONCLUSIVE)
def a_control_of_another_init_is_none(world: World) -> None:
    boots(world, NATIVE, "chain")[0]["facts"]["pid1"] = "/sbin/init"


def boot_of(*order: str) -> Boot:
    marks = {name: Mark(float(number), float(number)) for number, name in enumerate(order)}
    return Boot("boot", "arm", "services", marks, marks, Mark(9, 9), 1.0, 0.0)


def test_what_each_service_waits_for() -> None:
    graph = [Service("a", "sleep", 1, ()), Service("b", "sleep", 1, ()), Service("c", "sleep", 1, ("a",))]
    found = [boot_of("b", "a", "c"), boot_of("a", "b", "c")]
    assert checks_time.waits_for(graph, NATIVE, found) == {"a": (), "b": (), "c": ("a",)}
    assert checks_time.waits_for(graph, SEQUENTIAL, found) == {"b": (), "a": ("b",), "c": ("a",)}
    assert list(checks_time.waits_for(graph, SEQUENTIAL, found)) == ["b", "a", "c"]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
