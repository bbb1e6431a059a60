"""The controls of the checks about what stops fork, and about who reaps zombies. See `test_checks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab.lab.controls import INCONCLUSIVE, Control, Controls, Sound, World, put

SOUND = Sound.of(__file__)
CONTROLS = Controls(SOUND)
HERE = ("checks_exhaustion", "checks_reaping")
NAMES = [name for name in SOUND.names if Path(SOUND.check(name).function.__code__.co_filename).stem in HERE]

# --- exhaustion -------------------------------------------------------------------------------------------------------------------

NAME = "enough_zombies_stop_fork_with_eagain"
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.errno", None))
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.errno", "ENOMEM"))
CONTROLS.fails(NAME, put("exhaustion.worlds.threads_max.zombies", 0))
CONTROLS.fails(NAME, put("exhaustion.worlds.threads_max.at_refusal.pids_max.usage", 39))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.living", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.living", -1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.refused_again", 2))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.world", "nproc"))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.room", 41))
CONTROLS.is_inconclusive(NAME, put("parameters.room", 41))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds", {}))
for name in ("forks", "zombies"):
    CONTROLS.fails(NAME, put(f"exhaustion.worlds.pids_max.{name}", -1))


def forked(count: int, attempts: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        one = world["exhaustion.worlds.threads_max"]
        one.update(forks=count, zombies=count, attempts=attempts)
        one["at_refusal"]["pids_max"]["usage"] = count + 1

    return change


CONTROLS.passes(NAME, forked(1, 80), name="one fork")
CONTROLS.fails(NAME, forked(0, 80), name="no fork")
CONTROLS.passes(NAME, forked(79, 80), name="one fork less than it would have tried")
CONTROLS.fails(NAME, forked(80, 80), name="as many forks as it would have tried")

NAME = "the_limit_that_bound_is_named"
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.usage", 39))
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.capabilities.uid", 0))
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.capabilities.sys_admin", True))
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.capabilities.sys_resource", True))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 0))
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.at_refusal.pids_max.refusals", 4))
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.at_refusal.pids_max.refusals", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 1))
CONTROLS.passes(
    NAME,
    put("exhaustion.worlds.pids_max.set_to.pids_max.refusals", 3),
    put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 7),
    name="refusals that were counted before",
)
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 3))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 999))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.usage", 4000))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.usage", 41))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.set_to.pids_max.limit", 41))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.set_to.pids_max.usage", 2))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.nproc.at_refusal.threads_max.limit", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.threads_max.forks", 3))


def used(name: str, less: int, came: int = 0) -> Callable[[World], None]:
    """At the refusal so many fewer were in use than the limit of the whole system, and there had been room for so many more forks."""

    def change(world: World) -> None:
        one = world[f"exhaustion.worlds.{name}"]
        now = one["at_refusal"][name]
        now["usage"] = now["limit"] - less
        one["set_to"][name].update(limit=now["limit"], usage=now["limit"] - one["forks"] - came)

    return change


for name in ("pid_max", "threads_max"):
    for near in (-5, 5):
        CONTROLS.passes(NAME, used(name, near), name=f"{name}: {near} from full")
        CONTROLS.passes(NAME, used(name, 0, near), name=f"{name}: room for {near} more")
    for far in (-6, 6):
        CONTROLS.is_inconclusive(NAME, used(name, far), name=f"{name}: {far} from full")
        CONTROLS.is_inconclusive(NAME, used(name, 0, far), name=f"{name}: room for {far} more")


@CONTROLS.control(NAME)
def it_was_another_limit(world: World) -> None:
    worlds = world["exhaustion"]["worlds"]
    worlds["pid_max"] = {**worlds["threads_max"], "world": "pid_max"}


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def two_limits_are_full(world: World) -> None:
    world["exhaustion.worlds.pids_max.at_refusal.nproc"].update(limit=5, usage=5)
    world["exhaustion.worlds.pids_max.capabilities"].update(uid=1000, sys_admin=False, sys_resource=False)


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def a_limit_of_none_is_full(world: World) -> None:
    """A limit of 0 is one: the only one that is none is -1."""
    world["exhaustion.worlds.nproc.at_refusal.pids_max"].update(limit=0, usage=0)


NAME = "the_kernel_says_so_on_the_console"
CONTROLS.is_inconclusive(NAME, put("exhaustion.console", None))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.cgroup", "/vmlab-x"), put("exhaustion.worlds.nproc.cgroup", "/vmlab-x"))
CONTROLS.fails(NAME, put("exhaustion.console", "[ 1.0] cgroup: fork rejected by pids controller in /system.slice/ssh.service"))
CONTROLS.fails(NAME, put("exhaustion.guest_panicked", True))
CONTROLS.fails(NAME, put("exhaustion.guest_status", "paused"))

NAME = "forks_work_again_after_reaping"
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.recovery.statuses", {}))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.recovery.statuses", {"1792": 38}))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.recovery.statuses", {"1792": 39, "9": 1}))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pid_max.recovery.worked", 3), name="fewer worked, and no error")
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pid_max.recovery.errno", "EAGAIN"), name="an error, and all worked")
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.threads_max.system_after.threads_max", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.threads_max.system_after.pid_max", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.after_reaping.pids_max.limit", -1))


def second_try(worked: int, room: int, error: str | None = "EAGAIN") -> Callable[[World], None]:
    def change(world: World) -> None:
        one = world["exhaustion.worlds.pid_max"]
        one["recovery"].update(worked=worked, errno=error)
        one["after_reaping"]["pid_max"]["usage"] = one["after_reaping"]["pid_max"]["limit"] - room

    return change


CONTROLS.passes(NAME, second_try(10, 5, error=None), name="all worked one after the other, and there was room for five")
CONTROLS.fails(NAME, second_try(9, 10), name="nine worked, and there was room for ten")
CONTROLS.is_inconclusive(NAME, second_try(9, 9), name="nine worked, and there was room for nine")


def all_worked(asked: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        world["exhaustion.worlds.pid_max.recovery"].update(asked=asked, worked=asked)

    return change


CONTROLS.passes(NAME, all_worked(1), name="one fork asked for")
CONTROLS.is_inconclusive(NAME, all_worked(0), name="no fork asked for")


@CONTROLS.control(NAME)
def there_is_room_for_one_and_one_is_asked_for(world: World) -> None:
    second_try(0, 1)(world)
    world["exhaustion.worlds.pid_max.recovery"]["asked"] = 1


# --- who reaps --------------------------------------------------------------------------------------------------------------------

NAME = "killing_the_parent_clears_its_zombies"
CONTROLS.fails(NAME, put("orphans.parent_killed", False))
CONTROLS.fails(NAME, put("orphans.living_child[0].ppid", 77))
CONTROLS.fails(NAME, put("orphans.new_parent", 77))
CONTROLS.is_inconclusive(NAME, put("orphans.left", 4))
CONTROLS.is_inconclusive(NAME, put("orphans.looks[-1].left", 4))
CONTROLS.is_inconclusive(NAME, put("orphans.looked", 0))
CONTROLS.is_inconclusive(NAME, put("orphans.looks[0].with_parent_1", 31))
CONTROLS.passes(NAME, put("orphans.looks[0].with_parent_1", 0))
CONTROLS.is_inconclusive(NAME, put("orphans.looks[0].elapsed_s", 1e6))
CONTROLS.is_inconclusive(NAME, put("orphans.zombies_before", 29))
CONTROLS.is_inconclusive(NAME, put("orphans.living_before", 2))
CONTROLS.is_inconclusive(NAME, put("parameters.orphans", 31))
CONTROLS.is_inconclusive(NAME, put("orphans.living_child_left", 1))
CONTROLS.is_inconclusive(NAME, put("orphans.living_child[0].state", "Z"))
CONTROLS.is_inconclusive(NAME, put("orphans.init.faults_of_the_zombies", 29))
CONTROLS.is_inconclusive(NAME, put("orphans.clear_after_s", None))
CONTROLS.is_inconclusive(NAME, put("orphans.clear_after_s", -0.1))
CONTROLS.is_inconclusive(NAME, put("orphans.clear_after_s", 2.51))
CONTROLS.passes(NAME, put("orphans.clear_after_s", 2.5))
CONTROLS.passes(NAME, put("orphans.clear_after_s", 0))
for other in ("R", "D"):
    CONTROLS.passes(NAME, put("orphans.living_child[0].state", other))
CONTROLS.passes(NAME, put("orphans.living_child", [{"ppid": 1, "state": state} for state in "SRD"]), name="three living children")


def left_after(elapsed_s: float, looked: int, left: int = 30) -> Callable[[World], None]:
    """Zombies that nobody reaped in that time."""

    def change(world: World) -> None:
        world["orphans"].update(left=left, looked=looked, clear_after_s=None, new_parent=77)
        world["orphans"]["looks"] = [{"elapsed_s": elapsed, "left": left, "with_parent_1": 0} for elapsed in (0.0, elapsed_s)]

    return change


CONTROLS.fails(NAME, left_after(2.5, 20), name="all are left")
CONTROLS.is_inconclusive(NAME, left_after(2.4, 20), name="all are left, and not watched for long")
CONTROLS.is_inconclusive(NAME, left_after(2.5, 19), name="all are left, and seldom looked at")
CONTROLS.is_inconclusive(NAME, left_after(60, 999, left=29), name="one is reaped: PID 1 is at it")
CONTROLS.is_inconclusive(NAME, left_after(60, 999, left=1), name="one is left: PID 1 is at it")


def faults(taken: int) -> Callable[[World], None]:
    """PID 1 has taken over so many page faults more than the zombies had."""

    def change(world: World) -> None:
        init = world["orphans.init"]
        init["faults_of_reaped_children_before"] += 1
        init["faults_of_reaped_children_after"] = init["faults_of_reaped_children_before"] + init["faults_of_the_zombies"] + taken

    return change


CONTROLS.passes(NAME, faults(0), name="the page faults of the zombies")
CONTROLS.fails(NAME, faults(-1), name="a page fault less than those of the zombies")


@CONTROLS.control(NAME)
def pid_1_did_not_wait_for_them(world: World) -> None:
    init = world["orphans"]["init"]
    init["faults_of_reaped_children_after"] = init["faults_of_reaped_children_before"]


NAME = "a_pid_1_that_does_not_reap_keeps_them"
CONTROLS.fails(NAME, put("namespaces.abandoned.samples[1].zombies", 0))
CONTROLS.fails(NAME, put("namespaces.abandoned.samples[1].zombies", 15))
CONTROLS.fails(NAME, put("namespaces.abandoned.samples[1].zombies", 17))
CONTROLS.fails(NAME, put("namespaces.never.zombies_at_end", 15))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.pid_inside", 40))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.adopted_alive", 0))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.samples[0].elapsed_s", 1e6))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.samples[0].living", -1))


def no_parent_before(world: World) -> None:
    """Fifteen of which nobody tells that their own parent is a zombie too."""
    never = world["namespaces.never"]
    never.update(zombies_before=0, zombies_at_end=15)
    for sample in never["samples"]:
        sample["zombies"] = 15


CONTROLS.fails(NAME, no_parent_before)
CONTROLS.fails(NAME, put("namespaces.never.zombies_before", 0))
CONTROLS.fails(NAME, put("namespaces.abandoned.zombies_before", 2))


def watched(patience: float, *samples: tuple[float, int]) -> Callable[[World], None]:
    """Samples at these times, in which so many still live, in a run of this patience."""

    def change(world: World) -> None:
        world.parameters["patience_s"] = patience
        for name in ("never", "abandoned"):
            world[f"namespaces.{name}"]["samples"] = [
                {"elapsed_s": elapsed, "zombies": 16 - living, "living": living} for elapsed, living in samples
            ]

    return change


CONTROLS.passes(NAME, watched(1, (0, 0), (0.5, 0), (1, 0)), name="watched for as long as was asked for")
CONTROLS.is_inconclusive(NAME, watched(1, (0, 0), (0.5, 0), (0.99, 0)), name="watched for less")
CONTROLS.passes(NAME, watched(1, (0, 9), (3, 0), (4, 0)), name="some took three seconds to exit")
CONTROLS.is_inconclusive(NAME, watched(1, (0, 9), (3, 0), (3.9, 0)), name="some took three seconds, and were not watched for long")
CONTROLS.is_inconclusive(NAME, watched(1, (0, 9), (3, 9), (60, 1)), name="some never got to exit")
CONTROLS.is_inconclusive(NAME, watched(1, (0, 0)), name="one count")


@CONTROLS.control(NAME)
def the_pid_1_reaps(world: World) -> None:
    world["namespaces"]["never"] = world["namespaces"]["reaps"]


NAME = "reaping_or_the_end_of_pid_1_clears_them"
CONTROLS.is_inconclusive(NAME, put("namespaces.never.left", 2))
CONTROLS.is_inconclusive(NAME, put("namespaces.abandoned.left", 2))
CONTROLS.is_inconclusive(NAME, put("namespaces.abandoned.init_alive", True))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.init_alive", False))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.init_alive", False))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.ended_by", "kill"))
CONTROLS.is_inconclusive(NAME, put("namespaces.abandoned.ended_by", "reaping"))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.ended_by", "reaping"))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.adopted_alive", 0))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.pid_inside", 7))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.samples[-1].zombies", 1))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.samples[-1].living", 1))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.samples[-1].living", -1))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.samples[0].elapsed_s", 1e6))
CONTROLS.is_inconclusive(NAME, put("parameters.patience_s", 60))
for name in ("never", "abandoned"):
    CONTROLS.is_inconclusive(NAME, put(f"namespaces.{name}.clear_after_s", 2.51))
    CONTROLS.is_inconclusive(NAME, put(f"namespaces.{name}.clear_after_s", -1))
    CONTROLS.passes(NAME, put(f"namespaces.{name}.clear_after_s", 2.5))
    CONTROLS.passes(NAME, put(f"namespaces.{name}.clear_after_s", 0))


def stayed(name: str, looks: int, left: int = 16, of: int = 16) -> Callable[[World], None]:
    """So many that did not go, and how often it was looked whether they had."""

    def change(world: World) -> None:
        world[f"namespaces.{name}"].update(left=left, zombies_at_end=of, looks_at_end=looks)

    return change


for name in ("never", "abandoned", "reaps"):
    CONTROLS.fails(NAME, stayed(name, 20), name=f"all stayed in {name}")
    CONTROLS.is_inconclusive(NAME, stayed(name, 19), name=f"all stayed in {name}, seldom looked at")
    CONTROLS.is_inconclusive(NAME, stayed(name, 999, left=15), name=f"one went in {name}")
    CONTROLS.is_inconclusive(NAME, stayed(name, 999, left=1), name=f"one stayed in {name}")


CONTROLS.passes(NAME, stayed("reaps", 500, left=0, of=0), name="it took long to look for none")
for name in ("never", "abandoned", "reaps"):
    CONTROLS.fails(NAME, stayed(name, 20, left=1, of=1), name=f"the only one stayed in {name}")
CONTROLS.passes(NAME, put("namespaces.reaps.samples", [{"elapsed_s": 2.5, "zombies": 0, "living": 0}]), name="watched for as long")
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.samples", [{"elapsed_s": 2.49, "zombies": 0, "living": 0}]), name="watched for less")


@CONTROLS.control(NAME)
def no_pid_1_reaps(world: World) -> None:
    stayed("reaps", 500)(world)
    world["namespaces"]["reaps"]["samples"] = world["namespaces"]["never"]["samples"]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", NAMES)
def test_every_check_is_seen_to_fail(check: str) -> None:
    CONTROLS.prove(check)
