"""How many processes there can be: the range of numbers, and which of four limits is reached first."""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, not_observable, passed

from . import reading

SYSTEMDS = 4_194_304
"""What systemd sets pid_max to on 64 bits (sysctl.d/50-pid-max.conf): the most that the kernel takes (PID_MAX_LIMIT)."""


@check(points=1, claim="Z6")
def numbers_are_limited_and_threads_use_them(evidence: Evidence) -> Verdict:
    """The number of processes is limited by a range of numbers, pid_max, from which threads take theirs too.

    The kernel's own default is max(32768, 1024 for each CPU that the machine can have); 4194304 comes from a sysctl file of systemd, which
    is looked for. A thread is started, and a process after it: each has a number of its own.
    """
    limits = evidence["limits"]
    pid_max = limit_named(limits, "pid_max").integer("limit")
    default = max(32768, 1024 * limits.integer("cpus_possible"))
    set_by = reading.text_or_none(limits, "pid_max_set_by") or "no file"
    numbers = limits.record("numbers")
    process, thread, later = (numbers.integer(name) for name in ("process", "thread", "next_process"))
    tasks = numbers.integer("tasks_with_thread") - numbers.integer("tasks_before")
    measured = (
        f"pid_max {pid_max:,}, set by {set_by}; process {process}, its thread {thread}, the next process {later}; "
        f"{tasks:+d} task by the thread"
    )
    expected = f"pid_max {default:,}, or {SYSTEMDS:,} set by a file; three numbers; one task more"
    if pid_max not in (default, SYSTEMDS):
        return inconclusive("Somebody set pid_max to a value of their own.", expected=expected, measured=measured)
    if pid_max != default and not set_by.startswith("/"):
        return inconclusive("No file was found that sets pid_max to what it is.", expected=expected, measured=measured)
    if len({process, thread, later}) != 3 or not numbers.flag("thread_has_proc_directory"):
        return failed(
            "The thread had no number of its own.",
            expected=expected,
            measured=measured,
            hint="a thread's number is what gettid(2) returns, and /proc has a directory of that name: see limits.numbers",
        )
    if tasks < 1:
        return inconclusive("Other tasks ended while the thread was started.", expected=expected, measured=measured)
    return passed("There is no table: a thread uses up a number as a process does.", expected=expected, measured=measured)


@check(points=1, claim="Z6")
def another_limit_is_reached_first(evidence: Evidence) -> Verdict:
    """In a guest of this size, left as it is, another limit than pid_max is reached first.

    A fork has to pass four: pids.max of its control groups, RLIMIT_NPROC of its user (not for the superuser), threads-max, pid_max. For
    each the room left is its limit less what is used. The kernel makes threads-max from the memory, one for each eight kernel stacks that
    would fill it (fork_init), so that a small machine has fewer than any pid_max; where memory would allow more, this guest shows nothing.
    """
    limits = evidence["limits"]
    room: dict[str, int] = {}
    for each in limits.records("limits"):
        limit, exempt = each.integer("limit"), "exempt" in each and each.flag("exempt")
        usage = each.integer("usage")
        if limit >= 0 and not exempt:
            name = each.text("name")
            room[name] = min(room.get(name, limit), limit - usage)
    if not {"pid_max", "threads_max"} <= set(room):
        return inconclusive("The limits of the whole system are not among those listed.", measured=", ".join(room))
    if groups_listed(limits) != groups_above(limits.text("cgroup")):
        return inconclusive("Not every control group that the script runs in is among those listed.", measured=limits.text("cgroup"))
    limit_named(limits, "nproc")
    tightest = min(room, key=lambda name: room[name])
    measured = f"{tightest} with room for {room[tightest]:,}; " + ", ".join(
        f"{name} {left:,}" for name, left in room.items() if name != tightest
    )
    expected = "a limit that leaves less room than pid_max does"
    if limits.text("tightest") != tightest or limits.integer("room") != room[tightest]:
        return inconclusive("The limit reported as the tightest does not follow from those listed.", expected=expected, measured=measured)
    # (Eight stacks of 16 KiB.)
    if limits.integer("memory_kib") // 128 >= limit_named(limits, "pid_max").integer("limit"):
        return not_observable("This guest has so much memory that the kernel's own threads-max is above pid_max.")
    if tightest == "pid_max":
        return failed(
            "Here it would be pid_max itself.",
            expected=expected,
            measured=measured,
            hint="somebody raised the other limits: a guest with so little memory has a threads-max below pid_max. See limits.limits",
        )
    return passed("The finite size is rarely the one that matters.", expected=expected, measured=measured)


# --- readers ----------------------------------------------------------------------------------------------------------------------


def limit_named(limits: Record, name: str) -> Record:
    """One of the limits of the `limits` observation."""
    for each in limits.records("limits"):
        if each.text("name") == name:
            return each
    raise EvidenceProblem(f"{limits.place}.limits: expected one named {name}")


def groups_listed(limits: Record) -> list[str]:
    """The control groups whose limits are listed."""
    return [each.text("cgroup") for each in limits.records("limits") if each.text("name") == "pids_max"]


def groups_above(path: str) -> list[str]:
    """A control group and each above it but the root, the innermost first."""
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:count]) for count in range(len(parts), 0, -1)]
