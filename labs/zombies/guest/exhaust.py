#!/usr/bin/env python3
"""Fork until the kernel refuses, for each of four limits in turn; say what each limit and its usage were at that moment.

One process forks and never waits. Another, the observer, has set one of the limits low beforehand, and reads them *all* when the fork
is refused: the script does not say which one bound. Then the zombies are reaped, and it forks again under the same low limit.

Everything that cleaning up needs runs already when the limit bites: at that moment no process could be started. The limits of the whole
system (pid_max, threads-max) are low for about a second and are put back even when something here breaks.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.
# ruff: noqa: PTH123

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
from collections.abc import Iterator

from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import Child, become, exit_at_once, running
from vmlab_guest.proc import children_of, mask, number_in, tasks, tasks_in_kernel, written
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

TYPE_CHECKING = False  # (mypy takes it for true.)
if TYPE_CHECKING:
    from .limits import possible_cpus
else:
    from limits import possible_cpus

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.

UID = 20_000 + os.getpid() % 20_000  # Nobody's: the count of its processes is ours alone, also where two of this script run at once.
PIDS_PER_CPU_MIN = 8  # The kernel takes no pid_max below so many for each possible CPU (kernel/pid.c).
RESERVED = 300  # The kernel's numbers for later processes start here once they have come round (RESERVED_PIDS in kernel/pid.c).
PID_MAX = "/proc/sys/kernel/pid_max"
THREADS_MAX = "/proc/sys/kernel/threads-max"
WORLDS = ("pids_max", "nproc", "pid_max", "threads_max")


def main() -> None:
    """One line for each world."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--room", type=int, default=100, help="how many processes the lowered limit leaves room for")
    parser.add_argument("--attempts", type=int, default=0, help="give up after so many forks; 0: twice the room, or a little more")
    parser.add_argument("--no-limit", action="store_true", help="control: lower nothing")
    parser.add_argument("--reap", action="store_true", help="control: the forking process reaps each child")
    parser.add_argument("--keep", action="store_true", help="control: nobody waits for the zombies")
    parser.add_argument("--stranger", action="store_true", help="control: a fork of another control group is refused first")
    parser.add_argument("--nproc-by", choices=WORLDS, default="nproc", help="control: the limit that is low where nproc should be")
    options = parser.parse_args()
    if options.stranger:
        be_refused()
    for name in options.worlds:
        say({"world": name, "room": options.room, **exhaust(name, options)})


def exhaust(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Fork under one lowered limit until refused, look at every limit, reap, and fork again."""
    orders, orders_in = os.pipe()
    answers, answers_in = os.pipe()
    # (Where the kernel takes no pid_max as low as wanted, it leaves more room than asked for.)
    attempts = options.attempts or 2 * options.room + max(0, PIDS_PER_CPU_MIN * possible_cpus() - RESERVED)
    low = options.nproc_by if name == "nproc" else name
    with Cgroup(name.replace("_", "-")) as cgroup:
        # (The process that forks is a process too: it has its place under the limit before the limit is set.)

        def fork_away() -> None:
            os.close(orders_in)
            cgroup.enter()
            if name == "nproc":
                become_somebody_else(options.room if low == "nproc" and not options.no_limit else None)
            fork_when_told(orders, answers_in, attempts, options)

        with Child(fork_away) as forker:
            os.close(answers_in)
            with open(answers) as pipe:
                own_limit = int(json.loads(pipe.readline())["rlimit_nproc"])
                before = system_limits()
                with contextlib.nullcontext() if options.no_limit else lowered(low, options.room, cgroup):
                    set_to = look(cgroup, own_limit)
                    os.write(orders_in, b"!")
                    refusal = json.loads(pipe.readline())
                    at_refusal = look(cgroup, own_limit)
                    wait_until(lambda: not children_of(forker.pid)[1])  # (The last child may still be on its way out.)
                    zombies, living = children_of(forker.pid)
                    os.write(orders_in, b"!")
                    recovery = json.loads(pipe.readline())
                    after_reaping = look(cgroup, own_limit)
        after = system_limits()
    return {
        "cgroup": cgroup.name,
        "system_before": before,
        "system_after": after,
        "set_to": set_to,
        "at_refusal": at_refusal,
        "after_reaping": after_reaping,
        "zombies": len(zombies),
        "living": len(living),
        **refusal,
        "recovery": recovery,
    }


def become_somebody_else(allowed: int | None) -> None:
    """Give up the superuser's exemption: be a user who may have so many processes."""
    if allowed is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))
    become(UID)


