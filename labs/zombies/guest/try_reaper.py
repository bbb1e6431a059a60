#!/usr/bin/env python3
"""A student's supervisor, tried: commands that end in another order than they began, forty that end at once, one that is stopped.

Everything is seen from outside: which children the supervisor has, how long each stays a zombie, how much CPU time it takes. What it
printed is a text beside that. A zombie's age counts only while the supervisor could have run: see `Watch`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from vmlab_guest.proc import GONE, read, read_once, stat, threads
from vmlab_guest.say import say
from vmlab_guest.student import Program, Running

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 40
FINE_S = 0.005  # How long the observer sleeps between two looks: the supervisor, which has a part of one CPU, gets all of it meanwhile.
IDLE_S = 0.4
LIMIT_S = 40.0
PATIENCE_S = 3.0  # For what should come at once: a line about a command that has ended, the end after all of them.
SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1)


def main() -> None:
    """Three runs of the program, each said as soon as it has ended."""
    program = Program()
    for trial in (mixed, burst, stopped):
        say(trial(program))


# --- looking ----------------------------------------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    """The children of a process, zombies too, of all its threads."""
    try:
        each = [read_once(f"/proc/{parent}/task/{thread}/children").split() for thread in threads(parent)]
    except GONE:
        return []
    return sorted(int(child) for some in each for child in some)


def state(pid: int) -> str:
    """The letter of a process's state; empty when it is gone."""
    try:
        return str(stat(pid)["state"])
    except GONE:
        return ""


def scheduled(pid: int) -> tuple[int, int]:
    """How long a process has run, and how long it was ready to run and had to wait, in ns (/proc/PID/task/TID/schedstat)."""
    ran = waited = 0
    try:
        for thread in threads(pid):
            fields = read_once(f"/proc/{pid}/task/{thread}/schedstat").split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    except GONE:
        pass
    return ran, waited


def idle() -> float:
    """How long the guest's CPUs had nothing to do since boot, in seconds (/proc/stat, the fourth number, in ticks of 10 ms)."""
    return int(read("/proc/stat").split()[4]) / 100


