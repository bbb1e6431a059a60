"""How much of this machine guests may take together, and how much a run asks for: the rule that slots are given by.

memory   a run asks for the memory of all guests that its lab declares, GUEST_OVERHEAD_BYTES for each of them, and RUNNER_BYTES;
         all runs together get what this process may use (control groups respected) less what is left to the rest of the system
CPUs     a run asks for the virtual CPUs of all its guests; all runs together get those that this process may use
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmlab.errors import UsageError
from vmlab.host import facts
from vmlab.host.facts import GIB, MIB, in_words
from vmlab.host.view import HostView

# What QEMU takes beside the guest's own memory: at most so much under emulation, 192 MiB of it TCG's buffer for translated code
# (measured by benchmarks/clone.py: "QEMU's after 100 commands"); less under KVM, for which the same is reserved.
GUEST_OVERHEAD_BYTES = 300 * MIB

# What a run's own process takes (its proportional set size, proc_pid_smaps(5)), rounded up.
RUNNER_BYTES = 128 * MIB

# Left to the rest of the system: a tenth of the memory, and no more than this.
_LEFT_AT_MOST = GIB
_LEFT_PART = 10


@dataclass(frozen=True)
class Share:
    """What one guest takes."""

    memory_bytes: int
    cpus: int
    """Its virtual CPUs, all of them: two guests of two each on two cores gain less by running at the same time than two of one each
    (benchmarks/many.py, with `cpus` of the zombies lab set to 2 and to 1)."""


@dataclass(frozen=True)
class Need:
    """What a run asks for: all that its guests take together, so that no run ever waits for a second guest while it holds a first."""

    guests: Mapping[str, Share]
    exclusive: bool = False

    @property
    def memory_bytes(self) -> int:
        """Of all guests, of QEMU beside them, and of the runner."""
        return sum(share.memory_bytes + GUEST_OVERHEAD_BYTES for share in self.guests.values()) + RUNNER_BYTES

    @property
    def cpus(self) -> int:
        """The virtual CPUs of all guests."""
        return sum(share.cpus for share in self.guests.values())

    def in_words(self) -> str:
        """The sum, as a person would check it."""
        each = " + ".join(f"{in_words(share.memory_bytes)} for guest {name}" for name, share in self.guests.items())
        qemu = f"{len(self.guests)} x {in_words(GUEST_OVERHEAD_BYTES)} for QEMU"
        return f"{each} + {qemu} + {in_words(RUNNER_BYTES)} for the runner = {in_words(self.memory_bytes)}"


@dataclass(frozen=True)
class Capacity:
    """What all runs on this machine may take together, as this process sees it."""

    memory_bytes: int
    cpus: int
    free_bytes: int
    """What is free now, whoever took the rest."""
    total_bytes: int


def capacity(view: HostView | None = None) -> Capacity:
    """What this machine has for guests now."""
    usable = facts.usable(view or HostView())
    left = min(_LEFT_AT_MOST, usable.memory_bytes // _LEFT_PART)
    return Capacity(usable.memory_bytes - left, usable.cpus, usable.available_bytes, usable.memory_bytes)


def check_fits(need: Need, what: str, whole: Capacity | None = None) -> None:
    """Refuse what can never run here, however long it waits (UsageError): it would swap, and measure nothing but that.

    Virtual CPUs beyond the machine's are allowed: they take turns, so that a lab with two guests runs on a machine with one CPU.
    """
    whole = whole or capacity()
    if need.memory_bytes > whole.memory_bytes:
        raise UsageError(
            f"{what} can never fit: {need.in_words()} of memory, but guests may take {in_words(whole.memory_bytes)} here "
            f"(of {in_words(whole.total_bytes)})",
            hint="give the guests less memory, or use a larger machine",
        )
