"""A graph of services, and how long a boot takes to start it: predicted from the graph alone, before anything is measured.

`experiment.py` writes the predictions down, `checks.py` computes them again. Pure functions; all times are seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PER_CPU = 4
"""startpar's tasks a processor: /etc/init.d/rc of sysv-rc calls it with -p 4, and it multiplies that by the processors that are online."""
ITSELF = 1
"""startpar takes off its limit what /proc/stat counts as running, and while it reads that, it runs itself."""
REREAD_S = 0.3
"""How often startpar reads /proc/stat again, at most (startpar.c: lastlim)."""


@dataclass(frozen=True)
class Service:
    """One service: what it does, for how long (``burn``: CPU time), and what must have ended before it starts."""

    name: str
    kind: str
    cost_s: float
    after: tuple[str, ...]


def services(described: Mapping[str, Any], scale: float = 1.0) -> list[Service]:
    """The services of one graph of graph.yaml, each after those that it comes after. ValueError for a graph that cannot be started."""
    found = {name: _service(name, each, scale) for name, each in described["services"].items()}
    ordered: list[Service] = []
    while len(ordered) < len(found):
        done = {each.name for each in ordered}
        ready = [each for each in found.values() if each.name not in done and set(each.after) <= done]
        if not ready:
            raise ValueError(f"these services wait for each other, or for one that there is not: {', '.join(sorted(set(found) - done))}")
        ordered += ready
    return ordered


def _service(name: str, described: Mapping[str, Any], scale: float) -> Service:
    (kind,) = {"sleep", "burn"} & set(described)
    return Service(name, kind, round(float(described[kind]) * scale, 2), tuple(described.get("after", ())))


def sequential_s(graph: Sequence[Service]) -> float:
    """One after the other: the sum of all costs."""
    return round(sum(each.cost_s for each in graph), 3)


def critical_path_s(graph: Sequence[Service]) -> float:
    """The longest way through the dependencies: no order can be quicker."""
    end: dict[str, float] = {}
    for each in graph:
        end[each.name] = each.cost_s + max((end[name] for name in each.after), default=0.0)
    return round(max(end.values()), 3)


def parallel_s(graph: Sequence[Service], cpus: int) -> float:
    """As parallel as the dependencies allow: the critical path, or the CPU time shared out to all processors if that is more."""
    burned = sum(each.cost_s for each in graph if each.kind == "burn")
    return round(max(critical_path_s(graph), burned / cpus), 3)


def startpar_s(graph: Sequence[Service], cpus: int) -> float:
    """As startpar does it: in the order of the names, never more at once than its limit, which sinks with each service that computes."""
    left = {each.name: each.cost_s for each in graph}
    waiting, active, ended = sorted(graph, key=lambda each: each.name), list[Service](), set[str]()
    now, limit, reread = 0.0, PER_CPU * cpus - ITSELF, REREAD_S
    while len(ended) < len(graph):
        for each in [each for each in waiting if set(each.after) <= ended][: max(0, limit - len(active))]:
            waiting.remove(each)
            active.append(each)
        burning = sum(each.kind == "burn" for each in active)
        pace = {each.name: min(1.0, cpus / burning) if each.kind == "burn" else 1.0 for each in active}
        step = min([left[each.name] / pace[each.name] for each in active] + [reread - now])
        now += step
        for each in active:
            left[each.name] -= step * pace[each.name]
        ended |= {each.name for each in active if left[each.name] < 1e-9}
        active = [each for each in active if each.name not in ended]
        if now >= reread - 1e-9:
            running = sum(each.kind == "burn" for each in active)
            limit, reread = max(1, PER_CPU * cpus - ITSELF - running), now + REREAD_S
    return round(now, 3)


PREDICT = {
    "sysv-sequential": lambda graph, _cpus: sequential_s(graph),
    "sysv-startpar": startpar_s,
    "systemd-lsb": parallel_s,
    "systemd-native": parallel_s,
}
"""How long each arm takes from the first service's begin to the last one's end, as a function of the graph and the processors."""


def most_at_once(intervals: Sequence[tuple[float, float]]) -> int:
    """How many of these (begin, end) there are at the same moment, at most; one that begins when another ends does not overlap it."""
    ends: list[float] = []
    most = 0
    for begin, end in sorted(intervals):
        while ends and ends[0] <= begin:
            heapq.heappop(ends)
        heapq.heappush(ends, end)
        most = max(most, len(ends))
    return most
