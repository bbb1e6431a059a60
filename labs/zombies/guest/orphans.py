#!/usr/bin/env python3
"""A parent that never waits is killed: what becomes of its zombies, and of a child that still lives?

They are adopted by PID 1. That PID 1 *reaped* the zombies, and that they did not merely vanish, shows in its own accounts: a process
that waits for a child takes over the child's counts of page faults (field 11 of /proc/1/stat, cminflt). So the zombies' faults are
added up beforehand.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import time

from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import Counters, exit_at_once, running
from vmlab_guest.proc import children_of, stat, stat_or_none
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def main() -> None:
    """One family."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--zombies", type=int, default=60)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for them to go")
    parser.add_argument("--subreaper", action="store_true", help="control: a process that waits for nobody stands nearer than PID 1")
    parser.add_argument("--spare-the-parent", action="store_true", help="control: do not kill the parent")
    options = parser.parse_args()
    if options.subreaper:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with Cgroup("orphans") as cgroup:
        say(observe(options, cgroup))
        with contextlib.suppress(ChildProcessError):
            while options.subreaper:  # (Else they would keep the control group, and so would we.)
                os.waitpid(-1, 0)


def observe(options: argparse.Namespace, cgroup: Cgroup) -> dict[str, object]:
    """Make the family, kill the parent, and look until the zombies are gone or patience ends."""
    counters = Counters("forked", "done")
    gate, gate_in = os.pipe()

    def be_a_parent() -> None:
        cgroup.enter()
        have_children(options.zombies, counters, gate, gate_in)

    parent = running(be_a_parent)
    while not counters["done"]:
        time.sleep(0.02)
    os.close(gate)
    wait_until(lambda: len(children_of(parent)[0]) >= options.zombies)  # (The last one may still be on its way out.)
    zombies, living = children_of(parent)
    began = len(living)
    faults = sum(int(fields["minflt"]) for pid in zombies if (fields := stat_or_none(pid)))
    init_before = stat(1)

    killed_at = time.monotonic()
    if not options.spare_the_parent:
        os.kill(parent, signal.SIGKILL)
    left, looks = zombies, []
    while left and time.monotonic() - killed_at < options.patience:
        states = {pid: fields for pid in left if (fields := stat_or_none(pid))}
        left = set(states)
        looks.append(
            {
                "elapsed_s": round(time.monotonic() - killed_at, 4),
                "left": len(left),
                "with_parent_1": sum(1 for fields in states.values() if fields["ppid"] == 1),
            }
        )
        time.sleep(0.005)
    init_after = stat(1)
    adopted = [{"ppid": fields["ppid"], "state": fields["state"]} for pid in living if (fields := stat_or_none(pid))]

    if options.spare_the_parent:
        os.kill(parent, signal.SIGKILL)
    os.close(gate_in)  # The living child reads the end of the pipe, and exits; PID 1 has to reap it as well.
    wait_until(lambda: not any(stat_or_none(pid) for pid in living), limit_s=options.patience, every_s=0.01)
    os.waitpid(parent, 0)
    return {
        "parent_killed": not options.spare_the_parent,
        "zombies_before": len(zombies),
        "living_before": began,
        "looks": thinned(looks),
        "looked": len(looks),
        "left": len(left),
        "clear_after_s": looks[-1]["elapsed_s"] if not left else None,
        "living_child": adopted,
        "new_parent": adopted[0]["ppid"] if adopted else None,
        "living_child_left": sum(1 for pid in living if stat_or_none(pid)),
        "init": {
            "name": init_before["comm"],
            "faults_of_the_zombies": faults,
            "faults_of_reaped_children_before": init_before["cminflt"],
            "faults_of_reaped_children_after": init_after["cminflt"],
        },
    }


def have_children(zombies: int, counters: Counters, gate: int, gate_in: int) -> None:
    """Be the parent: children that exit at once, one that waits at the gate, and no wait for any of them."""
    if os.fork() == 0:
        os.close(gate_in)
        os.read(gate, 1)
        os._exit(EXIT_CODE)
    os.close(gate_in)
    for _ in range(zombies):
        exit_at_once(EXIT_CODE)
        counters.add("forked")
    counters.add("done")
    while True:
        signal.pause()


def thinned(looks: list[dict[str, float | int]]) -> list[dict[str, float | int]]:
    """At most 40 of them, the first and the last among them."""
    step = max(1, len(looks) // 39)
    return looks[:-1][::step][:39] + looks[-1:]


if __name__ == "__main__":
    main()
