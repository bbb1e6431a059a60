"""Zombies: make them, take one apart, weigh them, fill the system with them, and get rid of them."""

from __future__ import annotations

from vmlab.bench import Bench, Guest, UsageError, part

from .stalls import QUIET, noise_of
from .worlds import broken

NEVER, REAPS, IGNORES = "accumulation", "reaping", "ignored"
REFUSED = "fork rejected by pids controller"
LONG_S = 180.0  # For a script that takes a few seconds: a guest may be emulated on a busy machine, and ten times slower.
FORK_S = 0.1  # And for each process that it makes: in such a guest one takes a hundredth of a second, most of it Python's.
ATTEMPTS = 3  # So often a parent is watched, at most, until the machine did not stand still meanwhile,
WORTH_S = 60.0  # where that takes no longer than this;
LONGEST_S = 400.0  # and at most so long, of the time that lab.yaml gives the whole run.
SPARE = 200  # Processes that the guest itself may need.

# Nothing is judged here. The cost comes first, before anything has read the /proc directories of many processes, because that reading
# costs memory too.


@part
def cost(bench: Bench) -> None:
    """What one zombie costs the kernel."""
    batches, batch = whole(bench, "batches"), whole(bench, "batch")
    made = (batches + 1) * batch
    has_room(bench, made, "--param batches=... and --param batch=...")
    bench.record("cost", script(bench, "cost", "cost.py", "--batches", batches, "--batch", batch, limit_s=LONG_S + made * FORK_S))


@part
def limits(bench: Bench) -> None:
    """The limits, as this system sets them."""
    bench.record("limits", script(bench, "limits", "limits.py"))


@part
def anatomy(bench: Bench) -> None:
    """One child: alive, a zombie, reaped."""
    bench.record("anatomy", script(bench, "anatomy", "anatomy.py"))


@part
def never(bench: Bench) -> None:
    """A parent that never waits."""
    bench.record(NEVER, parent(bench, NEVER, "never", whole(bench, "zombies")))


@part
def reaps(bench: Bench) -> None:
    """A parent that reaps, under the same load."""
    bench.record(REAPS, parent(bench, REAPS, "reap", whole(bench, "zombies")))


@part
def ignores(bench: Bench) -> None:
    """A parent that ignores SIGCHLD."""
    bench.record(IGNORES, parent(bench, IGNORES, "ignore", whole(bench, "ignored")))


@part
def orphans(bench: Bench) -> None:
    """The parent of zombies is killed."""
    zombies = whole(bench, "orphans")
    has_room(bench, zombies, "--param orphans=...")
    # (PID 1 does more than a wait for each child. It is given time: only one that makes no headway counts as one that never reaps.)
    patience_s = 30 + zombies * FORK_S
    family = ("--zombies", zombies, "--patience", patience_s)
    bench.record("orphans", script(bench, "orphans", "orphans.py", *family, limit_s=2 * patience_s + zombies * FORK_S + LONG_S))


@part
def namespaces(bench: Bench) -> None:
    """A PID 1 that does not reap."""
    patience_s, adopted = float(bench.parameters["patience_s"]), whole(bench, "adopted")
    has_room(bench, 3 * adopted, "--param adopted=...")
    watch = ("--orphans", adopted, "--patience", patience_s)
    limit_s = patience_s + 3 * adopted * FORK_S + LONG_S
    bench.record("namespaces", script(bench, "namespaces", "namespaces.py", *watch, limit_s=limit_s))


@part
def exhaustion(bench: Bench) -> None:
    """Fork until the kernel refuses, by four limits.

    The four worlds by name, the guest's state, and the kernel's own words, as the host reads them from the serial console.
    """
    guest, room = bench.guest(), whole(bench, "room")
    # (In the world without a limit twice as many are made.)
    has_room(bench, 2 * room, "--param room=...")
    guest.run("dmesg --console-level info || echo 7 > /proc/sys/kernel/printk")  # Else such a line stays in the kernel's buffer.
    guest.wait_for_console(REFUSED, time_limit_s=0)  # Whatever was said before does not count.
    told = broken(bench.parameters["world"], "exhaustion")
    worlds = guest.script("exhaust.py", "--room", room, *told, time_limit_s=LONG_S + 8 * room * FORK_S).records
    said = guest.wait_for_console(REFUSED, time_limit_s=5)
    outside = guest.outside()
    seen = {
        "worlds": {str(world["world"]): world for world in worlds},
        "console": said,
        "guest_panicked": outside["panicked"],
        "guest_status": outside["status"],
    }
    bench.record("exhaustion", seen)


# --- how it is done ---------------------------------------------------------------------------------------------------------------


def script(bench: Bench, observation: str, name: str, *args: str | int | float, limit_s: float = LONG_S) -> dict[str, object]:
    """What a script of the guest observed, in the world that the run asks for."""
    return dict(bench.guest().script(name, *args, *broken(bench.parameters["world"], observation), time_limit_s=limit_s).record)


def parent(bench: Bench, observation: str, kind: str, forks: int) -> dict[str, object]:
    """One parent forking at the lab's rate, watched by another process of the guest; again when the machine stood still meanwhile."""
    rate = float(bench.parameters["rate"])
    has_room(bench, forks, f"--param {'ignored' if kind == 'ignore' else 'zombies'}=...")
    takes_s = forks * (1 / rate + FORK_S / 10)
    if takes_s > LONGEST_S:
        raise UsageError(
            f"{forks:,} forks at {rate:g} a second would take {takes_s:,.0f} s, and the lab has {LONGEST_S:g} s for them",
            hint="ask for fewer children, or for a higher --param rate=...",
        )
    load = ("--parent", kind, "--forks", forks, "--rate", rate, "--samples", whole(bench, "samples"))

    def watched() -> dict[str, object]:
        return script(bench, observation, "accumulate.py", *load, limit_s=takes_s + forks * FORK_S + LONG_S)

    return bench.quietest(ATTEMPTS if takes_s <= WORTH_S else 1, watched, noise=noise_of, quiet_below=QUIET)


def whole(bench: Bench, name: str) -> int:
    """A parameter that is a whole number."""
    return int(bench.parameters[name])


def tasks_left(guest: Guest) -> int:
    """How many processes the guest could still make before threads-max, which is the least of the limits of the whole system."""
    words = guest.run("cat /proc/sys/kernel/threads-max /proc/loadavg").stdout.split()
    return int(words[0]) - int(words[4].partition("/")[2])


def has_room(bench: Bench, processes: int, which: str) -> None:
    """UsageError where the guest has no room for so many processes at once: what the lab teaches, and no way to end a run."""
    left = tasks_left(bench.guest()) - SPARE
    if processes > left:
        raise UsageError(
            f"this would make {processes:,} processes at once, and the guest has room for {left:,} (/proc/sys/kernel/threads-max)",
            hint=f"ask for fewer: {which}",
        )
