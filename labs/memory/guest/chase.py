"""How long a step from pointer to pointer takes, over small pages and over large ones; prints one JSON object with every sample.

    chase.py MEBIBYTES SAMPLES STEPS [--few]

In each page of 4 KiB of so much memory lies one pointer, to the next one in an order drawn by chance. Both memories hold the same pointers
at the same offsets, so that the caches have the same work; they differ in the size of their pages alone. A loop without memory is the
control. The three take turns, so that whatever disturbs the machine disturbs all of them.

With --few (for a control of the lab) the way goes through a few of the pages alone, so that the TLB holds them all, large or small.

The loops are machine code (Intel SDM, volume 2), because Python's own work would hide what is measured.
"""

from __future__ import annotations

import random
import struct
import sys
import time

from vmlab_guest import native, pages
from vmlab_guest.say import say

PAGE_BYTES = pages.PAGE_BYTES
LINE_BYTES = 64
SEED = 20080301
FEW = 8

# rdi: where to begin; rsi: how many steps; rax: where it ended.
CHASE = (
    ("488b3f", "again: mov rdi, [rdi]"),
    ("48ffce", "dec rsi"),
    ("75f8", "jne again"),
    ("4889f8", "mov rax, rdi"),
    ("c3", "ret"),
)
COMPUTE = (
    ("48ffc7", "again: inc rdi"),
    ("48ffce", "dec rsi"),
    ("75f8", "jne again"),
    ("4889f8", "mov rax, rdi"),
    ("c3", "ret"),
)


class Memory(pages.Memory):
    """So many bytes, made of small pages or of large ones, and full of pointers."""

    def fill(self, order: list[int]) -> None:
        """Put a pointer into each page: from each page of ``order`` to the next, and from the last to the first."""
        for page, following in zip(order, [*order[1:], order[0]], strict=True):
            struct.pack_into("<Q", self.view, place_of(page), self.address + place_of(following))


def place_of(page: int) -> int:
    """Where in the memory the pointer of a page is: in another cache line of each page, or all would meet in the same few sets."""
    return page * PAGE_BYTES + page % (PAGE_BYTES // LINE_BYTES) * LINE_BYTES


def main(mebibytes: int, samples: int, steps: int, *, few: bool) -> None:
    """Fill, warm up, take turns."""
    count = (mebibytes << 20) // PAGE_BYTES
    order = random.Random(SEED).sample(range(count), FEW if few else count)
    memories = {"small": Memory(mebibytes << 20, large=False), "large": Memory(mebibytes << 20, large=True)}
    for memory in memories.values():
        memory.touch()
        memory.fill(order)
    chase, compute = native.Routine(CHASE), native.Routine(COMPUTE)
    begins = {name: memory.address + place_of(order[0]) for name, memory in memories.items()}
    ends = {name: memory.address + place_of(order[steps % len(order)]) for name, memory in memories.items()}
    for begin in begins.values():
        chase(begin, count)
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
    say(
        mapped_pages=count,
        pages=len(order),
        steps=steps,
        right=right,
        large_bytes={name: memory.large_bytes() for name, memory in memories.items()},
        ns_per_step=taken,
    )


main(*(int(word) for word in sys.argv[1:4]), few=sys.argv[4:] == ["--few"])
