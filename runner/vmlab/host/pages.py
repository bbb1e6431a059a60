"""Another process's memory, as the host's kernel tells of it: what is mapped, which pages are there, which frames hold them.

All of it is in proc(5) and in the kernel's Documentation/admin-guide/mm/pagemap.rst. Reading another process's memory needs the right to
trace it (the same user, and where Yama forbids more, a parent). The numbers of frames are shown only to CAP_SYS_ADMIN: anybody else
reads them as 0, which must be taken for "hidden", never for frame 0.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vmlab.errors import HostError

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PRESENT = 1 << 63
_FILE_OR_SHARED = 1 << 61
_FRAME = (1 << 55) - 1


@dataclass(frozen=True)
class HostPage:
    """One entry of /proc/PID/pagemap. ``frame`` is None where the kernel hides it or there is none."""

    entry: int

    @property
    def present(self) -> bool:
        """Whether the process's page table has a frame for this page."""
        return bool(self.entry & _PRESENT)

    @property
    def own(self) -> bool:
        """Whether that frame is the process's own (anonymous), not a file's or shared."""
        return self.present and not self.entry & _FILE_OR_SHARED

    @property
    def frame(self) -> int | None:
        """The number of the physical frame."""
        return (self.entry & _FRAME) or None if self.present else None


@dataclass(frozen=True)
class Mapping:
    """One mapping of a process, from /proc/PID/smaps, in bytes."""

    start: int
    end: int
    name: str
    resident_bytes: int
    own_bytes: int
    huge_bytes: int


class ProcessMemory:
    """The memory of one process of this user. Every look raises HostError where the kernel refuses it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address of the process, by process_vm_readv(2)."""
        buffer = ctypes.create_string_buffer(size)
        self._transfer("process_vm_readv", buffer, address, size)
        return buffer.raw

    def write(self, address: int, content: bytes) -> None:
        """Store bytes at a virtual address of the process, by process_vm_writev(2)."""
        self._transfer("process_vm_writev", ctypes.create_string_buffer(content, len(content)), address, len(content))

    def _transfer(self, call: str, buffer: ctypes.Array[ctypes.c_char], address: int, size: int) -> None:
        here = _IoVec(ctypes.addressof(buffer), size)
        there = _IoVec(address, size)
        function = getattr(ctypes.CDLL(None, use_errno=True), call)
        function.restype = ctypes.c_ssize_t
        moved = function(self.pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if moved != size:
            cause = os.strerror(ctypes.get_errno()) if moved < 0 else f"only {moved} of {size} bytes"
            raise HostError(f"{call} at {address:#x} of process {self.pid}: {cause}", hint="Yama's ptrace_scope may forbid it")

    def pages(self, address: int, count: int = 1) -> list[HostPage]:
        """The pagemap entries of ``count`` pages, the first of which holds ``address``."""
        try:
            with Path(f"/proc/{self.pid}/pagemap").open("rb", buffering=0) as pagemap:
                pagemap.seek(address // PAGE_BYTES * 8)
                raw = pagemap.read(count * 8)
        except OSError as exc:
            raise HostError(f"/proc/{self.pid}/pagemap cannot be read: {exc.strerror}") from exc
        if len(raw) != count * 8:
            raise HostError(f"/proc/{self.pid}/pagemap ends before page {address // PAGE_BYTES + count:#x}")
        return [HostPage(entry) for entry in struct.unpack(f"<{count}Q", raw)]

    def mapping(self, address: int) -> Mapping | None:
        """The mapping that holds ``address``, or None."""
        try:
            text = Path(f"/proc/{self.pid}/smaps").read_text()
        except OSError as exc:
            raise HostError(f"/proc/{self.pid}/smaps cannot be read: {exc.strerror}") from exc
        for head in re.finditer(r"(?m)^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)$", text):
            start, end = int(head[1], 16), int(head[2], 16)
            if start <= address < end:
                after = text[head.end() :]
                sizes = {}
                for line in after.splitlines()[1:]:
                    field = re.fullmatch(r"(\w+): +(\d+) kB", line)
                    if field is None:
                        break
                    sizes[field[1]] = int(field[2]) << 10
                return Mapping(start, end, head[3], sizes["Rss"], sizes["Anonymous"], sizes.get("AnonHugePages", 0))
        return None


class _IoVec(ctypes.Structure):
    """struct iovec (readv(2))."""

    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


def read_physical(address: int, size: int) -> bytes:
    """Bytes at a physical address of this machine, through /proc/kcore: an ELF core file whose program headers tell where what lies.

    Needs root (CAP_SYS_RAWIO), a kernel with CONFIG_PROC_KCORE, and one that does not lock it down. HostError where it cannot be done.
    """
    try:
        with Path("/proc/kcore").open("rb", buffering=0) as core:
            for physical, length, offset in _segments(core.read(64), core):
                if physical <= address and address + size <= physical + length:
                    core.seek(offset + address - physical)
                    return core.read(size)
    except OSError as exc:
        raise HostError(f"/proc/kcore cannot be read: {exc.strerror}", hint="it needs root") from exc
    except struct.error as exc:
        raise HostError(f"/proc/kcore is not what elf(5) describes: {exc}") from exc
    raise HostError(f"/proc/kcore does not hold the physical address {address:#x}")


def _segments(header: bytes, core: IO[bytes]) -> list[tuple[int, int, int]]:
    """(physical address, bytes, offset in the file) of every loadable segment with a physical address: Elf64_Phdr of elf(5)."""
    (table,) = struct.unpack_from("<Q", header, 32)
    (count,) = struct.unpack_from("<H", header, 56)
    core.seek(table)
    raw = core.read(56 * count)
    rows = [struct.unpack_from("<IIQQQQQQ", raw, 56 * i) for i in range(count)]
    # The kernel's own text is there twice, at addresses above the direct map; p_paddr -1 says that a segment has none.
    load, unknown = 1, (1 << 64) - 1
    return [(paddr, filesz, offset) for kind, _, offset, _, paddr, filesz, _, _ in rows if kind == load and paddr != unknown]
