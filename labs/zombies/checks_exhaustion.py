"""What stops fork when zombies have used up the room, how one can tell which limit it was, and what it takes to go on."""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

from . import reading

WORLDS = ("pids_max", "nproc", "pid_max", "threads_max")

REFUSALS = 3
"""After the first refusal, fork is tried so many times more."""


@check(points=1, claim="Z7")
def enough_zombies_stop_fork_with_eagain(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """Enough zombies make fork fail, with EAGAIN, whichever of the four limits it is.

    In each of four worlds one limit was low. Nothing but zombies took the room: as many were found as forks had worked, and the kernel
    counts so many, and the process that forked, in their control group.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        forks, zombies, living = (world.integer(key) for key in ("forks", "zombies", "living"))
        if world.integer("room") != evidence.parameters.integer("room"):
            return inconclusive(f"In the world of {name} another room was left than was asked for.", measured=f"{world.integer('room')}")
        error = reading.text_or_none(world)
        if error is None:
            return failed(
                f"In the world of {name} no fork was refused.",
                expected="EAGAIN",
                measured=f"{forks} forks, all of which worked",
                hint="is the limit lower than the number of forks attempted?",
            )
        told.append(f"{name}: {error} after {forks} forks, {zombies} zombies")
        if error != "EAGAIN":
            return failed(
                f"In the world of {name} fork failed in another way.",
                expected="EAGAIN",
                measured=told[-1],
                hint="what else does the guest lack? ENOMEM is a lack of memory: see exhaustion.worlds, and the console",
            )
        if world.integer("refused_again") != REFUSALS:
            return inconclusive(f"In the world of {name} the refusal did not last.", expected="refused three times more", measured=told[-1])
        if living:
            return inconclusive(f"In the world of {name} some children had not exited when they were counted.", measured=told[-1])
        counted = world.record("at_refusal").record("pids_max").integer("usage")
        if zombies != forks or counted != forks + 1 or not 0 < forks < world.integer("attempts"):
            return failed(
                f"In the world of {name} it was not zombies that took the room.",
                expected="a zombie for each fork, and as many in the control group beside the process that forked",
                measured=f"{told[-1]}; {counted} in the control group",
                hint="who else forks there, or who reaps? Compare forks and zombies with at_refusal.pids_max.usage",
            )
    return passed("Zombies alone used up the room.", expected="EAGAIN, as many zombies as forks", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_limit_that_bound_is_named(evidence: Evidence) -> Verdict:
    """EAGAIN does not say which limit it was; the numbers do. In each world one limit is full, and only one.

    All four limits and what was used of them were read at the moment of refusal, in all four worlds. The superuser is exempt from
    RLIMIT_NPROC. A control group counts the forks that its pids.max refused: the first one and the three that were tried after it.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        full = limits_reached(world)
        before, now = world.record("set_to").record(name), world.record("at_refusal").record(name)
        refusals = refused_by_group(world)
        told.append(
            f"{name}: {', '.join(full) or 'none'} full ({now.integer('usage')} of {now.integer('limit')}), {refusals} refusals by pids.max"
        )
        if len(full) > 1 or (not full and slack(name)):
            return inconclusive(
                f"In the world of {name} other tasks came or went, so that it was not that limit alone.",
                expected=f"{name} full, the others not",
                measured=told[-1],
            )
        if full != [name]:
            return failed(
                f"In the world of {name} it was not that limit.",
                expected=f"{name} full, the others not",
                measured=told[-1],
                hint=f"compare usage with limit for all four in exhaustion.worlds.{name}.at_refusal; the process's uid is in capabilities",
            )
        if (refusals > 0) != (name == "pids_max"):
            return failed(
                f"In the world of {name} the control group's own count of refusals contradicts.",
                expected="refusals counted in the world of pids_max only",
                measured=told[-1],
                hint="pids.events of the control group has the count: see refusals in set_to and at_refusal",
            )
        if refusals not in (0, 1 + REFUSALS):
            return inconclusive(f"In the world of {name} pids.max refused other forks as well.", measured=told[-1])
        # The forks that worked must be those for which there was room when the limit was set, but for what else came or went.
        room, forks = now.integer("limit") - before.integer("usage"), world.integer("forks")
        if before.integer("limit") != now.integer("limit") or abs(room - forks) > slack(name):
            return inconclusive(f"In the world of {name} there was room for {room}, but {forks} forks worked.", measured=told[-1])
    return passed("One full limit in each world, each time another.", expected="one full limit a world", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_kernel_says_so_on_the_console(evidence: Evidence) -> Verdict:
    """The kernel itself says that the pids controller refused a fork: the host reads the line from the guest's serial console.

    The line names the control group. And the guest is none the worse for it, seen from outside: it runs on, without a panic.
    """
    seen = evidence["exhaustion"]
    group = world_named(evidence, "pids_max").text("cgroup")
    if len({world_named(evidence, name).text("cgroup") for name in WORLDS}) != len(WORLDS):
        return inconclusive("The worlds had no control groups of their own.", measured=group)
    line = reading.text_or_none(seen, "console")
    expected = f"fork rejected by pids controller in {group}"
    if line is None:
        return inconclusive("The console did not show the line; it may print errors only.", expected=expected, measured="no such line")
    if not line.rstrip().endswith(expected):
        return failed(
            "The kernel's line is about another control group.",
            expected=expected,
            measured=line.strip()[-120:],
            hint="was a fork of another group refused before? Each group's first refusal has a line in console.log beside the report",
        )
    if seen.flag("guest_panicked") or seen.text("guest_status") != "running":
        return failed(
            "The guest did not survive it.",
            expected="running",
            measured=f"{'panicked, ' if seen.flag('guest_panicked') else ''}{seen.text('guest_status')}",
            hint="the guest's last words are in console.log beside the report",
        )
    return passed("Two witnesses: the guest's counters, and the host at the serial line.", expected=expected, measured=line.strip()[-120:])


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def forks_work_again_after_reaping(evidence: Evidence) -> Verdict:
    """After the zombies are reaped fork works again, under the same low limit."""
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        recovery, forks, now = world.record("recovery"), world.integer("forks"), world.record("after_reaping").record(name)
        as_made, otherwise_ended = reading.handed_over(recovery)
        worked, asked = recovery.integer("worked"), recovery.integer("asked", minimum=1)
        told.append(f"{name}: {as_made} reaped, then {worked} of {asked} forks worked")
        if now.integer("limit") != world.record("at_refusal").record(name).integer("limit") or not put_back(world):
            return inconclusive(f"In the world of {name} the limit was changed before the second try, or not put back.", measured=told[-1])
        if (reading.text_or_none(recovery) is None) != (worked == asked):
            return inconclusive(f"In the world of {name} the second try contradicts itself.", measured=told[-1])
        if as_made != forks or otherwise_ended:
            return failed(
                f"In the world of {name} not all zombies were reaped.",
                expected=f"{forks} reaped",
                measured=told[-1],
                hint="does the process that forked wait for all of its children? See recovery.statuses",
            )
        if worked != asked and now.integer("limit") - now.integer("usage") < asked:
            return inconclusive(f"In the world of {name} somebody else took the room.", measured=told[-1])
        if worked != asked:
            return failed(
                f"In the world of {name} fork did not work again although there was room.",
                expected=f"{asked} forks",
                measured=told[-1],
                hint=f"compare limit and usage in exhaustion.worlds.{name}.after_reaping: what else may refuse a fork?",
            )
    return passed("After the wait there is as much room as before.", expected="all forks work", measured="; ".join(told))


# --- readers ----------------------------------------------------------------------------------------------------------------------


def world_named(evidence: Evidence, name: str) -> Record:
    """One of the four worlds of exhaustion, which says that it is that one."""
    world = evidence["exhaustion"].record("worlds").record(name)
    if world.text("world") != name:
        raise EvidenceProblem(f"{world.place}.world: expected {name}, found {world.text('world')}")
    return world


def limits_reached(world: Record) -> list[str]:
    """Which limits were full when fork was refused: usage against limit, for all that apply to the process that forked.

    EvidenceProblem where more was used than there is: a limit that the kernel keeps to cannot be overrun.
    """
    capabilities, found = world.record("capabilities"), []
    exempt = any([capabilities.integer("uid") == 0, capabilities.flag("sys_resource"), capabilities.flag("sys_admin")])
    for name in WORLDS:
        each = world.record("at_refusal").record(name)
        limit, usage = each.integer("limit"), each.integer("usage")
        if limit < 0 or (name == "nproc" and exempt):
            continue
        if usage > limit + slack(name):
            raise EvidenceProblem(f"{each.place}: {usage} used of {limit}")
        if usage >= limit - slack(name):
            found.append(name)
    return found


def refused_by_group(world: Record) -> int:
    """How many forks the control group has counted as refused by its pids.max, from when the limit was set."""
    before, now = (world.record(when).record("pids_max").integer("refusals") for when in ("set_to", "at_refusal"))
    return now - before


def put_back(world: Record) -> bool:
    """Whether the limits of the whole system were in the end what they had been."""
    before, after = world.record("system_before"), world.record("system_after")
    return all(before.integer(name) == after.integer(name) for name in ("pid_max", "threads_max"))


def slack(name: str) -> int:
    """How far usage may be from the limit and the limit still be called full.

    A control group and a user of the lab's own hold nothing but its processes. The whole system's tasks come and go: a few that ended
    between the refusal and the look.
    """
    return 0 if name in ("pids_max", "nproc") else 5
