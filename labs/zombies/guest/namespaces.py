#!/usr/bin/env python3
"""PID 1 that does not reap, in PID namespaces: three little worlds side by side, seen from outside.

In each, PID 1 starts a process that has children and exits; PID 1 adopts the children, and then they exit. The worlds differ only in
what PID 1 does about it: `never` waits for nobody until the observer tells it to, `abandoned` waits for nobody and is killed from
outside at the end, `reaps` waits all the time.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time

from vmlab_guest import namespaces
from vmlab_guest.proc import children_of, pid_inside, stat_or_none
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.

EXIT_LIMIT_S = 60.0  # So long orphans may take to exit,
END_LIMIT_S = 10.0  # and so long zombies to go, before nothing more is waited for.


class Namespace(namespaces.PidNamespace):
    """One PID namespace, whose PID 1 is of a kind."""

    def __init__(self, kind: str, orphans: int, gate: int, gate_in: int, *, acts: str = "") -> None:
        self.kind = kind
        orders, self.orders = os.pipe()

        def init() -> None:
            os.close(gate_in)
            be_pid_1(acts or kind, orphans, orders, gate)

        super().__init__(init)

    def count(self) -> tuple[int, int]:
        """Zombies and living processes among the children of this world's PID 1."""
        zombies, living = children_of(self.init)
        return len(zombies), len(living)

    def has_adopted(self, orphans: int) -> bool:
        """Whether PID 1 has so many living children. The orphans' parent is one of its children too until it has exited, the last to do."""
        return self.count()[1] == orphans


def be_pid_1(kind: str, orphans: int, orders: int, gate: int) -> None:
    """PID 1 of a namespace: start a parent that leaves its children behind, then reap or do not."""
    if os.fork() == 0:
        for _ in range(orphans):
            if os.fork() == 0:
                os.read(gate, 1)
                os._exit(EXIT_CODE)
        os._exit(0)
    if kind == "reaps":
        while True:
            try:
                os.wait()
            except ChildProcessError:
                time.sleep(0.01)
    os.read(orders, 1)  # `never` and `abandoned` sit here, waiting for nobody.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()


def main() -> None:
    """Run the three worlds together, so that each had the same time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orphans", type=int, default=20)
    parser.add_argument("--patience", type=float, default=3.0, help="seconds to watch the zombies stay")
    parser.add_argument("--kinds", nargs="*", default=["never", "abandoned", "reaps"])
    parser.add_argument("--swap", default=":", metavar="KIND:ACTS", help="control: the PID 1 of one kind acts as that of another")
    options = parser.parse_args()
    swapped, _, acts = options.swap.partition(":")

    gate, gate_in = os.pipe()
    with contextlib.ExitStack() as stack:
        worlds = [
            stack.enter_context(Namespace(kind, options.orphans, gate, gate_in, acts=acts if kind == swapped else ""))
            for kind in options.kinds
        ]
        # (A look reads /proc of them all: with a thousand it must not come so often that it takes the processor from their parents.)
        pace = {"limit_s": EXIT_LIMIT_S + options.orphans * 0.3, "every_s": 0.02 + options.orphans / 500}
        wait_until(lambda: all(world.has_adopted(options.orphans) for world in worlds), **pace)
        found = {world.kind: before_the_end(world) for world in worlds}
        os.close(gate_in)  # All the orphans read the end of the pipe, and exit.
        samples = watch(worlds, options.patience)
        endings = {world.kind: bring_to_an_end(world) for world in worlds}
    say({kind: {**found[kind], "samples": samples[kind], **endings[kind]} for kind in found})


def watch(worlds: list[Namespace], patience_s: float) -> dict[str, list[dict[str, float | int]]]:
    """Count in all worlds until the orphans have been dead for as long as patience lasts.

    Patience begins when none of those lives that nobody reaps: a thousand that exit at once, or a busy machine, may take some seconds.
    """
    samples: dict[str, list[dict[str, float | int]]] = {world.kind: [] for world in worlds}
    exited_at = time.monotonic()
    dead_at = None
    over = False
    while not over:
        now = time.monotonic()
        # (Asked before the count, so that the last count comes after all of that time.)
        over = now - dead_at >= patience_s if dead_at else now - exited_at >= EXIT_LIMIT_S
        alive = 0
        for world in worlds:
            elapsed = time.monotonic() - exited_at
            zombies, living = world.count()
            alive += living if world.kind != "reaps" else 0
            samples[world.kind].append({"elapsed_s": round(elapsed, 3), "zombies": zombies, "living": living})
        if dead_at is None:
            # (The time after the count: whoever takes the time from this count on to the last one finds all of patience between them.)
            dead_at = None if alive else time.monotonic()
            time.sleep(0.05 if alive else 0)
        elif not over:
            time.sleep(min(patience_s / 8, max(0.0, dead_at + patience_s - time.monotonic())))
    return samples


def before_the_end(world: Namespace) -> dict[str, object]:
    """The orphans while they live: adopted by this world's PID 1?"""
    zombies, living = children_of(world.init)
    adopted = sum(1 for pid in living if (fields := stat_or_none(pid)) and fields["ppid"] == world.init)
    return {"pid_inside": pid_inside(world.init), "adopted_alive": adopted, "zombies_before": len(zombies)}


def bring_to_an_end(world: Namespace) -> dict[str, object]:
    """Let `never` reap at last; kill the PID 1 of `abandoned`; look how long it takes until nothing is left, in `reaps` as well."""
    members = [*children_of(world.init)[0]]
    acted_at = time.monotonic()
    looks = 0
    if world.kind == "never":
        os.write(world.orders, b"!")
    elif world.kind == "abandoned":
        os.kill(world.init, signal.SIGKILL)
    # A killed PID 1 reaps the rest of its namespace before it is gone itself, and then its own parent has to reap it.
    leaving = [*members, world.init] if world.kind == "abandoned" else members

    def nothing_is_left() -> bool:
        nonlocal looks
        looks += 1
        return not any(stat_or_none(pid) for pid in leaving)

    wait_until(nothing_is_left, limit_s=END_LIMIT_S, every_s=0.01)
    return {
        "zombies_at_end": len(members),
        "ended_by": {"never": "reaping", "abandoned": "kill"}.get(world.kind, "nothing"),
        "left": sum(1 for pid in members if stat_or_none(pid)),
        "looks_at_end": looks,
        "clear_after_s": round(time.monotonic() - acted_at, 4),
        "init_alive": stat_or_none(world.init) is not None,
    }


if __name__ == "__main__":
    main()
