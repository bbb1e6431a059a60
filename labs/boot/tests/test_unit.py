"""Controls of the checks of the course page's unit file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import Control, Controls, World, put

from .recorded import SOUND

CONTROLS = Controls(SOUND)
UNIT = "the_pages_unit_file_runs"
RESTART = "it_restarts_on_failure_only"
GIVEN_UP = "it_is_given_up_after_five_starts"
AFTER = "after_orders_and_starts_nothing"
SERVICE, KILLED, ENDED, LATER = "page_unit.alone.service", "page_unit.killed", "page_unit.ended", "page_unit.ended_later"
FAILING, BY_HAND, TOGETHER = "page_unit.failing", "page_unit.by_hand", "page_unit.together"


CONTROLS.fails(UNIT, put(f"{SERVICE}.SubState", "dead"))
CONTROLS.fails(UNIT, put(f"{SERVICE}.ActiveState", "activating"))
CONTROLS.fails(UNIT, put(f"{SERVICE}.Type", "forking"))
CONTROLS.fails(UNIT, put(f"{SERVICE}.Restart", "no"))
CONTROLS.fails(UNIT, put(f"{SERVICE}.FragmentPath", "/run/systemd/generator.late/my-service.service"))
CONTROLS.fails(UNIT, put("page_unit.unit", "#!/bin/sh\n/usr/bin/my-service &\n"))
CONTROLS.fails(UNIT, put(f"{SERVICE}.LoadState", "bad-setting"))
CONTROLS.fails(UNIT, put("page_unit.enabled", False))
CONTROLS.bound(UNIT, f"{SERVICE}.MainPID", within="2", beyond="1")
CONTROLS.is_inconclusive(UNIT, put(f"{SERVICE}.MainPID", ""))
CONTROLS.is_inconclusive(UNIT, put("page_unit.alone", {}))

CONTROLS.fails(RESTART, put(f"{KILLED}.SubState", "failed"), put(f"{KILLED}.ActiveState", "failed"), name="killed, it stays away")
CONTROLS.fails(RESTART, put(f"{KILLED}.SubState", "dead"), put(f"{KILLED}.ActiveState", "inactive"), name="killed, it has ended")
CONTROLS.fails(RESTART, put(f"{KILLED}.NRestarts", "0"), name="it came back, and not by systemd")
CONTROLS.fails(RESTART, put(f"{KILLED}.NRestarts", "2"))
CONTROLS.fails(RESTART, put(f"{KILLED}.MainPID", "0"), name="it came back without a process")
CONTROLS.fails(RESTART, put(f"{ENDED}.ActiveState", "failed"), name="it ended in order, and that was a failure")
CONTROLS.fails(RESTART, put(f"{ENDED}.SubState", "failed"))
CONTROLS.fails(RESTART, put(f"{ENDED}.NRestarts", "2"))
CONTROLS.fails(RESTART, put(f"{ENDED}.MainPID", "400"))
CONTROLS.fails(RESTART, put(f"{LATER}.NRestarts", "2"), name="ended, it is restarted later")
CONTROLS.fails(RESTART, put(f"{LATER}.ActiveState", "active"))
CONTROLS.fails(RESTART, put(f"{LATER}.SubState", "auto-restart"))
CONTROLS.fails(RESTART, put(f"{LATER}.MainPID", "400"))
CONTROLS.is_inconclusive(RESTART, put(f"{KILLED}.MainPID", ""), name="no process is not another process")
CONTROLS.is_inconclusive(RESTART, put(f"{KILLED}.NRestarts", "-1"))
CONTROLS.is_inconclusive(
    RESTART,
    put(f"{KILLED}.ActiveState", "activating"),
    put(f"{KILLED}.SubState", "auto-restart"),
    name="a machine so slow that it is about to come back after a minute",
)


@CONTROLS.control(RESTART)
def the_same_process_as_before(world: World) -> None:
    world[f"{KILLED}.MainPID"] = world[f"{SERVICE}.MainPID"]


def still_running(world: World) -> None:
    for place in (ENDED, LATER):
        world[f"{place}.ActiveState"], world[f"{place}.SubState"], world[f"{place}.MainPID"] = "active", "running", "314"


def came_again(world: World) -> None:
    still_running(world)
    world[f"{LATER}.NRestarts"] = "2"


CONTROLS.is_inconclusive(RESTART, still_running, name="a machine so slow that it has not ended after a minute")
CONTROLS.fails(RESTART, came_again, name="ended in order, it comes back")
CONTROLS.is_inconclusive(RESTART, put(ENDED, {}))

CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", ["fail"] * 6), name="a sixth start")
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", ["fail"] * 5000), name="it is started for ever")
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", ["fail"] * 4), name="given up after four starts")
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", ["fail"] * 6), put(f"{FAILING}.ActiveState", "activating"), name="and it goes on")
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", []))
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.starts", ["stay"] * 5))
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.ActiveState", "inactive"))
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.ActiveState", "inactive"))
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.starts", ["succeed"] * 3 + ["fail"] * 5), name="only systemd's own starts count")
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.starts", ["fail"] * 5), name="nothing was started by hand")
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.starts", ["succeed"] * 5), name="nothing failed")
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.starts", ["fail", "fail", "succeed", "succeed", "succeed"]))
CONTROLS.passes(GIVEN_UP, put(f"{BY_HAND}.starts", ["succeed"] + ["fail"] * 4), name="one start by hand")
CONTROLS.passes(GIVEN_UP, put(f"{BY_HAND}.starts", ["succeed"] * 4 + ["fail"]), name="four starts by hand")
CONTROLS.fails(GIVEN_UP, put(f"{SERVICE}.StartLimitIntervalUSec", "1min"))
CONTROLS.fails(GIVEN_UP, put(f"{SERVICE}.StartLimitBurst", "6"))
CONTROLS.fails(GIVEN_UP, put(f"{FAILING}.StartLimitBurst", "6"))
CONTROLS.fails(GIVEN_UP, put(f"{BY_HAND}.StartLimitBurst", "6"))
CONTROLS.is_inconclusive(GIVEN_UP, put(FAILING, {}))


def slow(world: World) -> None:
    world[f"{FAILING}.ActiveState"], world[f"{FAILING}.starts"] = "activating", ["fail"] * 3


CONTROLS.is_inconclusive(GIVEN_UP, slow, name="a machine so slow that it was started three times within a minute")
CONTROLS.is_inconclusive(GIVEN_UP, put(f"{FAILING}.ActiveState", "activating"), name="the fifth start is just over")
CONTROLS.is_inconclusive(GIVEN_UP, put(f"{BY_HAND}.ActiveState", "activating"))

CONTROLS.fails(AFTER, put(f"{SERVICE}.SubState", "dead"))
CONTROLS.fails(AFTER, put(f"{SERVICE}.Wants", "network.target"))
CONTROLS.fails(AFTER, put(f"{SERVICE}.Requires", "sysinit.target network.target"))
CONTROLS.fails(AFTER, put(f"{SERVICE}.After", "basic.target"))
CONTROLS.fails(AFTER, put("page_unit.alone.network.ActiveState", "failed"))
CONTROLS.is_not_observable(AFTER, put("page_unit.alone.network.ActiveState", "active"))
CONTROLS.is_inconclusive(AFTER, put(f"{TOGETHER}.network.ActiveEnterTimestampMonotonic", "0"))
CONTROLS.is_inconclusive(AFTER, put(f"{TOGETHER}.before.service", "active"), name="the service ran already")
CONTROLS.is_inconclusive(AFTER, put(f"{TOGETHER}.before.network", "active"))


def moments(slow_us: int, network_us: int, service_us: int) -> tuple[Callable[[World], None], ...]:
    return (
        put(f"{TOGETHER}.slow.ExecMainStartTimestampMonotonic", str(slow_us)),
        put(f"{TOGETHER}.network.ActiveEnterTimestampMonotonic", str(network_us)),
        put(f"{TOGETHER}.service.ExecMainStartTimestampMonotonic", str(service_us)),
    )


CONTROLS.passes(AFTER, *moments(1, 450_001, 450_001), name="at once after the network")
CONTROLS.fails(AFTER, *moments(1, 450_001, 450_000), name="just before the network")
CONTROLS.fails(AFTER, *moments(1, 449_000, 500_000), name="the network came too early")
CONTROLS.fails(AFTER, *moments(10_000_000, 10_100_000, 10_200_000), name="the network came too early, long after the boot")
CONTROLS.passes(AFTER, *moments(1, 90_000_000, 160_000_000), name="a machine that stalls")


@CONTROLS.control(AFTER)
def the_service_brought_the_network_along(world: World) -> None:
    world[f"{SERVICE}.Wants"], world["page_unit.alone.network.ActiveState"] = "network.target", "active"
    world[f"{TOGETHER}.before.network"] = "active"


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
