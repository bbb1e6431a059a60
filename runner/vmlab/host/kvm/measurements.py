"""The measurements: what the guest does, how often, whether its results are right, and what KVM counted meanwhile.

In every measurement the expected results are computed here and compared, so that a KVM which merely pretends to run code is seen.
Counts are kept raw; `vmlab.probes.kvm` divides them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import interface, programs, tiny_guest
from .tiny_guest import FRESH, PAGE, PAGE_A, PAGE_B, WALK, WINDOW, WINDOW_TABLE, Ran, TinyGuest, entry

COMPUTE_RUNS = 5
COMPUTE_N = 200_000
LOOP_N = 2000
FRESH_PAGES = 256
SWAPS = 32

# What lies in pages A and B: any two numbers that differ.
IN_A, IN_B = 0x1111, 0x2222


@dataclass
class Measurement:
    """One measurement: ``n`` operations in ``runs`` calls of KVM_RUN, each of which ended with one exit of its own, by HLT."""

    n: int
    runs: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """KVM's counters that moved, by KVM's names, over all runs."""
    times_ns: list[int] = field(default_factory=list)
    """How long each run took."""
    correct: bool = True
    problem: str = ""
    """The first thing that was not as it must be."""

    def add(self, ran: Ran, **expected: int) -> None:
        """Count a run in; ``expected`` are registers as they must be at its end."""
        self.runs += 1
        self.times_ns.append(ran.time_ns)
        for name, count in ran.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        if not ran.halted:
            reason = interface.EXIT_REASONS.get(ran.exit_reason, f"exit reason {ran.exit_reason}")
            self._wrong(f"the guest stopped with {reason} ({ran.exit_detail:#x}) at rip {ran.registers.rip:#x} instead of its hlt")
        for name, value in expected.items():
            found = getattr(ran.registers, name)
            if found != value:
                self._wrong(f"{name} is {found:#x} and must be {value:#x}")

    def _wrong(self, problem: str) -> None:
        self.correct = False
        self.problem = self.problem or problem


def measure(guest: TinyGuest) -> Iterator[tuple[str, Measurement]]:
    """Every measurement by name, each as soon as it is done. KvmError when the kernel refuses something."""
    guest.write(PAGE_A, IN_A)
    guest.write(PAGE_B, IN_B)
    yield "compute", _compute(guest)
    yield "touch_fresh", _touch(guest)
    yield "touch_again", _touch(guest)
    yield "remap", _remap(guest)
    yield "reload_cr3", _reload_cr3(guest)
    yield "page_fault", _page_fault(guest)
    yield "swap_data", _swap(guest, (PAGE_A,))
    yield "swap_table", _swap(guest, (WINDOW_TABLE,))
    yield "swap_walk", _swap(guest, (*WALK, PAGE_A))


def _compute(guest: TinyGuest) -> Measurement:
    """Count in a register: the guest needs nothing of its hypervisor."""
    # Once beforehand, so that the pages of the program and of the tables are mapped.
    guest.run(programs.COMPUTE, 10)
    measured = Measurement(COMPUTE_RUNS * COMPUTE_N)
    for _ in range(COMPUTE_RUNS):
        measured.add(guest.run(programs.COMPUTE, COMPUTE_N, rax=5), rax=5 + COMPUTE_N)
    return measured


def _touch(guest: TinyGuest) -> Measurement:
    """Write a word into each of 256 pages: the first time the host must find memory for each, the second time for none."""
    # Once beforehand, beyond them, so that the page of their table is mapped.
    guest.run(programs.TOUCH, 1, rdi=FRESH + 511 * PAGE)
    measured = Measurement(FRESH_PAGES)
    measured.add(guest.run(programs.TOUCH, FRESH_PAGES, rdi=FRESH), rdi=FRESH + FRESH_PAGES * PAGE)
    for number in range(FRESH_PAGES):
        if guest.read(FRESH + number * PAGE) != FRESH_PAGES - number:
            measured.correct = False
            measured.problem = measured.problem or f"page {number} has not what the guest wrote"
    return measured


def _remap(guest: TinyGuest) -> Measurement:
    """The guest maps one page to A and to B in turn."""
    a_then_b = {"rsi": WINDOW_TABLE, "rdi": WINDOW, "rax": entry(PAGE_A), "rbx": entry(PAGE_B)}
    # Twice beforehand, so that both pages are mapped.
    guest.run(programs.REMAP, 2, **a_then_b)
    measured = Measurement(LOOP_N)
    measured.add(guest.run(programs.REMAP, LOOP_N, **a_then_b), r8=LOOP_N // 2 * (IN_A + IN_B))
    return measured


def _reload_cr3(guest: TinyGuest) -> Measurement:
    """The guest loads CR3 with what it holds."""
    guest.run(programs.RELOAD_CR3, 1)
    measured = Measurement(LOOP_N)
    measured.add(guest.run(programs.RELOAD_CR3, LOOP_N), rax=tiny_guest.PML4)
    return measured


def _page_fault(guest: TinyGuest) -> Measurement:
    """The guest takes page faults of its own making and handles them."""
    mapped = {"rsi": WINDOW_TABLE, "rdi": WINDOW, "rax": entry(PAGE_A)}
    guest.run(programs.FAULT, 1, **mapped)
    measured = Measurement(LOOP_N)
    measured.add(guest.run(programs.FAULT, LOOP_N, **mapped), r8=LOOP_N * IN_A, r9=LOOP_N)
    return measured


def _swap(guest: TinyGuest, pages: tuple[int, ...]) -> Measurement:
    """The host swaps its pages behind some of the guest's, which then loads one word through its unchanged page tables."""
    measured = Measurement(SWAPS)
    for number in range(SWAPS):
        guest.swap_behind(*pages)
        value = 0x5000 + number
        guest.write(PAGE_A, value)
        measured.add(guest.run(programs.LOAD, 1, rdi=WINDOW), rax=value)
    guest.write(PAGE_A, IN_A)
    return measured
