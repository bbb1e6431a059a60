"""A guest of one processor in long mode, on /dev/kvm alone: its memory, its page tables, and running a program on it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from . import counters, interface, programs
from .counters import Counters

PAGE = 4096
MEMORY_BYTES = 16 << 20

# Guest-physical addresses. The first 2 MiB are mapped to themselves. No two pages that matter lie in the same 32 KiB: where KVM maps a
# page it may map present neighbours of the same group of eight with it (PTE_PREFETCH_NUM, arch/x86/kvm/mmu/mmu.c), and such a fault
# would be missing in the counts.
CODE = 0x10000
HANDLER = 0x20000
STACK_TOP = 0x38000
GDT = 0x40000
IDT = 0x50000
PML4 = 0x60000
PDPT = 0x70000
PAGE_DIRECTORY = 0x80000
LOW_TABLE = 0x90000
WINDOW_TABLE = 0xA0000
FRESH_TABLE = 0xB0000
PAGE_A = 0x600000
PAGE_B = 0x680000

# Guest-virtual addresses beyond the identity map.
WINDOW = 0x200000
"""One page, whose entry is the first of WINDOW_TABLE: the programs map it to A, to B, or not at all."""
FRESH = 0x400000
"""2 MiB that are mapped but never touched before."""

WALK = (PML4, PDPT, PAGE_DIRECTORY, WINDOW_TABLE)
"""The four tables that a walk for WINDOW reads, root first."""

# Page-table entry bits (Intel SDM volume 3A, 4.5; AMD APM volume 2, 5.3).
PRESENT, WRITABLE = 1 << 0, 1 << 1

# Control register bits (Intel SDM volume 3A, 2.5; EFER: 2.2.1).
CR0 = 1 << 31 | 1 << 18 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 << 0  # PG AM WP NE ET MP PE
CR4 = 1 << 5  # PAE
EFER = 1 << 10 | 1 << 8  # LMA LME

# Segment descriptors (Intel SDM volume 3A, 3.4.5): a 64-bit code segment, a data segment; both flat, for privilege level 0.
CODE_DESCRIPTOR, CODE_SELECTOR = 0x00AF9B000000FFFF, 0x08
DATA_DESCRIPTOR, DATA_SELECTOR = 0x00CF93000000FFFF, 0x10

PAGE_FAULT = 14
"""The vector of #PF."""

# Intel processors without "unrestricted guest" need four pages of guest-physical space for themselves (api.rst, KVM_SET_TSS_ADDR and
# KVM_SET_IDENTITY_MAP_ADDR). These lie below 4 GiB and beyond our memory.
IDENTITY_MAP_ADDRESS = 0x0FFBC000
TSS_ADDRESS = 0x0FFBD000


def entry(address: int) -> int:
    """A page-table entry that maps ``address``, present and writable."""
    return address | PRESENT | WRITABLE


def indices(virtual: int) -> tuple[int, int, int, int]:
    """Where a walk for this address looks in each of the four tables, root first."""
    return tuple(virtual >> shift & 0x1FF for shift in (39, 30, 21, 12))  # type: ignore[return-value]


def interrupt_gate(handler: int) -> bytes:
    """A 64-bit interrupt gate to ``handler`` (Intel SDM volume 3A, 6.14.1)."""
    return struct.pack("<HHBBHII", handler & 0xFFFF, CODE_SELECTOR, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)


class Ran(NamedTuple):
    """What a program left: registers, why KVM_RUN came back, the time it took, and how far KVM's counters went."""

    registers: interface.KvmRegs
    exit_reason: int
    exit_detail: int
    time_ns: int
    counts: dict[str, int]

    @property
    def halted(self) -> bool:
        """Whether the program came to its HLT."""
        return self.exit_reason == interface.KVM_EXIT_HLT


class TinyGuest:
    """The guest. `create` makes one; ``memory`` is its physical memory, ours to read and write at any time."""

    def __init__(self, memory: mmap.mmap, vcpu: int, shared: mmap.mmap, statistics: tuple[Counters, ...]) -> None:
        self.memory = memory
        self._vcpu = vcpu
        self._shared = shared
        self._statistics = statistics

    @property
    def counts(self) -> bool:
        """Whether this kernel has the counters (Linux 5.14)."""
        return bool(self._statistics)

    def write(self, address: int, *words: int) -> None:
        """Put 64-bit words into guest-physical memory."""
        self.memory[address : address + 8 * len(words)] = struct.pack(f"<{len(words)}Q", *words)

    def read(self, address: int) -> int:
        """One 64-bit word of guest-physical memory."""
        return int.from_bytes(self.memory[address : address + 8], "little")

    def swap_behind(self, *pages: int) -> None:
        """Give these guest-physical pages other host pages with the same content, which the guest cannot notice.

        The old host page is dropped (madvise(2), MADV_DONTNEED), so the kernel makes KVM forget it, and what walks the guest's memory
        next must fault once for each of these pages that it meets.
        """
        for page in pages:
            content = self.memory[page : page + PAGE]
            self.memory.madvise(mmap.MADV_DONTNEED, page, PAGE)
            self.memory[page : page + PAGE] = content

    def run(self, program: bytes, n: int, **registers: int) -> Ran:
        """Run a program with RCX = n and these registers, to its end or to what stopped it. KvmError when the kernel refuses."""
        self.memory[CODE : CODE + len(program)] = program
        # Bit 1 of RFLAGS is always set (Intel SDM volume 1, 3.4.3).
        start = interface.KvmRegs(rip=CODE, rflags=2, rcx=n, rsp=STACK_TOP, **registers)
        interface.exchange(self._vcpu, interface.KVM_SET_REGS, start)
        before = self._count()
        began = time.perf_counter_ns()
        interface.ask(self._vcpu, interface.KVM_RUN)
        time_ns = time.perf_counter_ns() - began
        after = self._count()
        left = interface.KvmRegs()
        interface.exchange(self._vcpu, interface.KVM_GET_REGS, left)
        came_back = interface.KvmRun.from_buffer_copy(self._shared)
        return Ran(left, came_back.exit_reason, came_back.detail, time_ns, counters.since(before, after))

    def _count(self) -> dict[str, int]:
        return {name: value for each in self._statistics for name, value in each.read().items()}


