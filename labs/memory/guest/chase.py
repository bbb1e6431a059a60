"""How long a step from pointer to pointer takes, over small pages and over large ones; prints one JSON object with every sample.

    chase.py MEBIBYTES SAMPLES STEPS

In each page of 4 KiB of so much memory lies one pointer, to the next one in an order drawn by chance. Both memories hold the same pointers
at the same offsets, so that the caches have the same work; they differ in the size of their pages alone. A loop without memory is the
control. The three take turns, so that whatever disturbs the machine disturbs all of them.

The loops are machine code (Intel SDM, volume 2), because Python's own work would hide what is measured.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

PAGE_BYTES = 4096
LARGE_BYTES = 2 << 20
LINE_BYTES = 64
SEED = 20080301

# rdi: where to begin; rsi: how many steps; rax: where it ended.
CHASE = bytes.fromhex(
    "488b3f"  # again: mov rdi, [rdi]
    "48ffce"  #        dec rsi
    "75f8"  #          jnz again
    "4889f8"  #        mov rax, rdi
    "c3"  #            ret
)
COMPUTE = bytes.fromhex(
    "48ffc7"  # again: inc rdi
    "48ffce"  #        dec rsi
    "75f8"  #          jnz again
    "4889f8"  #        mov rax, rdi
    "c3"  #            ret
)

Loop = Callable[[int, int], int]


class Memory:
    """So many bytes, made of small pages or of large ones."""

    def __init__(self, size: int, *, large: bool) -> None:
        self._mapped = mmap.mmap(-1, size + LARGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mapped.madvise(mmap.MADV_HUGEPAGE if large else mmap.MADV_NOHUGEPAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapped))
        self._skipped = -address % LARGE_BYTES
        self.start = address + self._skipped

    def fill(self, order: list[int]) -> None:
        """Put a pointer into each page: from each page of ``order`` to the next, and from the last to the first."""
        for page, following in zip(order, [*order[1:], order[0]], strict=True):
            place = self._skipped + place_of(page)
            self._mapped[place : place + 8] = struct.pack("<Q", self.start + place_of(following))

    def large_bytes(self) -> int:
        """How much of it the kernel backs by large pages, from /proc/self/smaps."""
        found = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                found = begin <= self.start < end
            elif found and first == "AnonHugePages:":
                return int(line.split()[1]) << 10
        return 0


def place_of(page: int) -> int:
    """Where in the memory the pointer of a page is: in another cache line of each page, or all would meet in the same few sets."""
    return page * PAGE_BYTES + page % (PAGE_BYTES // LINE_BYTES) * LINE_BYTES


def loop(code: bytes) -> Loop:
    """Machine code as a function. Its memory is never given back."""
    memory = mmap.mmap(-1, PAGE_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(address)
    function.memory = memory  # type: ignore[attr-defined]
    return function


def main(mebibytes: int, samples: int, steps: int) -> None:
    """Fill, warm up, take turns."""
    pages = (mebibytes << 20) // PAGE_BYTES
    order = random.Random(SEED).sample(range(pages), pages)
    memories = {"small": Memory(mebibytes << 20, large=False), "large": Memory(mebibytes << 20, large=True)}
    for memory in memories.values():
        memory.fill(order)
    chase, compute = loop(CHASE), loop(COMPUTE)
    begins = {name: memory.start + place_of(order[0]) for name, memory in memories.items()}
    ends = {name: memory.start + place_of(order[steps % pages]) for name, memory in memories.items()}
    for begin in begins.values():
        chase(begin, pages)
    taken: dict[str, list[float]] = {"small": [], "large": [], "compute": []}
    right = True
    for _ in range(samples):
        for name, function, begin, end in (
            ("small", chase, begins["small"], ends["small"]),
            ("large", chase, begins["large"], ends["large"]),
            ("compute", compute, 0, steps),
        ):
            began = time.perf_counter_ns()
            ended = function(begin, steps)
            taken[name].append(round((time.perf_counter_ns() - began) / steps, 4))
            right = right and ended == end
    print(
        json.dumps(
            {
                "pages": pages,
                "steps": steps,
                "right": right,
                "large_bytes": {name: memory.large_bytes() for name, memory in memories.items()},
                "ns_per_step": taken,
            }
        )
    )


main(*(int(word) for word in sys.argv[1:4]))
