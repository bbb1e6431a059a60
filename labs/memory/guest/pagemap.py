"""The kernel's own word on where a page of this process lies: /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""

import os

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PRESENT = 1 << 63
FRAME = (1 << 55) - 1


class Pagemap:
    """/proc/self/pagemap, opened once."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/pagemap", os.O_RDONLY)

    def entry(self, virtual: int) -> int:
        """The entry of the page that holds a virtual address."""
        return int.from_bytes(os.pread(self._file, 8, virtual // PAGE_BYTES * 8), "little")

    def entries(self, virtual: int, count: int) -> list[int]:
        """The entries of ``count`` pages, the first of which holds ``virtual``."""
        raw = os.pread(self._file, 8 * count, virtual // PAGE_BYTES * 8)
        return [int.from_bytes(raw[place : place + 8], "little") for place in range(0, len(raw), 8)]


def runs(frames: list[int]) -> list[list[int]]:
    """Frame numbers as [first, count] pairs, in their order: neighbours are told in one."""
    found: list[list[int]] = []
    for frame in frames:
        if found and frame == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([frame, 1])
    return found
