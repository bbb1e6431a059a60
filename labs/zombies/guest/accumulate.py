#!/usr/bin/env python3
"""A parent forks children at a steady rate; an observer, another process, counts the zombies from outside.

The parent comes in three kinds: `never` waits for nobody, `reap` reaps at each SIGCHLD, `ignore` asks the kernel for no zombies at
all (SIGCHLD set to SIG_IGN). The load is the same. The observer counts by reading every /proc/PID/stat, and notes the parent's own
counters before and after each scan: the truth lies between them. For the parent that never waits it then sends SIGKILL to every
zombie, counts again, and lets the parent reap at last, to see with which status each child is handed over.

A parent that reaps looks at each child once more before its wait: was it a zombie then? An observer would hardly ever meet one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time

from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import Child, Counters, exit_at_once
from vmlab_guest.proc import children_of, stat_or_none
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.


def main() -> None:
    """Observe one parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", choices=["never", "reap", "ignore"], default="never")
    parser.add_argument("--forks", type=int, default=400)
    parser.add_argument("--rate", type=float, default=100.0, help="forks a second")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--called", default="", help="control: the kind that the parent is said to be, where it is of another")
    parser.add_argument("--kill", choices=["zombies", "and-reap"], default="zombies", help="control: who kills also makes the parent wait")
    options = parser.parse_args()

    counters = Counters("announced", "forked", "reaped", "done")
    orders, orders_in = os.pipe()
    answers, answers_in = os.pipe()
    with Cgroup("accumulate") as cgroup:

        def fork_at_a_rate() -> None:
            os.close(orders_in)
            cgroup.enter()
            be_a_parent(options, counters, orders, answers_in)

        with Child(fork_at_a_rate) as parent:
            os.close(answers_in)
            seen = observe(parent.pid, options, counters, orders_in, answers)
            kind = options.called or options.parent
            say({"parent": kind, "rate": options.rate, **({"cpus": os.cpu_count()} if kind == "ignore" else {}), **seen})


def be_a_parent(options: argparse.Namespace, counters: Counters, orders: int, answers: int) -> None:
    """Fork at the rate asked for; then wait for the observer's word, reap what is left, and report the statuses.

    It raises `announced` before a fork and `forked` after it: whenever the observer looks, the number of children that were ever made lies
    between the two.
    """
    statuses: list[int] = []
    met, late_s = 0, 0.0

    def reap_what_has_exited() -> bool:
        """Whether there is a child left."""
        nonlocal met
        while True:
            try:
                exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if exited is None:
                return True
            fields = stat_or_none(exited.si_pid)
            met += 1 if fields and fields["state"] == "Z" else 0
            statuses.append(os.waitpid(exited.si_pid, 0)[1])
            counters.add("reaped")

    if options.parent == "reap":
        # Blocked, the signal waits until sigtimedwait asks for it. (A handler could be interrupted by the next SIGCHLD in the middle of
        # its own bookkeeping.)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    elif options.parent == "ignore":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    due = start = time.monotonic()
    for _ in range(options.forks):
        while (pause := due - time.monotonic()) > 0:
            if options.parent != "reap":
                time.sleep(pause)
            elif signal.sigtimedwait({signal.SIGCHLD}, pause):
                reap_what_has_exited()
        late_s = max(late_s, -pause)
        counters.add("announced")
        exit_at_once(EXIT_CODE)
        counters.add("forked")
        if options.parent == "reap":
            reap_what_has_exited()
        # (A late fork makes the next one later too. If it did not, a machine that stood still for a moment would let this parent catch up
        # in a burst, and the burst would be what is measured.)
        due = max(due + 1 / options.rate, time.monotonic())
    forking_s = time.monotonic() - start
    while options.parent == "reap" and reap_what_has_exited():
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
    signal.signal(signal.SIGUSR1, lambda *_: reap_what_has_exited())
    counters.add("done")

    os.read(orders, 1)
    report = {
        "children_left": reap_what_has_exited(),
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "zombies_met": met,
        "forking_s": round(forking_s, 4),
        "late_s": round(late_s, 4),
    }
    os.write(answers, json.dumps(report).encode() + b"\n")
    os.read(orders, 1)


def observe(parent: int, options: argparse.Namespace, counters: Counters, orders: int, answers: int) -> dict[str, object]:
    """Count while the parent forks, then after SIGKILL to every zombie, then after the parent has reaped."""
    start = time.monotonic()
    every = options.forks / options.rate / options.samples
    samples: list[dict[str, float | int]] = []
    while not counters["done"]:
        # (By a timetable, so that a look that took long is not followed by a whole pause.)
        time.sleep(max(0.001, start + (len(samples) + 1) * every - time.monotonic()))
        samples.append(sample(parent, counters, start))
    wait_until(lambda: not children_of(parent)[1])  # (The last child may still be on its way out.)
    samples.append(sample(parent, counters, start))
    killed = kill_the_zombies(parent, options.kill) if (options.called or options.parent) == "never" else None

    os.write(orders, b"!")
    with open(answers) as pipe:
        reaped = json.loads(pipe.readline())
        after, living = children_of(parent)
        os.write(orders, b"!")
    return {
        "samples": samples,
        "forked": counters["forked"],
        "forking_s": reaped["forking_s"],
        "late_s": reaped["late_s"],
        "peak": max(each["zombies"] for each in samples),
        "at_end": samples[-1]["zombies"],
        **({"sigkill": killed} if killed else {}),
        "after_reaping": {
            "statuses": reaped["statuses"],
            "zombies_met": reaped["zombies_met"],
            "kernel_says_children_left": reaped["children_left"],
            "found": len(after | living),
        },
    }


def kill_the_zombies(parent: int, how: str) -> dict[str, object]:
    """Send SIGKILL to each zombie, and see what is left of them a moment later."""
    zombies, _ = children_of(parent)
    before = identities(zombies)
    accepted = 0
    for pid in zombies:
        os.kill(pid, signal.SIGKILL)  # (Raises when it is refused or there is no such process.)
        accepted += 1
    if how == "and-reap":
        os.kill(parent, signal.SIGUSR1)
    time.sleep(0.3)
    left, _ = children_of(parent)
    same = sum(1 for pid, identity in identities(left).items() if before.get(pid) == identity)
    return {
        "sent_to": len(zombies),
        "accepted": accepted,
        "left": len(left),
        "same_process": same,
        "left_percent": percent(len(left), len(zombies)),
    }


def percent(part: int, whole: int) -> float | None:
    """A share in percent; of nothing there is none."""
    return round(100 * part / whole, 1) if whole else None


def sample(parent: int, counters: Counters, start: float) -> dict[str, float | int]:
    """One count from outside, between two looks at the parent's counters."""
    began, forked, reaped = time.monotonic(), counters["forked"], counters["reaped"]
    zombies, living = children_of(parent)
    announced, reaped_after, ended = counters["announced"], counters["reaped"], time.monotonic()
    return {
        "elapsed_s": round((began + ended) / 2 - start, 4),
        "forked_before": forked,
        "forked_after": announced,
        "reaped_before": reaped,
        "reaped_after": reaped_after,
        "zombies": len(zombies),
        "living": len(living),
    }


def identities(pids: set[int]) -> dict[int, tuple[int | str, ...]]:
    """What makes a process this one and no later process of the same number, and how it ended."""
    found = {pid: stat_or_none(pid) for pid in pids}
    return {pid: (fields["starttime"], fields["exit_code"], fields["state"]) for pid, fields in found.items() if fields}


if __name__ == "__main__":
    main()
