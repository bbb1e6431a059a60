"""One recorded boot, read from the evidence, and what several of them say together. Pure functions; all times are seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vmlab.lab import EvidenceProblem, Record

from . import graph as graphs

NOISY = 0.1
"""The disturbance from which on nothing that took too long is held against anyone."""
PHASES = ("firmware", "kernel", "early", "services", "ready")


@dataclass(frozen=True)
class Mark:
    """What a service said: when by the guest's boot clock, when it came by the host's, and (at its end) the CPU time and rounds spent."""

    guest_s: float
    host_s: float
    cpu_s: float = 0.0
    work: int = 0


@dataclass(frozen=True)
class Boot:
    """A boot by its marks, without those of the last service, which only says that all are ready."""

    place: str
    arm: str
    graph: str
    begins: Mapping[str, Mark]
    ends: Mapping[str, Mark]
    ready: Mark
    initrd_s: float
    """When the initrd spoke, by the host's clock: the first sign of user space."""
    noise: float
    """How much this machine disturbed it, see `disturbance`."""

    @property
    def services_s(self) -> float:
        """From the first service's begin to the last one's end, by the guest's clock."""
        return round(max(mark.guest_s for mark in self.ends.values()) - self.first_s, 3)

    @property
    def first_s(self) -> float:
        """When the first service began, by the guest's clock."""
        return min(mark.guest_s for mark in self.begins.values())

    @property
    def services_by_host_s(self) -> float:
        """The same stretch by the host's clock."""
        return max(mark.host_s for mark in self.ends.values()) - min(mark.host_s for mark in self.begins.values())

    @property
    def whole_s(self) -> float:
        """From the start of QEMU to the mark that all services are ready, by the host's clock."""
        return self.ready.host_s

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Begin and end of each service, by the guest's clock."""
        return [(mark.guest_s, self.ends[name].guest_s) for name, mark in self.begins.items()]

    @property
    def at_once(self) -> int:
        """How many services ran at the same moment, at most."""
        return graphs.most_at_once(self.intervals)

    def phases(self) -> dict[str, float]:
        """Where the time went, by name (`PHASES`). The guest's clock starts with its kernel: what it is behind the host's is firmware."""
        marks = [*self.begins.values(), *self.ends.values(), self.ready]
        kernel = min(mark.host_s - mark.guest_s for mark in marks)
        cuts = [0.0, kernel, self.initrd_s, self.first_s + kernel, self.first_s + self.services_s + kernel, self.whole_s]
        return {name: round(until - since, 3) for name, since, until in zip(PHASES, cuts, cuts[1:], strict=False)}


def read(record: Record) -> Boot:
    """A boot from its record. EvidenceProblem when a mark is missing, comes twice, or is out of order."""
    begins, ends = marks(record, "begin"), marks(record, "end")
    ready = [mark for name, mark in ends.items() if name.startswith("ready-")]
    begins, ends = ({name: mark for name, mark in each.items() if not name.startswith("ready-")} for each in (begins, ends))
    if not begins or set(begins) != set(ends) or len(ready) != 1:
        raise EvidenceProblem(f"{record.place}.marks: expected a begin and an end of each service, and that all are ready")
    wrong = [name for name, mark in begins.items() if ends[name].guest_s < mark.guest_s]
    if wrong:
        raise EvidenceProblem(f"{record.place}.marks: {wrong[0]} ends before it begins")
    spoke = [line.number("at_s", minimum=0) for line in record.records("console") if line.text("text").startswith("vmlab-initrd: up")]
    if not spoke:
        raise EvidenceProblem(f"{record.place}.console: expected the initrd's line")
    noise = disturbance(record.record("noise"))
    return Boot(record.place, record.text("arm"), record.text("graph"), begins, ends, ready[0], spoke[0], noise)


def disturbance(noise: Record) -> float:
    """How much a machine disturbed a boot that was measured on it: 0 not at all, `NOISY` and more enough to spoil a time.

    The share of its CPU time that others used or a hypervisor took away; or, if that is more, half the share of the time that QEMU's
    threads were ready to run and had no CPU, which also sees a limit on the CPU time of a container. (Half: on two CPUs its two virtual
    processors and what serves them wait for each other for a twelfth of the time.)
    """
    wall_s = noise.number("wall_s", minimum=0.1)
    taken_s = noise.number("others_cpu_s", minimum=0) + noise.number("steal_s", minimum=0)
    return max(taken_s / (wall_s * noise.integer("cpus", minimum=1)), noise.number("waited_s", minimum=0) / wall_s / 2)


def noise_of(boot: Mapping[str, Any]) -> float:
    """The same of a boot that was just made."""
    return disturbance(Record("boot", boot).record("noise"))


def marks(record: Record, event: str) -> dict[str, Mark]:
    """The marks of one kind by service, in the order in which they came."""
    found: dict[str, Mark] = {}
    for each in record.records("marks"):
        name = each.text("service")
        if each.text("event") != event:
            continue
        if name in found:
            raise EvidenceProblem(f"{each.place}: {name} says {event} twice")
        spent = (each.number("cpu_s", minimum=0), each.integer("work", minimum=0)) if event == "end" else ()
        found[name] = Mark(each.number("guest_s", minimum=0), each.number("host_s", minimum=0), *spent)
    return found


def in_the_middle(boots: Sequence[Boot]) -> Boot:
    """The boot in the middle by the time that its services took."""
    return sorted(boots, key=lambda each: each.services_s)[len(boots) // 2]


def disturbed(boots: Sequence[Boot]) -> float:
    """How much the machine disturbed these boots: the median."""
    return median(each.noise for each in boots)


def undisturbed(boots: Sequence[Boot], fewest: int) -> Sequence[Boot]:
    """The boots that the machine did not disturb, if they are as many as an interval needs; else all of them."""
    quiet = [each for each in boots if each.noise <= NOISY]
    return quiet if len(quiet) >= fewest else boots


def without_stalls_s(boots: Sequence[Boot], after: Mapping[str, Sequence[str]]) -> float:
    """How long the services would have taken, had each been as quick as in that of the boots in which it was quickest.

    What makes a service slow is there in every boot. What only stalls the machine, such as a host that swaps, hits one service now and
    another then, and is gone from this. ``after`` has the services in an order that puts each behind those that it waits for.
    """
    end: dict[str, float] = {}
    for name, awaited in after.items():
        lags = [each.ends[name].guest_s - max((each.ends[other].guest_s for other in awaited), default=each.first_s) for each in boots]
        end[name] = min(lags) + max((end[other] for other in awaited), default=0.0)
    return round(max(end.values()), 3)
