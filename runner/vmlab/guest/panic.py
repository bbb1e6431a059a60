"""Whether a guest's kernel has panicked: believed by evidence, not by words.

Any process of the guest's root can write "Kernel panic - not syncing" to the console; so the words are a sign to look. What decides:

- pvpanic: the kernel has told the device that QEMU gives it. That is a panic, at once. A kernel without the driver, or one that dies
  before its driver is there, tells nothing.
- An answer over SSH, or a processor that is in user mode or idle. Then the kernel lives, and the words were words.
- Neither: SSH is silent, and whenever one looks every processor is in the kernel and none waits for an interrupt. So a panic ends
  (Linux, kernel/panic.c): it stops the other processors, which halt with interrupts off (arch/x86/kernel/smp.c, stop_this_cpu), and
  then, without ``panic=`` on its command line, spins in mdelay for ever, so that it is the one thing that a dead kernel is not: idle.

What is seen in the first moment after the words proves nothing, because they are printed before the other processors are stopped. But
the last words of a panic ("---[ end Kernel panic - not syncing: ...") come after, and each word that comes is looked after.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vmlab.errors import RunError
from vmlab.guest.console import PANIC, Line

log = logging.getLogger(__name__)

# How long after the words a sign of life counts, and how often one is looked for.
SETTLE_S = 1.0
LOOK_EVERY_S = 0.25
# A lifeless guest is dead after so much of QEMU's own CPU time for each processor that spins (a machine that is crowded does not let it
# run, and time alone proves nothing then), and after so many looks: an sshd that waits for the processor gets it many times over in that
# time. One whose processors all have stopped for good uses none.
SPUN_CPU_S = 2.0
SPUN_LOOKS = 8
STOPPED_LOOKS = 4
# A guest may print the words again and again: the pause between two looks doubles from the first to the second of these.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 4.0
_USER = 3
_IF = 1 << 9  # EFLAGS.IF: interrupts are let through


@dataclass(frozen=True)
class Cpu:
    """What one of the guest's processors is at."""

    level: int
    halted: bool
    interruptible: bool

    @property
    def lives(self) -> bool:
        """It runs a program, or is idle and waits for an interrupt."""
        return self.level == _USER or (self.halted and self.interruptible)

    @property
    def stopped(self) -> bool:
        """It will not go on, or has not begun: halted, and no interrupt can wake it."""
        return self.halted and not self.interruptible


def cpus_of(registers: str) -> list[Cpu]:
    """The processors in what QEMU's monitor prints for ``info registers -a`` (x86_cpu_dump_state in target/i386/cpu-dump.c)."""
    found = re.findall(r"\b(?:RFL|EFL)=([0-9a-f]+) .*?\bCPL=(\d).*?\bHLT=(\d)", registers)
    return [Cpu(int(level), halted == "1", bool(int(flags, 16) & _IF)) for flags, level, halted in found]


def reason_in(text: str) -> str:
    """The kernel's last word on why it panicked; empty when it said nothing."""
    found = PANIC.findall(text.encode())
    return str(found[-1].decode(errors="replace")).removesuffix(" ]---").strip() if found else ""


@dataclass(frozen=True)
class Signs:
    """What there is to say about a panic, each sign for itself. Times are on the monotonic clock, 0 for never."""

    told_at: float = 0.0
    """When pvpanic told it."""
    words: str = ""
    """The first line that says so since the guest last gave a sign of life."""
    words_at: float = 0.0
    """When the last such line came."""
    alive_at: float = 0.0
    """Up to when no such line counts: the guest gave a sign of life long enough after."""
    lifeless_at: float = 0.0
    """When it was given up as dead, without pvpanic's word."""

    @property
    def doubtful(self) -> bool:
        """Whether words stand unanswered."""
        return self.words_at > self.alive_at

    @property
    def panicked(self) -> bool:
        """Whether it is decided."""
        return bool(self.told_at or self.lifeless_at)