def be_refused() -> None:
    """Meet the limit of another control group, which the kernel says on the console as it will of ours."""
    with Cgroup("stranger") as cgroup:

        def fork_once() -> None:
            cgroup.enter()
            cgroup.set("pids.max", 1)
            with contextlib.suppress(OSError):
                os.waitpid(exit_at_once(), 0)

        os.waitpid(running(fork_once), 0)


def fork_when_told(orders: int, answers: int, attempts: int, options: argparse.Namespace) -> None:
    """Be the process that forks: until refused, then three more times to be sure, then reap, then again."""

    def answer(value: object) -> None:
        os.write(answers, json.dumps(value).encode() + b"\n")

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    answer({"rlimit_nproc": -1 if soft == resource.RLIM_INFINITY else soft})

    os.read(orders, 1)
    forks, refused = 0, None
    while forks < attempts and refused is None:
        try:
            child = exit_at_once(EXIT_CODE)
        except OSError as exc:
            refused = exc.errno
        else:
            forks += 1
            if options.reap:
                os.waitpid(child, 0)
    refused_again = 0
    for _ in range(3 if refused else 0):
        try:
            exit_at_once(EXIT_CODE)
            forks += 1
        except OSError as exc:
            refused_again += exc.errno == refused
    answer(
        {
            "attempts": attempts,
            "forks": forks,
            "errno": errno.errorcode[refused] if refused else None,
            "refused_again": refused_again,
            "capabilities": capabilities(),
        }
    )

    os.read(orders, 1)
    statuses: dict[str, int] = {}
    with contextlib.suppress(ChildProcessError):
        while not options.keep:
            _, status = os.waitpid(-1, 0)
            statuses[str(status)] = statuses.get(str(status), 0) + 1
    worked, problem = 0, None
    for _ in range(10):
        try:
            os.waitpid(exit_at_once(EXIT_CODE), 0)
            worked += 1
        except OSError as exc:
            problem = errno.errorcode.get(exc.errno or 0, str(exc.errno))
    answer({"statuses": statuses, "asked": 10, "worked": worked, "errno": problem})
    os.read(orders, 1)


def capabilities() -> dict[str, object]:
    """What exempts a process from RLIMIT_NPROC: being uid 0, CAP_SYS_RESOURCE or CAP_SYS_ADMIN."""
    effective = mask("CapEff")
    return {"uid": os.getuid(), "sys_resource": bool(effective >> 24 & 1), "sys_admin": bool(effective >> 21 & 1)}


def look(cgroup: Cgroup, rlimit_nproc: int) -> dict[str, dict[str, int]]:
    """Every limit that a fork has to pass, and its usage now. -1 is no limit."""
    processes, numbers = tasks()
    pid_max = number_in(PID_MAX)
    return {
        "pids_max": pids(cgroup),
        "nproc": {"limit": rlimit_nproc, "usage": sum(1 for _, uid in processes if uid == UID)},
        "pid_max": {"limit": pid_max, "usage": RESERVED + sum(1 for number in numbers if RESERVED <= number < pid_max)},
        "threads_max": {"limit": number_in(THREADS_MAX), "usage": tasks_in_kernel()},
    }


def pids(cgroup: Cgroup) -> dict[str, int]:
    """The group's limit (-1: none), its usage, and how often a fork was refused because of it."""
    refusals = cgroup.events("pids.events")["max"]
    return {"limit": cgroup.number("pids.max"), "usage": cgroup.number("pids.current"), "refusals": refusals}


def system_limits() -> dict[str, int]:
    """The limits that this script lowers for the whole system, and must put back."""
    return {"pid_max": number_in(PID_MAX), "threads_max": number_in(THREADS_MAX)}


@contextlib.contextmanager
def lowered(name: str, room: int, cgroup: Cgroup) -> Iterator[None]:
    """One limit low enough to leave `room`, and as it was again afterwards. (The forking process set its own RLIMIT_NPROC.)"""
    if name == "pids_max":
        cgroup.set("pids.max", room)
        yield
    elif name == "nproc":
        yield
    elif name == "threads_max":
        with written(THREADS_MAX, tasks_in_kernel() + room):
            yield
    else:
        _, numbers = tasks()
        with written(PID_MAX, pid_max_with_room(numbers, room)):
            yield


def pid_max_with_room(numbers: set[int], room: int) -> int:
    """A pid_max that the kernel takes, below which `room` numbers are free, above those that are never given out again."""
    number, free = RESERVED, 0
    while free < room or number < PIDS_PER_CPU_MIN * possible_cpus():
        free += number not in numbers
        number += 1
    return number


if __name__ == "__main__":
    main()
