"""The measurements: what the guest does, how often, whether its results are right, and what KVM counted meanwhile.

In every phase the expected results are computed here and compared, so that a KVM which merely pretends to run code is seen. Counts are
kept raw; `vmlab.probes.kvm` divides them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import interface, machine, programs
from .machine import FRESH, PAGE, PAGE_A, PAGE_B, WALK, WINDOW, WINDOW_TABLE, Ran, TinyMachine, entry

COMPUTE_RUNS = 5
COMPUTE_N = 200_000
LOOP_N = 2000
FRESH_PAGES = 256
SWAPS = 32

# What lies in pages A and B: any two numbers that differ.
IN_A, IN_B = 0x1111, 0x2222


@dataclass
class Phase:
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


def measure(guest: TinyMachine) -> Iterator[tuple[str, Phase]]:
    """Every phase by name, each as soon as it is done. KvmError when the kernel refuses something."""
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


def _compute(guest: TinyMachine) -> Phase:
    """Count in a register: the guest needs nothing of its hypervisor."""
    # Once beforehand, so that the pages of the program and of the tables are mapped.
    guest.run(programs.COMPUTE, 10)
    phase = Phase(COMPUTE_RUNS * COMPUTE_N)
    for _ in range(COMPUTE_RUNS):
        phase.add(guest.run(programs.COMPUTE, COMPUTE_N, rax=5), rax=5 + COMPUTE_N)
    return phase


def _touch(guest: TinyMachine) -> Phase:
    """Write a word into each of 256 pages: the first time the host must find memory for each, the second time for none."""
    # Once beforehand, beyond them, so that the page of their table is mapped.
    guest.run(programs.TOUCH, 1, rdi=FRESH + 511 * PAGE)
    phase = Phase(FRESH_PAGES)
    phase.add(guest.run(programs.TOUCH, FRESH_PAGES, rdi=FRESH), rdi=FRESH + FRESH_PAGES * PAGE)
    for number in range(FRESH_PAGES):
        if guest.read(FRESH + number * PAGE) != FRESH_PAGES - number:
            phase.correct = False
            phase.problem = phase.problem or f"page {number} has not what the guest wrote"
    return phase


def _remap(guest: TinyMachine) -> Phase:
    """The guest maps one page to A and to B in turn."""
    a_then_b = {"rsi": WINDOW_TABLE, "rdi": WINDOW, "rax": entry(PAGE_A), "rbx": entry(PAGE_B)}
    # Twice beforehand, so that both pages are mapped.
    guest.run(programs.REMAP, 2, **a_then_b)
    phase = Phase(LOOP_N)
    phase.add(guest.run(programs.REMAP, LOOP_N, **a_then_b), r8=LOOP_N // 2 * (IN_A + IN_B))
    return phase


def _reload_cr3(guest: TinyMachine) -> Phase:
    """The guest loads CR3 with what it holds."""
    guest.run(programs.RELOAD_CR3, 1)
    phase = Phase(LOOP_N)
    phase.add(guest.run(programs.RELOAD_CR3, LOOP_N), rax=machine.PML4)
    return phase


def _page_fault(guest: TinyMachine) -> Phase:
    """The guest takes page faults of its own making and handles them."""
    mapped = {"rsi": WINDOW_TABLE, "rdi": WINDOW, "rax": entry(PAGE_A)}
    guest.run(programs.FAULT, 1, **mapped)
    phase = Phase(LOOP_N)
    phase.add(guest.run(programs.FAULT, LOOP_N, **mapped), r8=LOOP_N * IN_A, r9=LOOP_N)
    return phase


def _swap(guest: TinyMachine, pages: tuple[int, ...]) -> Phase:
    """The host swaps its pages behind some of the guest's, which then loads one word through its unchanged page tables."""
    phase = Phase(SWAPS)
    for number in range(SWAPS):
        guest.swap_behind(*pages)
        value = 0x5000 + number
        guest.write(PAGE_A, value)
        phase.add(guest.run(programs.LOAD, 1, rdi=WINDOW), rax=value)
    guest.write(PAGE_A, IN_A)
    return phase
