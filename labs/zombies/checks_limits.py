"""What stops fork: four limits, which of them is reached first, and what it takes to go on."""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

from . import reading

WORLDS = ("pids_max", "nproc", "pid_max", "threads_max")


@check(points=1, claim="Z6")
def numbers_are_limited_and_threads_use_them(evidence: Evidence) -> Verdict:
    """The number of processes is limited by a range of numbers, pid_max, from which threads take theirs too.

    The kernel's own default is max(32768, 1024 for each CPU); 4194304 comes from a sysctl file of systemd.
    """
    limits = evidence["limits"]
    pid_max = limit_named(limits, "pid_max").integer("limit")
    default = max(32768, 1024 * limits.integer("cpus_possible", minimum=1))
    numbers = limits.record("numbers")
    process, thread, later = (numbers.integer(name, minimum=1) for name in ("process", "thread", "next_process"))
    tasks = numbers.integer("tasks_with_thread") - numbers.integer("tasks_before")
    measured = f"pid_max {pid_max:,}; process {process}, its thread {thread}, the next process {later}; {tasks:+d} task by the thread"
    expected = f"pid_max {default:,} or 4,194,304; three numbers; one task more"
    if pid_max not in (default, 4194304):
        return inconclusive("Somebody set pid_max to a value of their own.", expected=expected, measured=measured)
    if len({process, thread, later}) != 3 or not numbers.flag("thread_has_proc_directory"):
        return failed("The thread had no number of its own.", expected=expected, measured=measured)
    if tasks < 1:
        return inconclusive("Other tasks ended while the thread was started.", expected=expected, measured=measured)
    return passed("There is no table: a thread uses up a number as a process does.", expected=expected, measured=measured)


@check(points=1, claim="Z6")
def another_limit_is_reached_first(evidence: Evidence) -> Verdict:
    """On this system, left as it is, another limit than pid_max is reached first.

    A fork has to pass four: pids.max of its control groups, RLIMIT_NPROC of its user (not for the superuser), threads-max, pid_max. For
    each the room left is its limit less what is used.
    """
    limits = evidence["limits"]
    room: dict[str, int] = {}
    for each in limits.records("limits", at_least=3):
        limit, exempt = each.integer("limit"), "exempt" in each and each.flag("exempt")
        if limit >= 0 and not exempt:
            name = each.text("name")
            room[name] = min(room.get(name, limit), limit - each.integer("usage", minimum=0))
    if not {"pid_max", "threads_max"} <= set(room):
        return inconclusive("The limits of the whole system are not among those listed.", measured=", ".join(room))
    tightest = min(room, key=lambda name: room[name])
    measured = f"{tightest} with room for {room[tightest]:,}; " + ", ".join(
        f"{name} {left:,}" for name, left in room.items() if name != tightest
    )
    expected = "a limit that leaves less room than pid_max does"
    if limits.text("tightest") != tightest or limits.integer("room") != room[tightest]:
        return inconclusive("The limit reported as the tightest does not follow from those listed.", expected=expected, measured=measured)
    if tightest == "pid_max":
        return failed(
            "Here it would be pid_max itself.", expected=expected, measured=measured, hint="more memory raises threads-max above it"
        )
    return passed("The finite size is rarely the one that matters.", expected=expected, measured=measured)


