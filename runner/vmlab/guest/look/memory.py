"""A guest's memory, looked at from outside: by QEMU's monitor, by hand along the guest's page tables, and as memory of QEMU's process.

An address has up to four names. The guest's program knows a *guest-virtual* one, the guest's kernel a *guest-physical* one; guest-physical
memory is *host-virtual* memory of QEMU's process, which the host's kernel keeps in *host-physical* frames. Each method here is one of the
ways from one name to the next, and what it says rests on nothing that runs in the guest.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.errors import GuestError, UsageError
from vmlab.guest import power
from vmlab.guest.look import paging
from vmlab.guest.look.paging import Registers, Walk
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError
from vmlab.host import pages
from vmlab.host.pages import HostPage, Mapping, ProcessMemory

# One question to the monitor is answered in milliseconds, and in a second on a crowded machine.
_PATIENCE_S = 30.0

_READ_LIMIT_BYTES = 1 << 20

# How often a thread is waited for, and how long the guest runs in between.
_FREEZES = 200
_BETWEEN_FREEZES_S = 0.02
_USER = 3


class MemoryView:
    """The look from outside at the memory of one guest. ``scratch`` is a private directory that QEMU may write to."""

    def __init__(self, machine: Machine, scratch: Path, deadline: Deadline) -> None:
        self._machine = machine
        self._scratch = scratch
        self._deadline = deadline
        self._process = ProcessMemory(machine.pid)

    @property
    def memory_bytes(self) -> int:
        """How much memory the guest has."""
        return self._machine.request.memory_mib << 20

    @contextlib.contextmanager
    def frozen(self) -> Iterator[list[Registers]]:
        """Stop the guest's processors for the length of a block, and tell where each one stood. GuestError when QEMU does not say.

        One that is stopped already, after a reset say, stays so.
        """
        with self._machine.attributing(), power.paused(self._machine, self._deadline):
            registers = paging.registers_of(self._ask("info registers -a"))
            if len(registers) != self._machine.request.cpus:
                raise GuestError(f"QEMU shows the registers of {len(registers)} processors, of {self._machine.request.cpus}")
            yield registers

    @contextlib.contextmanager
    def frozen_in(self, fs_base: int) -> Iterator[Registers]:
        """Stop the guest while a thread of it runs in user mode, and tell the registers of its processor.

        The thread is known by the base of its FS segment, which on x86-64 points to data of its own. It has to stay in user mode for most
        of its time: the guest is stopped again and again until it is met there. GuestError when it never is.
        """
        for _ in range(_FREEZES):
            with self.frozen() as processors:
                found = next((each for each in processors if each.cpl == _USER and each.fs_base == fs_base), None)
                if found is not None:
                    yield found
                    return
            if self._deadline.expired():
                break
            time.sleep(_BETWEEN_FREEZES_S)
        raise GuestError(
            f"in {_FREEZES} tries no processor was met running the thread with FS base {fs_base:#x} in user mode",
            hint="it must stay in user mode, in a loop that calls nothing; vmlab_guest.syscalls.thread_pointer() is its FS base",
        )

    # Guest-virtual to guest-physical.

    def walk(self, registers: Registers, virtual: int, *, cr3: int | None = None) -> Walk:
        """Translate by hand: read the guest's page tables out of its physical memory, entry by entry, from CR3 on.

        ``cr3`` is that of another process, which need not run now: a process keeps the one that it was met with. How many levels there are
        is the same for all.
        """
        return paging.walk(self.physical, registers.cr3 if cr3 is None else cr3, registers.levels, virtual)

    def monitor_physical(self, registers: Registers, virtual: int) -> int | None:
        """The guest-physical address as QEMU's own translation has it (``gva2gpa``); None when QEMU says that there is none."""
        return _address(self._ask(f"gva2gpa {virtual:#x}", registers.cpu), "gpa: ")

    # Guest-physical to host-virtual.

    def physical(self, address: int, size: int) -> bytes:
        """Bytes of the guest's physical memory (QMP ``pmemsave``), 1 MiB at most. GuestError when nothing is there."""
        if not 0 < size <= _READ_LIMIT_BYTES:
            raise UsageError(f"{size} bytes of guest memory were asked for; 1 to {_READ_LIMIT_BYTES} can be read at once")
        target = self._scratch / "pmemsave"
        hint = f"is there memory at this address? the guest has {self._machine.request.memory_mib} MiB (memory_bytes)"
        try:
            self._machine.monitor.execute("pmemsave", self._patience(), val=address, size=size, filename=str(target))
            content = target.read_bytes()
        except QmpError as exc:
            exc.hint = hint
            raise
        finally:
            target.unlink(missing_ok=True)
        if len(content) != size:
            raise QmpError(f"QEMU saved {len(content)} of {size} bytes of the guest's memory at {address:#x}", hint=hint)
        return content

    def host_virtual(self, physical: int) -> int | None:
        """Where QEMU's process keeps a guest-physical address (``gpa2hva``); None where the guest has no memory."""
        return _address(self._ask(f"gpa2hva {physical:#x}"), " is ")

    # Host-virtual memory and its frames.

    def read(self, host_virtual: int, size: int) -> bytes:
        """Bytes of QEMU's process. HostError where the host's kernel refuses it."""
        return self._process.read(host_virtual, size)

    def write(self, host_virtual: int, content: bytes) -> None:
        """Store bytes into QEMU's process. HostError where the host's kernel refuses it."""
        self._process.write(host_virtual, content)

    def mapping(self, host_virtual: int) -> Mapping | None:
        """The mapping of QEMU's process that holds an address: its extent, and how much of it is resident."""
        return self._process.mapping(host_virtual)

    def host_pages(self, host_virtual: int, count: int = 1) -> list[HostPage]:
        """What the host's page tables hold for ``count`` pages of QEMU's process."""
        return self._process.pages(host_virtual, count)

    def monitor_host_physical(self, physical: int) -> int | None:
        """The host-physical address as QEMU has it (``gpa2hpa``, which asks the same pagemap); None when it cannot tell.

        Without CAP_SYS_ADMIN the kernel shows QEMU frame 0, and QEMU prints an address that is false: ask only where frames are shown.
        """
        return _address(self._ask(f"gpa2hpa {physical:#x}"), " is ")

    @staticmethod
    def host_physical(address: int, size: int) -> bytes:
        """Bytes of this machine's physical memory. HostError where it cannot be read (it needs root and /proc/kcore)."""
        return pages.read_physical(address, size)

    def _ask(self, line: str, cpu: int = 0) -> str:
        """QEMU's answer to a line of its monitor for humans, which alone has these commands."""
        arguments = {"command-line": line, "cpu-index": cpu}
        return str(self._machine.monitor.execute("human-monitor-command", self._patience(), **arguments)).replace("\r", "")

    def _patience(self) -> Deadline:
        return self._deadline.within(_PATIENCE_S)


def _address(answer: str, before: str) -> int | None:
    """The hexadecimal number that follows ``before`` in QEMU's answer; None where there is none ("Unmapped", "No memory is mapped ...")."""
    found = re.search(re.escape(before) + "(0x[0-9a-f]+)", answer)
    return int(found[1], 16) if found else None
