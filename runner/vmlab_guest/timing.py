"""Taking times: arms by turns, and beside each sample how much CPU time was one's own and how often one was made to wait.

A wall-clock time alone does not say whether the machine was slow or busy with others. Here each sample carries what tells it: a sample
without involuntary switches whose CPU time is its wall time was nobody else's. All of it is raw: what to judge by is up to the checks.
"""

import os
import resource
import time

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self


def pin(cpu: int | None = None) -> int:
    """Bind the calling thread, and what it starts from now on, to one CPU, by default the first that it may use; its number."""
    chosen = min(os.sched_getaffinity(0)) if cpu is None else cpu
    os.sched_setaffinity(0, {chosen})
    return chosen


class Stopwatch:
    """Takes the time of a block: ``with Stopwatch() as watch: ...``; then ``watch.sample``.

    ``wall_ns`` is by CLOCK_MONOTONIC; ``cpu_ns`` is the calling thread's own time on a processor (CLOCK_THREAD_CPUTIME_ID);
    ``involuntary`` is how often it was taken off one while it could have run, ``voluntary`` how often it waited (getrusage(2),
    RUSAGE_THREAD).
    """

    def __init__(self) -> None:
        self.sample: dict[str, int] = {}

    def __enter__(self) -> "Self":
        self._before = resource.getrusage(resource.RUSAGE_THREAD)
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = time.monotonic_ns()  # (Last here and first there: the time of looking is not in it.)
        return self

    def __exit__(self, *_: object) -> None:
        wall_ns = time.monotonic_ns() - self._wall_ns
        cpu_ns = time.thread_time_ns() - self._cpu_ns
        after = resource.getrusage(resource.RUSAGE_THREAD)
        self.sample = {
            "wall_ns": wall_ns,
            "cpu_ns": cpu_ns,
            "involuntary": after.ru_nivcsw - self._before.ru_nivcsw,
            "voluntary": after.ru_nvcsw - self._before.ru_nvcsw,
        }


def sampled(work: "Callable[[], object]") -> dict[str, int]:
    """One sample, as `Stopwatch` has it, of what this does."""
    with Stopwatch() as watch:
        work()
    return watch.sample


def by_turns(arms: "Mapping[str, Callable[[], object]]", rounds: int, *, warm_up: int = 1) -> dict[str, list[dict[str, int]]]:
    """Samples of each arm, one of every arm a round, so that whatever disturbs the machine disturbs all; the i-th of each belong together.

    Every second round goes through the arms backwards, or one of them would always come after the same other. The first ``warm_up``
    rounds are thrown away: they fill caches.
    """
    taken: dict[str, list[dict[str, int]]] = {name: [] for name in arms}
    for turn in range(-warm_up, rounds):
        for name in list(arms) if turn % 2 == 0 else list(reversed(list(arms))):
            sample = sampled(arms[name])
            if turn >= 0:
                taken[name].append(sample)
    return taken


def children_cpu_s() -> float:
    """The CPU time, in seconds, of all children that were reaped, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
