"""Controls of what the links in /etc/rcN.d say: which runlevels are alike, and in which order scripts are started and stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, World

from .recorded import SEQUENTIAL, SOUND, Data, boots, mark

CONTROLS = Controls(SOUND)
LEVELS, S_LINKS, K_LINKS = "runlevels_2_to_5_are_alike", "s_links_start_by_number", "k_links_stop_by_number"


def linked(name: str) -> Data:
    return {"name": name, "target": f"../init.d/{name[3:]}"}


def more(level: str, *names: str) -> Callable[[World], None]:
    """A runlevel has more links."""

    def change(world: World) -> None:
        world["sysv"]["links"][level] += [linked(name) for name in names]

    return change


def less(level: str, *, without: str = "", but: str = "") -> Callable[[World], None]:
    """A runlevel lacks the link of a script, or has no other."""

    def change(world: World) -> None:
        found = world["sysv"]["links"][level]
        world["sysv"]["links"][level] = [each for each in found if (each["name"][3:] == but if but else each["name"][3:] != without)]

    return change


def astray(level: str) -> Callable[[World], None]:
    """The first link of a runlevel leads elsewhere."""

    def change(world: World) -> None:
        world["sysv"]["links"][level][0]["target"] = "/bin/true"

    return change


for level, script in (("0", "halt"), ("1", "single"), ("6", "reboot")):
    CONTROLS.fails(LEVELS, less(level, without=script), name=f"without {script}")
    CONTROLS.fails(LEVELS, more("4", f"K09{script}"), name=f"{script} is in {level} and in 4")
    CONTROLS.fails(LEVELS, less(level, but=script), more(level, "S01some"), name=f"{level} stops no more than 2")
for level in "345":
    CONTROLS.fails(LEVELS, more(level, "S09nfs"), name=f"{level} starts more")
for level in "06":
    CONTROLS.fails(LEVELS, more(level, "S01bootlogs"), name=f"{level} starts the same as 2")
CONTROLS.fails(LEVELS, less("1", without="killprocs"), less("1", without="single"), more("1", "K09single"), name="1 starts the same as 2")
for level in "0123456":
    CONTROLS.fails(LEVELS, astray(level), name=f"a link of {level} leads to something else")


@CONTROLS.control(LEVELS)
def one_stops_exactly_as_many_as_two(world: World) -> None:
    many = len([each for each in world["sysv"]["links"]["1"] if each["name"].startswith("K")])
    world["sysv"]["links"]["2"] += [linked(f"K01more{number}") for number in range(many - 3)]


@CONTROLS.control(S_LINKS)
def all_have_one_number(world: World) -> None:
    """Then their order says nothing of numbers, even where it is that of the names."""
    for link in world["sysv"]["links"]["2"]:
        if "lab-" in link["name"]:
            link["name"] = "S01" + link["name"][3:]
    order = sorted(each["name"][7:] for each in world["sysv"]["links"]["2"] if each["name"][3:7] == "lab-" and "ready" not in each["name"])
    for boot in boots(world, SEQUENTIAL):
        for number, name in enumerate(order):
            for event in ("begin", "end"):
                mark(boot, event, name).update(guest_s=10.0 + number, host_s=10.0 + number)


@CONTROLS.control(S_LINKS, K_LINKS)
def a_service_has_no_link(world: World) -> None:
    for level in ("0", "2"):
        world["sysv"]["links"][level] = [each for each in world["sysv"]["links"][level] if not each["name"].endswith("lab-mail")]


@CONTROLS.control(K_LINKS)
def another_service_is_stopped_first(world: World) -> None:
    stops = [each for each in boots(world, SEQUENTIAL, place="warm_up")[0]["marks"] if each["event"] == "stop"]
    stops[0]["service"], stops[1]["service"] = stops[1]["service"], stops[0]["service"]


@CONTROLS.control(K_LINKS)
def numbers_that_stop_a_service_before_those_that_need_it(world: World) -> None:
    """The links and the marks agree, and both are the wrong way round."""
    marks = boots(world, SEQUENTIAL, place="warm_up")[0]["marks"]
    names = sorted({each["service"] for each in marks if each["event"] == "stop"})
    marks[:] = [each for each in marks if each["event"] != "stop"]
    marks += [{"event": "stop", "service": name, "host_s": 30.0 + n, "guest_s": 29.0 + n} for n, name in enumerate(names)]
    others = [each for each in world["sysv"]["links"]["0"] if "lab-" not in each["name"]]
    world["sysv"]["links"]["0"] = others + [linked(f"K02lab-{name}") for name in names]


@CONTROLS.control(K_LINKS, kind=INCONCLUSIVE)
def two_first_boots_of_the_sequential_arm(world: World) -> None:
    world["warm_up"]["boots"] += boots(world, SEQUENTIAL, place="warm_up")


@CONTROLS.control(LEVELS)
def only_started_links_make_up_what_is_stopped(world: World) -> None:
    """Runlevel 1 has as many links as before, and starts what it should stop."""
    for link in world["sysv"]["links"]["1"]:
        link["name"] = "S" + link["name"][1:]


CONTROLS.passes(S_LINKS, more("2", "S01stray"), name="a service that is not the lab's")


@CONTROLS.control(S_LINKS, kind=PASS)
def a_link_of_somebody_else_leads_astray(world: World) -> None:
    world["sysv"]["links"]["2"].append({"name": "S09nfs", "target": "/bin/true"})


@CONTROLS.control(S_LINKS)
def the_link_of_a_service_that_is_not_started_is_missing(world: World) -> None:
    """It is in no boot's marks either, so that the two orders agree."""
    a_service_has_no_link(world)
    for boot in boots(world, SEQUENTIAL):
        for event in ("begin", "end"):
            mark(boot, event, "mail").update(guest_s=90.0, host_s=91.0)


@CONTROLS.control(S_LINKS, kind=PASS)
def two_numbers_are_enough(world: World) -> None:
    names = [each for each in world["sysv"]["links"]["2"] if each["name"][3:7] == "lab-"]
    for link in names:
        link["name"] = ("S01" if link["name"][1:3] == "01" else "S02") + link["name"][3:]
    order = sorted(each["name"] for each in names if "ready" not in each["name"])
    for boot in boots(world, SEQUENTIAL):
        for number, name in enumerate(order):
            for event in ("begin", "end"):
                mark(boot, event, name[7:]).update(guest_s=10.0 + number, host_s=10.0 + number)


@CONTROLS.control(K_LINKS)
def a_service_is_neither_linked_nor_stopped(world: World) -> None:
    a_service_has_no_link(world)
    marks = boots(world, SEQUENTIAL, place="warm_up")[0]["marks"]
    marks[:] = [each for each in marks if (each["event"], each["service"]) != ("stop", "mail")]


@CONTROLS.control(K_LINKS, kind=PASS)
def links_in_another_order_than_their_names(world: World) -> None:
    world["sysv"]["links"]["0"].reverse()


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
