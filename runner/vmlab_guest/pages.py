"""Pages: where one lies (pagemap), what of a file is cached (cachestat, mincore), what a mapping holds (smaps), memory to touch.

Addresses are guest-virtual. Frame numbers need root: others are shown 0 (Documentation/admin-guide/mm/pagemap.rst).
"""

import errno
import mmap
import os

from vmlab_guest.proc import read

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from typing import Self

PAGE_BYTES = mmap.PAGESIZE
LARGE_BYTES = 2 << 20
"""A large page of x86-64 (and of arm64 with pages of 4 KiB): one entry of the second lowest table."""

# The bits of a pagemap entry.
PRESENT, SWAPPED, FILE_OR_SHARED, EXCLUSIVE, SOFT_DIRTY = 1 << 63, 1 << 62, 1 << 61, 1 << 56, 1 << 55
FRAME = (1 << 55) - 1


# --- where a page lies ------------------------------------------------------------------------------------------------------------


class Pagemap:
    """/proc/PID/pagemap, opened once: what the kernel says of each page."""

    def __init__(self, pid: int | str = "self") -> None:
        self._file = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._file)

    def entry(self, virtual: int) -> int:
        """The entry of the page that holds a virtual address."""
        return self.entries(virtual, 1)[0]

    def entries(self, virtual: int, count: int) -> list[int]:
        """The entries of ``count`` pages, the first of which holds ``virtual``."""
        raw = os.pread(self._file, 8 * count, virtual // PAGE_BYTES * 8)
        if len(raw) != 8 * count:
            raise OSError(errno.EFAULT, f"the kernel tells nothing of {count} pages at {virtual:#x}")
        return [int.from_bytes(raw[place : place + 8], "little") for place in range(0, len(raw), 8)]

    def frames(self, virtual: int, count: int) -> list[int | None]:
        """The frame numbers of ``count`` pages; None for a page that is not in memory."""
        return [frame(entry) for entry in self.entries(virtual, count)]


def frame(entry: int) -> int | None:
    """The frame number of an entry; None when the page is not in memory."""
    return entry & FRAME if entry & PRESENT else None


def described(entry: int) -> dict[str, object]:
    """An entry in words: ``frame`` (None: not in memory), ``present``, ``swapped``, ``file_or_shared``, ``exclusive``, ``soft_dirty``."""
    return {
        "frame": frame(entry),
        "present": bool(entry & PRESENT),
        "swapped": bool(entry & SWAPPED),
        "file_or_shared": bool(entry & FILE_OR_SHARED),
        "exclusive": bool(entry & EXCLUSIVE),
        "soft_dirty": bool(entry & SOFT_DIRTY),
    }


def runs(frames: list[int]) -> list[list[int]]:
    """Frame numbers as [first, count] pairs, in their order: neighbours are told in one."""
    found: list[list[int]] = []
    for each in frames:
        if found and each == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([each, 1])
    return found


# --- memory of a wanted kind ------------------------------------------------------------------------------------------------------


def address_of(memory: mmap.mmap) -> int:
    """The virtual address at which a mapping begins, as long as the caller keeps it."""
    import ctypes  # noqa: PLC0415  (26 ms, for those alone who need addresses.)

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Memory:
    """Private memory of so many bytes that nobody has touched yet, its ``address`` a multiple of a large page's size.

    It is made of small pages alone; or, with ``large``, of large pages where the kernel has them to give (`large_bytes` tells). ``view`` is
    what is stored through: ``memory.view[0] = 1``. What is before and behind it is never touched.
    """

    def __init__(self, size: int, *, large: bool = False) -> None:
        self.mapping = mmap.mmap(-1, size + LARGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.mapping.madvise(mmap.MADV_HUGEPAGE if large else mmap.MADV_NOHUGEPAGE)
        start = address_of(self.mapping)
        skipped = -start % LARGE_BYTES
        self.address = start + skipped
        self.view = memoryview(self.mapping)[skipped : skipped + size]

    def touch(self, first: int = 0, count: int | None = None) -> None:
        """Store a byte into each of ``count`` small pages from the ``first`` on; by default into all."""
        end = len(self.view) if count is None else (first + count) * PAGE_BYTES
        for place in range(first * PAGE_BYTES, end, PAGE_BYTES):
            self.view[place] = 1

    def large_bytes(self) -> int:
        """How much of it is in large pages now."""
        return smaps(self.address).get("AnonHugePages", 0) << 10


# --- what a mapping holds ---------------------------------------------------------------------------------------------------------


def maps(pid: int | str = "self") -> list[dict[str, object]]:
    """The mappings of a process in the order of their addresses: ``start``, ``end``, ``permissions`` ("rw-p"), ``offset``, ``name``."""
    return [_mapping(line) for line in read(f"/proc/{pid}/maps").decode(errors="replace").splitlines()]


def _mapping(line: str) -> dict[str, object]:
    extent, permissions, offset, _device, _inode, *name = line.split(None, 5)
    start, _, end = extent.partition("-")
    return {"start": int(start, 16), "end": int(end, 16), "permissions": permissions, "offset": int(offset, 16), "name": "".join(name)}


def smaps(virtual: int, pid: int | str = "self") -> dict[str, int]:
    """What the mapping that holds an address takes up, by the kernel's names (Rss, Pss, Private_Dirty, AnonHugePages, Swap), in KiB."""
    found: dict[str, int] = {}
    inside = False
    for line in read(f"/proc/{pid}/smaps").decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if " " in name:  # The line of /proc/PID/maps with which each begins.
            if inside:
                break
            start, _, end = line.split(None, 1)[0].partition("-")
            inside = int(start, 16) <= virtual < int(end, 16)
        elif inside and value.endswith(" kB"):
            found[name] = int(value.split()[0])
    return found


def faults() -> tuple[int, int]:
    """The page faults of this process so far: minor, and major (those that waited for a disk)."""
    import resource  # noqa: PLC0415  (For those alone who count.)

    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt, used.ru_majflt


# --- what of a file is cached -----------------------------------------------------------------------------------------------------


def resident(memory: mmap.mmap) -> list[bool]:
    """Which pages of a mapping are in memory, by mincore(2); of a mapped file: which are in the page cache."""
    import ctypes  # noqa: PLC0415  (26 ms, for those alone who need addresses.)

    from vmlab_guest import syscalls  # noqa: PLC0415  (For the same reason.)

    count = -(-len(memory) // PAGE_BYTES)
    told = ctypes.create_string_buffer(count)
    if syscalls.libc.mincore(ctypes.c_void_p(address_of(memory)), ctypes.c_size_t(len(memory)), told) != 0:
        raise syscalls.failed("mincore")
    return [bool(each & 1) for each in told.raw[:count]]


def cached(path: str) -> dict[str, int | None]:
    """How many pages of a file there are (``pages``) and how many are cached (``cache``), ``dirty``, and in ``writeback``.

    By cachestat(2) from Linux 6.5 on. Before, by mincore(2), which does not know of dirty pages: None, as "not told".
    """
    from vmlab_guest import syscalls  # noqa: PLC0415  (It imports ctypes: 26 ms.)

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        pages: dict[str, int | None] = {"pages": -(-size // PAGE_BYTES), "cache": 0, "dirty": 0, "writeback": 0}
        try:
            return pages | {name: each for name, each in syscalls.cachestat(descriptor).items() if name in pages}
        except OSError as exc:
            if exc.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        # (A container's filter of system calls may answer EPERM for what it does not know.)
        if not size:
            return pages | {"dirty": None, "writeback": None}
        # A private mapping that is written to by nobody shows the file's own pages; ctypes wants one that could be written to.
        mapping = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        return pages | {"cache": sum(resident(mapping)), "dirty": None, "writeback": None}
    finally:
        os.close(descriptor)


def drop_caches() -> None:
    """Write back what is dirty, drop the page cache and what the kernel keeps of names (/proc/sys/vm/drop_caches, 3). Mapped pages stay."""
    os.sync()
    descriptor = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    try:
        os.write(descriptor, b"3")
    finally:
        os.close(descriptor)
