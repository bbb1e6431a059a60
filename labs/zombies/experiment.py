"""Zombies: make them, take one apart, weigh them, fill the system with them, and get rid of them."""

from __future__ import annotations

from vmlab.bench import Bench, Guest

NEVER, REAPS, IGNORES = "accumulation", "reaping", "ignored"
REFUSED = "fork rejected by pids controller"
LONG_S = 180.0  # For a script that takes a few seconds: parameters may be ten times larger, and an emulated guest ten times slower.


def experiment(bench: Bench) -> None:
    """Eight phases in one guest; nothing is judged here.

    The cost comes first, before anything has read the /proc directories of many processes, because that reading costs memory too.
    """
    guest = bench.guest()
    parameters = bench.parameters

    with bench.phase("what one zombie costs the kernel"):
        cost = guest.script("cost.py", "--batches", parameters["batches"], "--batch", parameters["batch"], time_limit_s=LONG_S)
        bench.record("cost", cost.record)

    with bench.phase("the limits, as this system sets them"):
        bench.record("limits", guest.script("limits.py").record)

    with bench.phase("one child: alive, a zombie, reaped"):
        bench.record("anatomy", guest.script("anatomy.py").record)

    with bench.phase("a parent that never waits"):
        bench.record(NEVER, parent(bench, guest, "never", parameters["zombies"]))

    with bench.phase("a parent that reaps, under the same load"):
        bench.record(REAPS, parent(bench, guest, "reap", parameters["zombies"]))

    with bench.phase("a parent that ignores SIGCHLD"):
        bench.record(IGNORES, parent(bench, guest, "ignore", parameters["ignored"]))

    with bench.phase("the parent of zombies is killed"):
        bench.record("orphans", guest.script("orphans.py", "--zombies", parameters["orphans"], time_limit_s=LONG_S).record)

    with bench.phase("a PID 1 that does not reap"):
        watch = ("--orphans", parameters["adopted"], "--patience", parameters["patience_s"])
        bench.record("namespaces", guest.script("namespaces.py", *watch, time_limit_s=float(parameters["patience_s"]) + LONG_S).record)

    with bench.phase("fork until the kernel refuses, by four limits"):
        bench.record("exhaustion", exhaustion(guest, parameters["room"]))


def parent(bench: Bench, guest: Guest, kind: str, forks: object) -> dict[str, object]:
    """One parent forking at the lab's rate, watched by another process of the guest."""
    rate, samples = bench.parameters["rate"], bench.parameters["samples"]
    load = ("--parent", kind, "--forks", str(forks), "--rate", rate, "--samples", samples)
    watched = guest.script("accumulate.py", *load, time_limit_s=float(str(forks)) / float(rate) + LONG_S)
    return dict(watched.record)


def exhaustion(guest: Guest, room: object) -> dict[str, object]:
    """The four worlds by name, the guest's state, and the kernel's own words, as the host reads them from the serial console."""
    guest.run("dmesg --console-level info || echo 7 > /proc/sys/kernel/printk")  # Else such a line stays in the kernel's buffer.
    guest.wait_for_console(REFUSED, time_limit_s=0)  # Whatever was said before does not count.
    worlds = guest.script("exhaust.py", "--room", str(room), time_limit_s=LONG_S).records
    said = guest.wait_for_console(REFUSED, time_limit_s=5)
    outside = guest.outside()
    return {
        "worlds": {str(world["world"]): world for world in worlds},
        "console": said,
        "guest_panicked": outside["panicked"],
        "guest_status": outside["status"],
    }
