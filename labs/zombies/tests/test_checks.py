"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one: one zombie, and many.

The controls start from the sound set and break one thing in it: another world put in its place, numbers forged, observations cut.
`test_checks_system.py` and `test_checks_reaping.py` have those of the other checks, `test_scripts.py` controls from the guest scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, Sound, World, add, drop, put

SOUND = Sound.of(__file__)
CONTROLS = Controls(SOUND)
HERE = ("checks", "checks_parents")
ELSEWHERE = ("checks_cost", "checks_limits", "checks_exhaustion", "checks_reaping")
FILES = {name: Path(SOUND.check(name).function.__code__.co_filename).stem for name in SOUND.names}
NAMES = [name for name in SOUND.names if FILES[name] in HERE]


def test_every_check_passes_on_the_sound_set() -> None:
    assert set(SOUND.verdicts().values()) == {PASS}


def test_all_claims_are_covered_and_the_points_are_twenty() -> None:
    checks = SOUND.checks.values()
    assert {check.claim for check in checks} == set(SOUND.lab.definition.claims) == {f"Z{i}" for i in range(1, 9)}
    assert sum(check.points for check in checks) == 20


def test_each_check_has_its_controls_in_one_of_three_files() -> None:
    assert set(FILES.values()) == {*HERE, *ELSEWHERE}


# --- one zombie -------------------------------------------------------------------------------------------------------------------

NAME = "an_unwaited_child_is_a_zombie"
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.state", "S"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.exit_code", 9))
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.starttime", 1))
CONTROLS.fails(NAME, put("anatomy.child.zombie.exists", False))
CONTROLS.fails(NAME, put("anatomy.child.reaped.exists", True))
CONTROLS.fails(NAME, put("anatomy.child.reaped.files.maps.errno", "EACCES"))
CONTROLS.fails(NAME, put("anatomy.child.kill_after_reaping", None))
CONTROLS.passes(NAME, put("anatomy.child.reaped.files.maps.errno", "ESRCH"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.stat.state", "Z"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.pid", 1))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.parent", 1))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.reaped.files", {}))


def files_of_the_reaped(count: int) -> Callable[[World], None]:
    def cut(world: World) -> None:
        files = world["anatomy.child.reaped.files"]
        world["anatomy.child.reaped.files"] = dict(list(files.items())[:count])

    return cut


CONTROLS.passes(NAME, files_of_the_reaped(20), name="twenty files")
CONTROLS.is_inconclusive(NAME, files_of_the_reaped(19), name="nineteen files")


@CONTROLS.control(NAME)
def sigchld_ignored_in_anatomy(world: World) -> None:
    world["anatomy.child.zombie"] = world["anatomy.child.reaped"]


NAME = "its_status_can_be_read_without_reaping"
CONTROLS.fails(NAME, put("anatomy.child.peek.status", 8))
CONTROLS.fails(NAME, put("anatomy.child.peek_again.code", "killed"))
CONTROLS.fails(NAME, put("anatomy.child.reaping.raw_status", 9))
CONTROLS.fails(NAME, put("anatomy.child.reaping.errno", "ECHILD"))
CONTROLS.fails(NAME, put("anatomy.child.peek_after_reaping.errno", "EPERM"))
CONTROLS.fails(NAME, put("anatomy.child.after_sigkill.stat.state", "X"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.peek.code", None))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.peek.errno", "ECHILD"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.peek_again.errno", "ECHILD"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.kill.errno", "EPERM"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.kill.signal", 15))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.reaping.pid", 1))