@check(points=1, claim="Z7")
def enough_zombies_stop_fork_with_eagain(evidence: Evidence) -> Verdict:
    """Enough zombies make fork fail, with EAGAIN, whichever of the four limits it is.

    In each of four worlds one limit was low. Nothing but zombies took the room: as many were found as forks had worked.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        forks, zombies = world.integer("forks", minimum=0), world.integer("zombies", minimum=0)
        if "errno" not in world or reading.error_of(world) is None:
            return failed(
                f"In the world of {name} no fork was refused.",
                expected="EAGAIN",
                measured=f"{forks} forks, all of which worked",
                hint="is the limit lower than the number of forks attempted?",
            )
        told.append(f"{name}: {reading.error_of(world)} after {forks} forks, {zombies} zombies")
        if reading.error_of(world) != "EAGAIN":
            return failed(f"In the world of {name} fork failed in another way.", expected="EAGAIN", measured=told[-1])
        if world.integer("refused_again") != 3:
            return inconclusive(f"In the world of {name} the refusal did not last.", expected="refused three times more", measured=told[-1])
        if zombies != forks or not 0 < forks < world.integer("attempts") or world.integer("living") != 0:
            return failed(f"In the world of {name} it was not zombies that took the room.", expected="a zombie a fork", measured=told[-1])
    return passed("Zombies alone used up the room.", expected="EAGAIN, as many zombies as forks", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_limit_that_bound_is_named(evidence: Evidence) -> Verdict:
    """EAGAIN does not say which limit it was; the numbers do. In each world one limit is full, and only one.

    All four limits and what was used of them were read at the moment of refusal, in all four worlds. The superuser is exempt from
    RLIMIT_NPROC. A full pids.max also counts its refusals.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        full = limits_reached(world)
        before, now = world.record("set_to").record(name), world.record("at_refusal").record(name)
        refusals = world.record("at_refusal").record("pids_max").integer("refusals") - world.record("set_to").record("pids_max").integer(
            "refusals"
        )
        told.append(
            f"{name}: {', '.join(full) or 'none'} full ({now.integer('usage')} of {now.integer('limit')}), {refusals} refusals by pids.max"
        )
        if full != [name]:
            verdict = inconclusive if len(full) > 1 else failed
            return verdict(
                f"In the world of {name} it was not that limit alone.", expected=f"{name} full, the others not", measured=told[-1]
            )
        if (refusals > 0) != (name == "pids_max"):
            return failed(
                f"In the world of {name} pids.max contradicts.", expected="refusals counted in its own world only", measured=told[-1]
            )
        # The forks that worked must be those for which there was room when the limit was set, but for what else came or went.
        room, forks = now.integer("limit") - before.integer("usage"), world.integer("forks")
        if abs(room - forks) > slack(name):
            return inconclusive(f"In the world of {name} there was room for {room}, but {forks} forks worked.", measured=told[-1])
    return passed("One full limit in each world, each time another.", expected="one full limit a world", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_kernel_says_so_on_the_console(evidence: Evidence) -> Verdict:
    """The kernel itself says that the pids controller refused a fork: the host reads the line from the guest's serial console.

    And the guest is none the worse for it, seen from outside: it runs on, without a panic.
    """
    seen = evidence["exhaustion"]
    group = world_named(evidence, "pids_max").text("cgroup")
    running = not seen.flag("guest_panicked") and seen.text("guest_status") == "running"
    if "console" not in seen:
        raise EvidenceProblem(f"{seen.place}.console is missing")
    line = seen.text("console") if reading.error_of(seen, "console") is not None else None
    expected = f"fork rejected by pids controller in {group}"
    if line is None:
        return inconclusive("The console did not show the line; it may print errors only.", expected=expected, measured="no such line")
    if not line.rstrip().endswith(expected):
        return failed("The kernel's line is about another control group.", expected=expected, measured=line.strip()[-120:])
    if not running:
        return failed("The guest did not survive it.", expected="running", measured=seen.text("guest_status"))
    return passed("Two witnesses: the guest's counters, and the host at the serial line.", expected=expected, measured=line.strip()[-120:])


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def forks_work_again_after_reaping(evidence: Evidence) -> Verdict:
    """After the zombies are reaped fork works again, under the same low limit."""
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        recovery, forks = world.record("recovery"), world.integer("forks")
        statuses = recovery.record("statuses")
        reaped = statuses.integer(str(reading.RAW_STATUS)) if str(reading.RAW_STATUS) in statuses else 0
        still = world.record("after_reaping").record(name).integer("limit") == world.record("at_refusal").record(name).integer("limit")
        worked, asked = recovery.integer("worked"), recovery.integer("asked", minimum=1)
        told.append(f"{name}: {reaped} reaped, then {worked} of {asked} forks worked")
        if not still or not world.flag("restored"):
            return inconclusive(f"In the world of {name} the limit was changed before the second try, or not put back.", measured=told[-1])
        if reaped != forks or worked != asked:
            return failed(f"In the world of {name} not all was well again.", expected=f"{forks} reaped, {asked} forks", measured=told[-1])
    return passed("Reaping is the cure, and a complete one.", expected="all forks work", measured="; ".join(told))


# --- readers ----------------------------------------------------------------------------------------------------------------------


def limit_named(limits: Record, name: str) -> Record:
    """One of the limits of the `limits` observation."""
    for each in limits.records("limits"):
        if each.text("name") == name:
            return each
    raise EvidenceProblem(f"{limits.place}.limits: expected one named {name}")


def world_named(evidence: Evidence, name: str) -> Record:
    """One of the four worlds of exhaustion."""
    return evidence["exhaustion"].record("worlds").record(name)


def limits_reached(world: Record) -> list[str]:
    """Which limits were full when fork was refused: usage against limit, for all that apply to the process that forked."""
    capabilities, found = world.record("capabilities"), []
    exempt = capabilities.integer("uid") == 0 or capabilities.flag("sys_resource") or capabilities.flag("sys_admin")
    for name in WORLDS:
        each = world.record("at_refusal").record(name)
        limit, usage = each.integer("limit"), each.integer("usage", minimum=0)
        if limit >= 0 and not (name == "nproc" and exempt) and usage >= limit - slack(name):
            found.append(name)
    return found


def slack(name: str) -> int:
    """How far usage may be from the limit and the limit still be called full.

    A control group and a user of the lab's own hold nothing but its processes. The whole system's tasks come and go: a few that ended
    between the refusal and the look.
    """
    return 0 if name in ("pids_max", "nproc") else 5
