"""Zombies: make them, take one apart, weigh them, fill the system with them, and get rid of them."""

from __future__ import annotations

from vmlab.bench import Bench, Guest, part

from .worlds import broken

NEVER, REAPS, IGNORES = "accumulation", "reaping", "ignored"
REFUSED = "fork rejected by pids controller"
LONG_S = 180.0  # For a script that takes a few seconds: parameters may be ten times larger, and an emulated guest ten times slower.

# Nothing is judged here. The cost comes first, before anything has read the /proc directories of many processes, because that reading
# costs memory too.


@part
def cost(bench: Bench) -> None:
    """What one zombie costs the kernel."""
    size = ("--batches", bench.parameters["batches"], "--batch", bench.parameters["batch"])
    bench.record("cost", bench.guest().script("cost.py", *size, *broken(bench.parameters["world"], "cost"), time_limit_s=LONG_S).record)


@part
def limits(bench: Bench) -> None:
    """The limits, as this system sets them."""
    bench.record("limits", bench.guest().script("limits.py", *broken(bench.parameters["world"], "limits")).record)


@part
def anatomy(bench: Bench) -> None:
    """One child: alive, a zombie, reaped."""
    bench.record("anatomy", bench.guest().script("anatomy.py", *broken(bench.parameters["world"], "anatomy")).record)


@part
def never(bench: Bench) -> None:
    """A parent that never waits."""
    bench.record(NEVER, parent(bench, NEVER, "never", bench.parameters["zombies"]))


@part
def reaps(bench: Bench) -> None:
    """A parent that reaps, under the same load."""
    bench.record(REAPS, parent(bench, REAPS, "reap", bench.parameters["zombies"]))


@part
def ignores(bench: Bench) -> None:
    """A parent that ignores SIGCHLD."""
    bench.record(IGNORES, parent(bench, IGNORES, "ignore", bench.parameters["ignored"]))


@part
def orphans(bench: Bench) -> None:
    """The parent of zombies is killed."""
    family = ("--zombies", bench.parameters["orphans"])
    bench.record(
        "orphans", bench.guest().script("orphans.py", *family, *broken(bench.parameters["world"], "orphans"), time_limit_s=LONG_S).record
    )


@part
def namespaces(bench: Bench) -> None:
    """A PID 1 that does not reap."""
    patience_s = float(bench.parameters["patience_s"])
    watch = ("--orphans", bench.parameters["adopted"], "--patience", patience_s)
    seen = bench.guest().script("namespaces.py", *watch, *broken(bench.parameters["world"], "namespaces"), time_limit_s=patience_s + LONG_S)
    bench.record("namespaces", seen.record)


@part
def exhaustion(bench: Bench) -> None:
    """Fork until the kernel refuses, by four limits.

    The four worlds by name, the guest's state, and the kernel's own words, as the host reads them from the serial console.
    """
    guest = bench.guest()
    guest.run("dmesg --console-level info || echo 7 > /proc/sys/kernel/printk")  # Else such a line stays in the kernel's buffer.
    guest.wait_for_console(REFUSED, time_limit_s=0)  # Whatever was said before does not count.
    room = ("--room", bench.parameters["room"])
    worlds = guest.script("exhaust.py", *room, *broken(bench.parameters["world"], "exhaustion"), time_limit_s=LONG_S).records
    said = guest.wait_for_console(REFUSED, time_limit_s=5)
    outside = guest.outside()
    seen = {
        "worlds": {str(world["world"]): world for world in worlds},
        "console": said,
        "guest_panicked": outside["panicked"],
        "guest_status": outside["status"],
    }
    bench.record("exhaustion", seen)


def parent(bench: Bench, observation: str, kind: str, forks: object) -> dict[str, object]:
    """One parent forking at the lab's rate, watched by another process of the guest."""
    guest: Guest = bench.guest()
    rate, samples = bench.parameters["rate"], bench.parameters["samples"]
    load = ("--parent", kind, "--forks", str(forks), "--rate", rate, "--samples", samples)
    watched = guest.script(
        "accumulate.py", *load, *broken(bench.parameters["world"], observation), time_limit_s=float(str(forks)) / float(rate) + LONG_S
    )
    return dict(watched.record)