NAME = "a_zombie_has_no_user_memory_and_no_files"
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.rss", 12))
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.vsize", 12))
CONTROLS.fails(NAME, add("anatomy.child.zombie.status.VmRSS", "48 kB"))
CONTROLS.fails(NAME, add("anatomy.child.zombie.status.RssAnon", "48 kB"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.FDSize", "64"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.Uid", "1\t1\t1\t1"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.maps.size", 800))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.smaps.size", 1))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.exe.errno", None))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.root.errno", "EACCES"))
CONTROLS.passes(NAME, put("anatomy.child.alive.stat.rss", 1))
CONTROLS.passes(NAME, put("anatomy.child.alive.stat.vsize", 1))
CONTROLS.passes(NAME, put("anatomy.child.alive.files.fd.size", 1))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.stat.rss", 0))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.stat.vsize", 0))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.files.fd.size", 0))
CONTROLS.is_inconclusive(NAME, drop("anatomy.child.alive.status.VmRSS"))

NAME = "a_zombie_is_shown_as_Z"
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.state", "S"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.State", "S (sleeping)"))
CONTROLS.fails(NAME, put("anatomy.child.ps", {"line": "S    python3 anatomy.py"}))
CONTROLS.fails(NAME, put("anatomy.child.ps", {"line": "Z    python3 anatomy.py"}))
CONTROLS.fails(NAME, put("anatomy.child.ps", {"line": "S    [python3] <defunct>"}))
CONTROLS.passes(NAME, put("anatomy.child.ps", None), name="a system without ps")

NAME = "not_every_Z_is_a_zombie"
CONTROLS.fails(NAME, put("anatomy.leader.reapable", True))
CONTROLS.fails(NAME, put("anatomy.leader.threads[0].state", "S"))
CONTROLS.fails(NAME, put("anatomy.leader.raw_status_at_last", 0))
CONTROLS.fails(NAME, *(put(f"anatomy.leader.{key}", value) for key, value in (("state", "S"), ("looks", 100))), name="it never showed Z")
for other in ("Z", "", "SR", "X"):
    CONTROLS.fails(NAME, put("anatomy.leader.threads[1].state", other))
for other in ("R", "D"):
    CONTROLS.passes(NAME, put("anatomy.leader.threads[1].state", other))
CONTROLS.is_not_observable(NAME, put("anatomy.leader", {"observable": False, "why": "the number of the system call is not known"}))
CONTROLS.is_inconclusive(NAME, put("anatomy.leader.num_threads", 3))
CONTROLS.is_inconclusive(
    NAME, *(put(f"anatomy.leader.{key}", value) for key, value in (("state", "S"), ("looks", 99))), name="the guest stood still"
)

# --- many zombies -----------------------------------------------------------------------------------------------------------------

NAME = "zombies_accumulate_one_a_fork"
CONTROLS.fails(NAME, put("accumulation.samples[3].zombies", 5))
CONTROLS.fails(NAME, put("accumulation.samples[3].living", 60))
CONTROLS.fails(NAME, put("accumulation.parent", "reap"))
CONTROLS.is_inconclusive(NAME, put("accumulation.at_end", 3))
CONTROLS.is_inconclusive(NAME, put("accumulation.peak", 10_000))
CONTROLS.is_inconclusive(NAME, put("accumulation.forked", 7))
CONTROLS.is_inconclusive(NAME, put("accumulation.rate", 7))
CONTROLS.is_inconclusive(NAME, put("parameters.rate", 7))
CONTROLS.is_inconclusive(NAME, put("accumulation.samples[2].elapsed_s", 1e6))
CONTROLS.is_inconclusive(NAME, put("accumulation.samples[2].forked_before", 100))


@CONTROLS.control(NAME)
def the_parent_reaps_and_says_so(world: World) -> None:
    world["accumulation"] = world["reaping"]


@CONTROLS.control(NAME)
def the_parent_reaps_and_hides_it(world: World) -> None:
    world["accumulation"] = {**world["reaping"], "parent": "never"}


@CONTROLS.control(NAME)
def the_parent_ignores_sigchld(world: World) -> None:
    world["accumulation"] = {**world["ignored"], "parent": "never"}
    world.parameters["zombies"] = world.parameters["ignored"]