class Watch:
    """How long each child of the supervisor is seen as a zombie.

    ``looks`` counts the looks at which it was one, and the observer slept 5 ms before each: whatever held up the whole guest is one look.
    ``waited_s`` is how long the supervisor was ready meanwhile and others had the CPU. (The kernel counts that when the wait is over: so it
    is read at the first look at which the zombie is gone.)
    """

    def __init__(self, run: Running) -> None:
        self._pid = run.pid
        self._seen: dict[int, list[float]] = {}
        self._gone: set[int] = set()
        self.looks = 0

    def look(self) -> bool:
        """Look once. True, so that it can be part of a condition that is waited for."""
        now, (_, waited_ns) = time.monotonic(), scheduled(self._pid)
        self.looks += 1
        zombies = [child for child in children(self._pid) if state(child) == "Z"]
        for child in zombies:
            self._seen.setdefault(child, [now, waited_ns, 0, now, waited_ns])[2] += 1
        for child, row in self._seen.items():
            if child in zombies:
                row[3:] = [now, waited_ns]
            elif child not in self._gone:
                row[4] = waited_ns
                self._gone.add(child)
        return True

    def until(self, holds: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
        """Look again and again until something holds; whether it did before the guest had nothing to do for so long.

        Time in which the guest's CPU is busy does not count, so that a slow machine gets more of it.
        """
        idle_s, ends = idle(), time.monotonic() + LIMIT_S
        while self.look() and not holds():
            if idle() - idle_s >= patience_s or time.monotonic() >= ends:
                return False
            time.sleep(FINE_S)
        return True

    def record(self) -> dict[str, object]:
        """The zombies that were seen, those that stayed longest first."""
        rows = [
            {"pid": pid, "looks": int(count), "age_s": round(last - first, 4), "waited_s": round((waited_last - waited) / 1e9, 4)}
            for pid, (first, waited, count, last, waited_last) in self._seen.items()
        ]
        return {"looks": self.looks, "seen": len(rows), "longest": sorted(rows, key=lambda row: -row["looks"])[:10]}


# --- asking -----------------------------------------------------------------------------------------------------------------------


def ask(run: Running, commands: list[str]) -> None:
    """Tell it commands, a line each."""
    # It may have ended, or not read: what it was asked and has not done shows in what it printed.
    with contextlib.suppress(BrokenPipeError, TimeoutError):
        run.write("".join(f"{command}\n" for command in commands).encode())


def told(run: Running) -> list[dict[str, object]]:
    """The lines that it printed."""
    return [{"at_s": round(at_s - run.started_s, 4), "text": text[:200]} for at_s, text in run.lines[:200]]


def close(run: Running, watch: Watch) -> dict[str, object]:
    """Close its input, and wait a while for its end; what it printed, and its zombies."""
    run.close_input()
    watch.until(lambda: run.wait(0.0))
    return {"lines": told(run), "zombies": watch.record()}


def sleeper(run: Running, seconds: float) -> int | None:
    """The child that sleeps for this long, as a command asked for."""
    for child in children(run.pid):
        try:
            if read_once(f"/proc/{child}/cmdline").split(b"\0")[:2] == [b"sleep", str(seconds).encode()]:
                return child
        except GONE:
            continue
    return None


# --- the three runs -----------------------------------------------------------------------------------------------------------------


def mixed(program: Program) -> dict[str, object]:
    """Six commands; the first ends last, two are killed. Statuses are drawn anew each time."""
    first, second = random.sample(range(1, 120), 2)
    asked = [
        (f"sleep 0.6; exit {first}", first),
        ("exit 0", 0),
        (f"exit {second}", second),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("exec sleep 0.3", 0),
        ("kill -KILL $$", 128 + signal.SIGKILL),
    ]
    with program.running(stdin=None) as run:
        watch = Watch(run)
        ask(run, [command for command, _ in asked])
        watch.until(lambda: len(run.lines) >= len(asked) or run.wait(0.0))
        seen = {"run": "mixed", "statuses": [status for _, status in asked], **close(run, watch)}
    return {**seen, "program": run.record()}


def burst(program: Program) -> dict[str, object]:
    """Forty commands that sleep; nothing happens for a while; then all are killed within a millisecond."""
    with program.running(stdin=None) as run:
        watch, sleeps = Watch(run), [f"exec sleep {1000 + number}" for number in range(1, BURST + 1)]
        ask(run, sleeps[:1])
        watch.until(lambda: sleeper(run, 1001))
        before = descriptors(run.pid)
        ask(run, sleeps[1:])
        running = watch.until(lambda: all(sleeper(run, 1000 + number) for number in (1, BURST)) and len(children(run.pid)) == BURST)
        began, (ran_ns, _) = time.monotonic(), scheduled(run.pid)
        time.sleep(IDLE_S)
        rest = {"for_s": round(time.monotonic() - began, 4), "cpu_s": round((scheduled(run.pid)[0] - ran_ns) / 1e9, 4)}
        victims = [(child, random.choice(SIGNALS)) for number in range(1, BURST + 1) if (child := sleeper(run, 1000 + number))]
        kill_began = time.monotonic()
        for child, number in victims:
            os.kill(child, number)
        killed_within_s = round(time.monotonic() - kill_began, 6)
        watch.until(lambda: len(run.lines) >= len(victims) or run.wait(0.0))
        after = descriptors(run.pid)
        seen = {
            "run": "burst",
            "running": running,
            "statuses": [128 + number for _, number in victims],
            "killed_within_s": killed_within_s,
            "idle": rest,
            "descriptors": {"before": before, "after": after},
            **close(run, watch),
        }
    return {**seen, "program": run.record()}


def stopped(program: Program) -> dict[str, object]:
    """One command is stopped and continued; another ends and leaves a process behind, which ends later."""
    with program.running(stdin=None, subreaper=True) as run:
        watch = Watch(run)
        ask(run, ["exec sleep 0.9", "(sleep 0.4) & exit 0"])
        watch.until(lambda: sleeper(run, 0.9))
        child = sleeper(run, 0.9)
        states, early = "", []
        if child is not None:
            os.kill(child, signal.SIGSTOP)
            watch.until(lambda: state(child) in ("T", ""), 2.0)
            watch.until(lambda: False, 0.2)
            states, early = state(child), told(run)
            os.kill(child, signal.SIGCONT)
        watch.until(lambda: (len(run.lines) >= 2 and not children(run.pid)) or run.wait(0.0))
        adopted = children(run.pid)
        seen = {"run": "stopped", "statuses": [0, 0], "state": states, "early": early, "left": len(adopted), **close(run, watch)}
    return {**seen, "program": run.record()}


def descriptors(pid: int) -> int:
    """How many files a process has open; 0 when it is gone."""
    try:
        return sum(1 for _ in os.scandir(f"/proc/{pid}/fd"))
    except GONE:
        return 0


if __name__ == "__main__":
    main()