class Probe(Protocol):
    """What can be looked at. Each may raise a RunError when QEMU is gone."""

    def answered_at(self, patience_s: float) -> float:
        """When a question was asked that the guest has answered over SSH; 0 when none is within ``patience_s``."""

    def cpus(self) -> Sequence[Cpu]:
        """What each processor is at; empty when QEMU's answer is not understood."""

    def cpu_s(self) -> float:
        """The CPU time that QEMU has used, in seconds."""


class PanicWatch:
    """Gathers the signs and decides.

    ``believed`` is called once, from whichever thread finds it out; ``mere_words`` once too, with the first words that a guest printed
    that lives.
    """

    def __init__(self, probe: Probe, believed: Callable[[], None], mere_words: Callable[[str], None]) -> None:
        self._probe = probe
        self._believed = believed
        self._mere_words = mere_words
        self._signs = Signs()
        self._changed = threading.Condition()
        self._closed = False
        self._looker: threading.Thread | None = None

    @property
    def signs(self) -> Signs:
        """The signs so far."""
        with self._changed:
            return self._signs

    def hear(self, line: Line) -> None:
        """The console says that the kernel panicked."""
        with self._changed:
            words = self._signs.words if self._signs.doubtful else reason_in(line.text)
            self._signs = dataclasses.replace(self._signs, words=words, words_at=max(line.at, self._signs.words_at))
            if self._looker is None and not self._closed:
                self._looker = threading.Thread(target=self._look_into_it, name="vmlab-panic", daemon=True)
                self._looker.start()
            self._changed.notify_all()

    def tell(self) -> None:
        """Pvpanic says so."""
        self._decide("pvpanic")

    def close(self) -> None:
        """Stop looking: the guest's end is another's business from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _decide(self, by: Literal["pvpanic", "looks"]) -> None:
        with self._changed:
            if self._closed or self._signs.panicked:
                return
            now = time.monotonic()
            told = now if by == "pvpanic" else 0.0
            self._signs = dataclasses.replace(self._signs, told_at=told, lifeless_at=0.0 if told else now)
            self._changed.notify_all()
        self._believed()

    def _is_over(self) -> bool:
        return self._closed or self._signs.panicked

    def _look_into_it(self) -> None:
        """Wait for words and look after them, until it is decided or the guest's end comes."""
        pause_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(self._is_over, pause_s)
                self._changed.wait_for(lambda: self._is_over() or self._signs.doubtful)
                said_at = self._signs.words_at
                self._changed.wait_for(self._is_over, SETTLE_S)
                if self._is_over():
                    return
            try:
                self._look(said_at)
            except RunError as exc:
                # QEMU is gone or its monitor is: that is noticed by itself.
                log.debug("a look for a panic failed: %s", exc)
            pause_s = min(max(_FIRST_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S)

    def _look(self, said_at: float) -> None:
        """Look until the guest gives a sign of life long enough after these words, or is given up."""
        used, looks, stopped = self._probe.cpu_s(), 0, 0
        while not self._is_over():
            looked_at = time.monotonic()
            cpus = self._probe.cpus()
            seen_at = looked_at if any(cpu.lives for cpu in cpus) else 0.0
            alive_at = max(seen_at, self._probe.answered_at(LOOK_EVERY_S)) - SETTLE_S
            if alive_at >= said_at:
                self._is_alive(alive_at)
                return
            looks += bool(cpus) and not seen_at
            stopped = stopped + 1 if cpus and all(cpu.stopped for cpu in cpus) else 0
            spinning = max(1, sum(not cpu.halted for cpu in cpus))
            spun = looks >= SPUN_LOOKS and self._probe.cpu_s() - used >= SPUN_CPU_S * spinning
            if stopped >= STOPPED_LOOKS or spun:
                self._decide("looks")
                return
            with self._changed:
                self._changed.wait_for(self._is_over, max(0.0, looked_at + LOOK_EVERY_S - time.monotonic()))

    def _is_alive(self, at: float) -> None:
        with self._changed:
            before = self._signs
            self._signs = dataclasses.replace(before, alive_at=at)
        if not before.alive_at:
            self._mere_words(before.words)