@CONTROLS.control(NAME)
def twice_as_many_zombies(world: World) -> None:
    for sample in world["accumulation"]["samples"]:
        sample["zombies"] *= 2
    world["accumulation"].update(peak=200, at_end=200)


@CONTROLS.control(NAME)
def one_zombie_too_few_in_the_end(world: World) -> None:
    """A guest that says of its last look that the parent was still at it."""
    for sample in world["accumulation.samples"]:
        sample.update(zombies=min(sample["zombies"], 99), forked_before=min(sample["forked_before"], 99))
    world["accumulation"].update(peak=99, at_end=99)


def numbered(observation: str, look: tuple[int, int, int, int], count: int, ends: bool = True) -> Callable[[World], None]:
    """Looks of a parent while it forked: `count` of them, each with so many forks before and after, zombies and living children."""

    def change(world: World) -> None:
        seen = world[observation]
        last = seen["samples"][-1]
        before, after, zombies, living = look
        names = ("forked_before", "forked_after", "zombies", "living")
        rows = [dict(zip(names, (before + i, after + i, zombies + i * (zombies > 0), living), strict=True)) for i in range(count)]
        reaped = [{"reaped_before": 0, "reaped_after": 0} for _ in rows]
        seen["samples"] = [{"elapsed_s": 0.1 * i, **reaped[i], **row} for i, row in enumerate(rows)]
        seen["samples"] += [{**last, "elapsed_s": 99.0}] if ends else []
        seen["peak"] = max(each["zombies"] for each in seen["samples"])

    return change


def looks(before: int, after: int, zombies: int, living: int, count: int) -> Callable[[World], None]:
    return numbered("accumulation", (before, after, zombies, living), count)


CONTROLS.passes(NAME, looks(1, 1, 1, 0, 5), name="five looks")
CONTROLS.is_inconclusive(NAME, looks(1, 1, 1, 0, 4), name="four looks")
CONTROLS.is_inconclusive(NAME, looks(0, 1, 1, 0, 5), name="five looks, one of them before the first fork")
CONTROLS.passes(NAME, looks(95, 95, 95, 0, 5), name="five looks before the last fork")
CONTROLS.is_inconclusive(NAME, looks(96, 96, 96, 0, 5), name="five looks, one of them after the last fork")
CONTROLS.passes(NAME, looks(40, 50, 40, 10, 5), name="a tenth came and lived meanwhile")
CONTROLS.is_inconclusive(NAME, looks(40, 51, 40, 0, 5), name="more than a tenth came meanwhile")
CONTROLS.is_inconclusive(NAME, looks(40, 51, 40, 11, 5), name="more than a tenth lived meanwhile")


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def five_looks_at_one_moment(world: World) -> None:
    looks(40, 40, 40, 0, 5)(world)
    for sample in world["accumulation.samples"][:5]:
        sample.update(forked_before=40, forked_after=40, zombies=40)


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def some_children_do_not_get_to_exit(world: World) -> None:
    """The audit's case, on a host with four busy loops: 12 zombies and 38 living."""
    world["accumulation.samples[-1]"].update(zombies=12, living=88)
    world["accumulation"].update(at_end=12)
    looks(12, 50, 12, 38, 6)(world)


