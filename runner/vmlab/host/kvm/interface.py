"""The kernel's interface to KVM: requests and structures, under the names of the kernel's documentation.

Source of every number and structure: Linux, Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h (for x86 also
arch/x86/include/uapi/asm/kvm.h). The structures are those of x86-64.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from typing import NamedTuple

KVM_API_VERSION = 12
"""The only version ever published; api.rst tells applications to refuse any other."""

KVM_EXIT_HLT = 5
EXIT_REASONS = {
    0: "KVM_EXIT_UNKNOWN",
    1: "KVM_EXIT_EXCEPTION",
    2: "KVM_EXIT_IO",
    5: "KVM_EXIT_HLT",
    6: "KVM_EXIT_MMIO",
    8: "KVM_EXIT_SHUTDOWN",
    9: "KVM_EXIT_FAIL_ENTRY",
    10: "KVM_EXIT_INTR",
    17: "KVM_EXIT_INTERNAL_ERROR",
}


class KvmRegs(ctypes.Structure):
    """struct kvm_regs."""

    _fields_ = [
        *((name, c_uint64) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")),
        *((name, c_uint64) for name in ("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags")),
    ]


class KvmSegment(ctypes.Structure):
    """struct kvm_segment: a segment register with its hidden part."""

    _fields_ = [
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        *((name, c_uint8) for name in ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "padding")),
    ]


class KvmDtable(ctypes.Structure):
    """struct kvm_dtable: GDTR or IDTR."""

    _fields_ = [("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3)]


class KvmSregs(ctypes.Structure):
    """struct kvm_sregs: segments, descriptor tables, control registers."""

    _fields_ = [
        *((name, KvmSegment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        *((name, KvmDtable) for name in ("gdt", "idt")),
        *((name, c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", c_uint64 * 4),
    ]


class KvmUserspaceMemoryRegion(ctypes.Structure):
    """struct kvm_userspace_memory_region: guest-physical memory is this process's virtual memory."""

    _fields_ = [
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    ]


class KvmCpuidHeader(ctypes.Structure):
    """struct kvm_cpuid2 without its entries."""

    _fields_ = [("nent", c_uint32), ("padding", c_uint32)]


CPUID_ENTRY_BYTES = 40
"""Size of struct kvm_cpuid_entry2."""
CPUID_ENTRIES = 256
"""The most that KVM ever gives (KVM_MAX_CPUID_ENTRIES)."""


class KvmRun(ctypes.Structure):
    """The first members of struct kvm_run, which kernel and program share; ``detail`` is the first of its union."""

    _fields_ = [
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("detail", c_uint64),
    ]


class Request(NamedTuple):
    """An ioctl request: its name, for errors, and its number."""

    name: str
    number: int


_KVMIO = 0xAE
_WRITE, _READ = 1, 2


def _io(name: str, number: int) -> Request:
    """A request without a structure (the kernel's macro _IO)."""
    return Request(name, _KVMIO << 8 | number)


def _io_with(name: str, direction: int, number: int, size: int) -> Request:
    """A request with a structure of ``size`` bytes (_IOW, _IOR, _IOWR of include/uapi/asm-generic/ioctl.h)."""
    return Request(name, direction << 30 | size << 16 | _KVMIO << 8 | number)


KVM_GET_API_VERSION = _io("KVM_GET_API_VERSION", 0x00)
KVM_CREATE_VM = _io("KVM_CREATE_VM", 0x01)
KVM_GET_VCPU_MMAP_SIZE = _io("KVM_GET_VCPU_MMAP_SIZE", 0x04)
KVM_GET_SUPPORTED_CPUID = _io_with("KVM_GET_SUPPORTED_CPUID", _READ | _WRITE, 0x05, ctypes.sizeof(KvmCpuidHeader))
KVM_CREATE_VCPU = _io("KVM_CREATE_VCPU", 0x41)
KVM_SET_USER_MEMORY_REGION = _io_with("KVM_SET_USER_MEMORY_REGION", _WRITE, 0x46, ctypes.sizeof(KvmUserspaceMemoryRegion))
KVM_SET_TSS_ADDR = _io("KVM_SET_TSS_ADDR", 0x47)
KVM_SET_IDENTITY_MAP_ADDR = _io_with("KVM_SET_IDENTITY_MAP_ADDR", _WRITE, 0x48, ctypes.sizeof(c_uint64))
KVM_RUN = _io("KVM_RUN", 0x80)
KVM_GET_REGS = _io_with("KVM_GET_REGS", _READ, 0x81, ctypes.sizeof(KvmRegs))
KVM_SET_REGS = _io_with("KVM_SET_REGS", _WRITE, 0x82, ctypes.sizeof(KvmRegs))
KVM_GET_SREGS = _io_with("KVM_GET_SREGS", _READ, 0x83, ctypes.sizeof(KvmSregs))
KVM_SET_SREGS = _io_with("KVM_SET_SREGS", _WRITE, 0x84, ctypes.sizeof(KvmSregs))
KVM_SET_CPUID2 = _io_with("KVM_SET_CPUID2", _WRITE, 0x90, ctypes.sizeof(KvmCpuidHeader))
KVM_GET_STATS_FD = _io("KVM_GET_STATS_FD", 0xCE)


class KvmError(Exception):
    """The kernel refused something: what was asked (``step``), its errno by name, and its text."""

    def __init__(self, step: str, error: OSError) -> None:
        self.step = step
        self.errno = errno.errorcode.get(error.errno or 0, str(error.errno))
        self.text = os.strerror(error.errno or 0)
        super().__init__(f"{step}: {self.errno}, {self.text}")


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the device. KvmError when it cannot be opened for reading and writing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise KvmError(f"open {path}", exc) from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ask(descriptor: int, request: Request, value: int = 0) -> int:
    """A request whose argument and answer are numbers. KvmError when the kernel refuses it."""
    try:
        return fcntl.ioctl(descriptor, request.number, value)
    except OSError as exc:
        raise KvmError(request.name, exc) from exc


def exchange(descriptor: int, request: Request, data: ctypes.Structure | bytearray | c_uint64) -> None:
    """A request whose argument is a structure, read or written in place. KvmError when the kernel refuses it.

    (`fcntl.ioctl` takes more than 1024 bytes in a writable buffer only, so that is what all of them are.)
    """
    try:
        fcntl.ioctl(descriptor, request.number, data, True)
    except OSError as exc:
        raise KvmError(request.name, exc) from exc