@contextlib.contextmanager
def create(device: int) -> Iterator[TinyGuest]:
    """A guest with page tables, descriptor tables and registers set, gone with the block. KvmError names the request that failed."""
    with contextlib.ExitStack() as stack:

        def kept(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        memory = stack.enter_context(mmap.mmap(-1, MEMORY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        # The host must not back it with 2 MiB pages, or one fault would serve 512 of the guest's.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        vm = kept(interface.ask(device, interface.KVM_CREATE_VM))
        interface.ask(vm, interface.KVM_SET_TSS_ADDR, TSS_ADDRESS)
        interface.exchange(vm, interface.KVM_SET_IDENTITY_MAP_ADDR, ctypes.c_uint64(IDENTITY_MAP_ADDRESS))
        region = interface.KvmUserspaceMemoryRegion(memory_size=MEMORY_BYTES, userspace_addr=_address(memory))
        interface.exchange(vm, interface.KVM_SET_USER_MEMORY_REGION, region)
        vcpu = kept(interface.ask(vm, interface.KVM_CREATE_VCPU))
        shared = stack.enter_context(mmap.mmap(vcpu, interface.ask(device, interface.KVM_GET_VCPU_MMAP_SIZE)))
        statistics = tuple(Counters.of(kept(descriptor)) for descriptor in _statistics(vm, vcpu))
        guest = TinyGuest(memory, vcpu, shared, statistics)
        _fill(guest)
        _set_processor(device, vcpu)
        yield guest


def _address(memory: mmap.mmap) -> int:
    """Where the mapping lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _statistics(vm: int, vcpu: int) -> tuple[int, ...]:
    """The descriptors of KVM's counters; none when the kernel is older than they are."""
    try:
        return tuple(interface.ask(descriptor, interface.KVM_GET_STATS_FD) for descriptor in (vm, vcpu))
    except interface.KvmError as exc:
        if exc.errno not in {"ENOTTY", "EINVAL"}:
            raise
        return ()


def _fill(guest: TinyGuest) -> None:
    """Page tables, descriptor tables and the fault handler."""
    guest.write(PML4, entry(PDPT))
    guest.write(PDPT, entry(PAGE_DIRECTORY))
    for virtual, table in ((0, LOW_TABLE), (WINDOW, WINDOW_TABLE), (FRESH, FRESH_TABLE)):
        guest.write(PAGE_DIRECTORY + 8 * indices(virtual)[2], entry(table))
    guest.write(LOW_TABLE, *(entry(number * PAGE) for number in range(512)))
    guest.write(FRESH_TABLE, *(entry(FRESH + number * PAGE) for number in range(512)))
    guest.write(WINDOW_TABLE, entry(PAGE_A))
    guest.write(GDT, 0, CODE_DESCRIPTOR, DATA_DESCRIPTOR)
    guest.memory[IDT + 16 * PAGE_FAULT : IDT + 16 * (PAGE_FAULT + 1)] = interrupt_gate(HANDLER)
    guest.memory[HANDLER : HANDLER + len(programs.FAULT_HANDLER)] = programs.FAULT_HANDLER


def _set_processor(device: int, vcpu: int) -> None:
    """Long mode with paging on, at privilege level 0."""
    # First the features: from Linux 6.12 on KVM_SET_SREGS refuses bits (EFER.LME) that the guest's CPUID does not announce.
    cpuid = bytearray(
        bytes(interface.KvmCpuidHeader(nent=interface.CPUID_ENTRIES)) + bytes(interface.CPUID_ENTRY_BYTES * interface.CPUID_ENTRIES)
    )
    interface.exchange(device, interface.KVM_GET_SUPPORTED_CPUID, cpuid)
    interface.exchange(vcpu, interface.KVM_SET_CPUID2, cpuid)
    special = interface.KvmSregs()
    interface.exchange(vcpu, interface.KVM_GET_SREGS, special)
    # Types 11 and 3: code, execute and read, accessed; data, read and write, accessed (Intel SDM volume 3A, 3.4.5.1).
    flat = {"limit": 0xFFFFFFFF, "present": 1, "s": 1, "g": 1}
    special.cs = interface.KvmSegment(selector=CODE_SELECTOR, type=11, l=1, **flat)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(special, name, interface.KvmSegment(selector=DATA_SELECTOR, type=3, db=1, **flat))
    special.gdt = interface.KvmDtable(base=GDT, limit=3 * 8 - 1)
    special.idt = interface.KvmDtable(base=IDT, limit=PAGE - 1)
    special.cr3, special.cr0, special.cr4, special.efer = PML4, CR0, CR4, EFER
    interface.exchange(vcpu, interface.KVM_SET_SREGS, special)