NAME = "sigkill_removes_none"
CONTROLS.fails(NAME, put("accumulation.sigkill.left", 0), put("accumulation.sigkill.left_percent", 0.0), name="none is left")
CONTROLS.fails(NAME, put("accumulation.sigkill.left", 99), put("accumulation.sigkill.left_percent", 99.0), name="one is not left")
CONTROLS.fails(NAME, put("accumulation.sigkill.same_process", 99))
CONTROLS.fails(NAME, put("accumulation.after_reaping.statuses", {"9": 100}))
CONTROLS.fails(NAME, put("accumulation.after_reaping.statuses", {"1792": 99}))
CONTROLS.fails(NAME, put("accumulation.after_reaping.statuses", {"1792": 100, "9": 1}))
CONTROLS.fails(NAME, put("accumulation.after_reaping.found", 1))
CONTROLS.fails(NAME, put("accumulation.after_reaping.zombies_met", 99))
CONTROLS.fails(NAME, put("accumulation.after_reaping.kernel_says_children_left", True))
CONTROLS.fails(NAME, put("anatomy.child.after_sigkill.stat.exit_code", 9))
CONTROLS.fails(NAME, put("anatomy.child.after_sigkill.stat.state", "X"))
CONTROLS.is_inconclusive(NAME, put("accumulation.sigkill.accepted", 0))
CONTROLS.is_inconclusive(NAME, put("accumulation.sigkill.sent_to", 99))
CONTROLS.is_inconclusive(NAME, put("accumulation.sigkill.left_percent", 99.9))
CONTROLS.is_inconclusive(
    NAME, *(put(f"accumulation.sigkill.{key}", 99) for key in ("sent_to", "accepted", "left")), name="one was not killed"
)
CONTROLS.passes(NAME, put("accumulation.after_reaping.statuses", {"1792": 100, "9": 0}))
CONTROLS.is_inconclusive(NAME, put("accumulation.after_reaping.statuses", {"1792": 100, "9": -1}))


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def nobody_was_killed(world: World) -> None:
    world["accumulation"]["forked"] = 0
    world["accumulation.sigkill"].update(sent_to=0, accepted=0, left=0, same_process=0)


@CONTROLS.control(NAME)
def one_of_600_went(world: World) -> None:
    """The share has one digit after the point."""
    world["accumulation"]["forked"] = 600
    world["accumulation.sigkill"].update(sent_to=600, accepted=600, left=599, left_percent=99.8)


NAME = "a_parent_that_reaps_has_none_left"
CONTROLS.fails(NAME, put("reaping.after_reaping.statuses", {}))
CONTROLS.fails(NAME, put("reaping.after_reaping.statuses", {"1792": 99}))
CONTROLS.fails(NAME, put("reaping.after_reaping.statuses", {"1792": 100, "9": 1}))
CONTROLS.fails(NAME, put("reaping.after_reaping.zombies_met", 99))
CONTROLS.fails(NAME, put("reaping.after_reaping.found", 1))
CONTROLS.fails(NAME, put("reaping.after_reaping.kernel_says_children_left", True))
CONTROLS.fails(NAME, put("reaping.samples[-1].reaped_before", 99), name="the last child was not reaped")
CONTROLS.is_inconclusive(NAME, put("reaping.parent", "never"))
CONTROLS.is_inconclusive(NAME, put("reaping.rate", 0.1))
CONTROLS.is_inconclusive(NAME, put("accumulation.forked", 101))
CONTROLS.is_inconclusive(NAME, put("reaping.samples", []))
CONTROLS.is_inconclusive(NAME, put("reaping.samples[2].reaped_before", -1))
CONTROLS.is_inconclusive(NAME, put("reaping.samples[2].elapsed_s", 1e6))


@CONTROLS.control(NAME)
def zombies_left_at_the_end(world: World) -> None:
    world["reaping.samples[-1]"].update(zombies=5, reaped_before=95, reaped_after=95)
    world["reaping"].update(at_end=5, peak=max(5, world["reaping.peak"]))


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def the_parent_never_waits_and_hides_it(world: World) -> None:
    """The zombies found contradict what the parent claims to have reaped."""
    waits, never = world["reaping"], world["accumulation"]
    for mine, other in zip(waits["samples"], never["samples"], strict=False):
        mine["zombies"] = other["zombies"]


@CONTROLS.control(NAME)
def the_parent_never_waits(world: World) -> None:
    world["reaping"] = {**world["accumulation"], "parent": "reap"}


def reaping(zombies: int, behind: int, count: int = 5, living: int = 0, late_s: float = 0.0) -> Callable[[World], None]:
    """Looks at the reaping parent while it forked: so many zombies, and so many children that it had not reaped yet."""

    def change(world: World) -> None:
        numbered("reaping", (40, 50, zombies, living), count)(world)
        for i, sample in enumerate(world["reaping.samples"][:count]):
            sample.update(zombies=zombies, reaped_before=40 + i - behind, reaped_after=40 + i)
        world["reaping"].update(peak=zombies, late_s=late_s, forking_s=1.0)

    return change


CONTROLS.passes(NAME, reaping(zombies=5, behind=5), name="a twentieth at a time")
CONTROLS.fails(NAME, reaping(zombies=6, behind=6), name="more than a twentieth at a time")
CONTROLS.fails(NAME, reaping(zombies=6, behind=6, late_s=0.05), name="more than a twentieth, and hardly held up")
CONTROLS.is_inconclusive(NAME, reaping(zombies=6, behind=6, late_s=0.051), name="more than a twentieth, and held up")
CONTROLS.is_inconclusive(NAME, reaping(zombies=24, behind=30, late_s=0.3), name="the audit's case beside two busy loops")
CONTROLS.passes(NAME, reaping(zombies=1, behind=5, late_s=0.9), name="held up, and no zombies gathered")
CONTROLS.is_inconclusive(NAME, reaping(zombies=1, behind=5, count=4), name="four looks")
CONTROLS.is_inconclusive(NAME, reaping(zombies=5, behind=-6), name="more children than were made and not reaped")
CONTROLS.passes(NAME, reaping(zombies=1, behind=5, living=9), name="as many children as were made and not reaped, most of them alive")
CONTROLS.is_inconclusive(NAME, reaping(zombies=1, behind=5, living=15), name="more living children than were made and not reaped")


def unmade(least: int) -> Callable[[World], None]:
    """Looks that find fewer children than the parent had made and not reaped."""

    def change(world: World) -> None:
        reaping(zombies=0, behind=5)(world)
        for sample in world["reaping.samples"][:5]:
            sample["reaped_after"] = sample["forked_before"] - least

    return change


CONTROLS.passes(NAME, unmade(1), name="one child is gone and not counted as reaped")
CONTROLS.is_inconclusive(NAME, unmade(2), name="two children are gone that nobody reaped")


@CONTROLS.control(NAME)
def zombies_gather_and_no_time_passed(world: World) -> None:
    reaping(zombies=6, behind=6)(world)
    world["reaping"].update(late_s=0.0, forking_s=0.001)


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def zombies_gather_and_the_time_is_not_known(world: World) -> None:
    reaping(zombies=6, behind=6)(world)
    world["reaping"].update(late_s=0.0, forking_s=0)


def few(count: int, zombies: int) -> Callable[[World], None]:
    """As few forks as the lab allows, of which so many are zombies at a time."""

    def change(world: World) -> None:
        for name in ("accumulation", "reaping"):
            world[name]["forked"] = 40
        last = {**world["reaping.samples[-1]"], "forked_before": 40, "forked_after": 40, "reaped_before": 40, "reaped_after": 40}
        row = {"forked_after": 20, "zombies": zombies, "living": 0, "reaped_before": 10, "reaped_after": 20}
        rows = [{"elapsed_s": 0.1 * i, "forked_before": 14 + i, **row} for i in range(count)]
        world["reaping"].update(samples=[*rows, {**last, "elapsed_s": 9.0}], peak=zombies, late_s=0.0)
        world["reaping.after_reaping"].update(statuses={"1792": 40}, zombies_met=40)

    return change


CONTROLS.passes(NAME, few(5, zombies=3), name="three of forty at a time")
CONTROLS.fails(NAME, few(5, zombies=4), name="four of forty at a time")

NAME = "a_parent_that_ignores_sigchld_has_no_zombies"
CONTROLS.fails(NAME, put("ignored.samples[2].zombies", 1), put("ignored.peak", 1), name="one zombie")
CONTROLS.fails(NAME, put("ignored.after_reaping.kernel_says_children_left", True))
CONTROLS.fails(NAME, put("ignored.after_reaping.found", 1))
CONTROLS.fails(NAME, put("ignored.after_reaping.zombies_met", 1))
CONTROLS.fails(NAME, put("ignored.after_reaping.statuses", {"1792": 1}))
CONTROLS.fails(NAME, put("ignored.after_reaping.statuses", {"9": 1}))
CONTROLS.fails(NAME, put("ignored.samples[-1].reaped_after", 9))
CONTROLS.is_inconclusive(NAME, put("ignored.samples[-1].living", 1))
CONTROLS.is_inconclusive(NAME, put("ignored.samples[0].living", 60))
CONTROLS.is_inconclusive(NAME, put("ignored.peak", 1))
CONTROLS.is_inconclusive(NAME, put("ignored.parent", "never"))
CONTROLS.is_inconclusive(NAME, put("ignored.rate", 1))
CONTROLS.is_inconclusive(NAME, put("parameters.ignored", 61))
CONTROLS.is_inconclusive(NAME, numbered("ignored", (10, 10, 0, 0), 4), name="four looks")
CONTROLS.passes(NAME, numbered("ignored", (10, 10, 0, 0), 5), name="five looks")
CONTROLS.passes(NAME, numbered("ignored", (10, 10, 0, 1), 5), name="some live")


@CONTROLS.control(NAME)
def it_does_not_ignore_it(world: World) -> None:
    world["ignored"] = {**world["accumulation"], "parent": "ignore", "cpus": 1}
    world.parameters["ignored"] = world.parameters["zombies"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def all_looks_come_before_the_first_fork(world: World) -> None:
    """No zombie of no child: that shows nothing."""
    for sample in world["ignored.samples"][:-1]:
        sample.update(forked_before=0, forked_after=0, living=0)


def met_by_chance(cpus: int, count: int, zombies: int = 1, of: int = 20) -> Callable[[World], None]:
    """So many of the looks meet zombies, in a guest with so many CPUs, where the kernel's own moment can be seen. (Made, not measured.)"""

    def change(world: World) -> None:
        numbered("ignored", (10, 12, 0, 0), of - 1)(world)
        for sample in world["ignored.samples"][:count]:
            sample["zombies"] = zombies
        world["ignored"].update(cpus=cpus, peak=zombies)

    return change


CONTROLS.fails(NAME, met_by_chance(1, 1), name="one look of twenty meets one, with one CPU")
CONTROLS.passes(NAME, met_by_chance(2, 2), name="two looks of twenty meet one, with two CPUs")
CONTROLS.passes(NAME, met_by_chance(64, 2), name="two looks of twenty meet one, with 64 CPUs")
CONTROLS.fails(NAME, met_by_chance(4, 3), name="three looks of twenty meet one, with four CPUs")
CONTROLS.fails(NAME, met_by_chance(4, 2, of=19), name="two looks of nineteen meet one, with four CPUs")
CONTROLS.fails(NAME, met_by_chance(4, 1, zombies=2), name="one look meets two, with four CPUs")
CONTROLS.is_inconclusive(NAME, met_by_chance(0, 1), name="no CPU")


@CONTROLS.control(NAME)
def one_is_left_with_four_cpus(world: World) -> None:
    met_by_chance(4, 0)(world)
    world["ignored.samples[-1]"]["zombies"] = 1
    world["ignored"].update(peak=1, at_end=1)


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", NAMES)
def test_every_check_is_seen_to_fail(check: str) -> None:
    CONTROLS.prove(check)


def test_an_unsteady_machine_does_not_cost_a_point() -> None:
    """Under emulation on a busy host the forks come when they can: however long one takes, the count is still one a fork."""

    def bent(world: World) -> None:
        for i, sample in enumerate(world["accumulation.samples"]):
            sample["elapsed_s"] = 1.5**i

    assert SOUND.verdict("zombies_accumulate_one_a_fork", bent).kind is PASS
