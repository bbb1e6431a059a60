"""Keep a marker in memory and stay in user mode, so that the host can find this process's page tables in its processor.

    marker.py MARKER small|large CPU [--populate] [--elsewhere] [--twice] [--store-over] [--gigantic]

MARKER (64 characters) is put into a page of the kind asked for, the process binds itself to one processor and says where it is; then it
watches its own memory without a system call until the host has stored an answer behind the marker, and says what it read. In between it
touches a second page for the first time, and says what the kernel had for it before and has after.

Prints, in this order: {"event": "ready", ...}, {"event": "touched", ...}, {"event": "answered", ...}. After each of the first two it waits
for the host to store a byte at the address that it named. The options are for the lab's controls: each makes one of its claims false.
"""

import argparse
import mmap
import sys
import time

from vmlab_guest.pages import LARGE_BYTES, PAGE_BYTES, Memory, Pagemap, address_of
from vmlab_guest.say import say
from vmlab_guest.syscalls import thread_pointer
from vmlab_guest.timing import pin

PATIENCE_S = 60.0

# Where in the memory kept by this process things lie: the marker somewhere inside the page, so that its offset shows in each address.
MARKER_AT = 0x340
AGAIN_AT = MARKER_AT + 0x40
GO_AT = MARKER_AT + 0x80
ANSWER_AT = MARKER_AT + 0x100
ANSWER_BYTES = 32

# A page of 1 GiB: level 3 of the tables maps it. The kernel must have put one aside (Linux, hugepages=1; mmap(2), MAP_HUGE_1GB).
GIGANTIC_BYTES = 1 << 30
MAP_HUGETLB, MAP_HUGE_1GB = 0x40000, 30 << 26
# Linux, include/uapi/asm-generic/mman-common.h: give frames now, as if each page had been written to.
MADV_POPULATE_WRITE = 23


def watch(memory: memoryview, at: int) -> int:
    """Look at one byte until it is not zero; returns how many looks that took. Nothing here enters the kernel."""
    looks = 0
    end = time.monotonic() + PATIENCE_S
    while not memory[at]:
        looks += 1
        # The clock is read in user mode too (vDSO), but seldom is enough.
        if looks % 4096 == 0 and time.monotonic() > end:
            sys.exit("the host stored nothing within the time")
    return looks


def main() -> None:
    """Put the marker there, and answer twice."""
    options = wanted()
    pin(options.cpu)
    mapped, start = gigantic() if options.gigantic else extents(options)
    offset = 0x123000 if options.kind == "large" else 0
    memory = mapped[offset:]
    virtual = start + offset
    # The next extent of 2 MiB: not the marker's page, of whatever size that is.
    second = mapped[LARGE_BYTES:]
    second_virtual = start + LARGE_BYTES

    for at in [MARKER_AT, AGAIN_AT] if options.twice else [AGAIN_AT if options.elsewhere else MARKER_AT]:
        memory[at : at + len(options.marker)] = options.marker.encode()
    pagemap = Pagemap()
    say(
        event="ready",
        virtual=hex(virtual + MARKER_AT),
        pagemap=hex(pagemap.entry(virtual + MARKER_AT)),
        go=hex(virtual + GO_AT),
        answer=hex(virtual + ANSWER_AT),
        second_virtual=hex(second_virtual),
        second_pagemap=hex(pagemap.entry(second_virtual)),
        fs_base=hex(thread_pointer()),
        cpu=options.cpu,
        page_bytes=PAGE_BYTES,
    )
    watch(memory, GO_AT)
    second[0] = 1
    say(event="touched", second_pagemap=hex(pagemap.entry(second_virtual)))
    looks = watch(memory, ANSWER_AT)
    if options.store_over:
        memory[ANSWER_AT : ANSWER_AT + ANSWER_BYTES] = b"the process's own".ljust(ANSWER_BYTES, b"\0")
    answer = bytes(memory[ANSWER_AT : ANSWER_AT + ANSWER_BYTES]).rstrip(b"\0").decode("latin-1")
    say(event="answered", answer=answer, looks=looks)


def wanted() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("marker")
    parser.add_argument("kind", choices=["small", "large"])
    parser.add_argument("cpu", type=int)
    parser.add_argument("--populate", action="store_true", help="control: all frames are there before the first touch")
    parser.add_argument("--elsewhere", action="store_true", help="control: the marker is stored behind the address that is told")
    parser.add_argument("--twice", action="store_true", help="control: the marker is stored there as well")
    parser.add_argument("--store-over", action="store_true", help="control: the process stores something over the host's answer")
    parser.add_argument("--gigantic", action="store_true", help="control: the page is one of 1 GiB")
    return parser.parse_args()


def extents(options: argparse.Namespace) -> "tuple[memoryview, int]":
    """Two extents of 2 MiB, and their address; all of it is made of small pages or of large ones."""
    mapped = Memory(2 * LARGE_BYTES, large=options.kind == "large")
    if options.populate:
        mapped.mapping.madvise(MADV_POPULATE_WRITE)
    return mapped.view, mapped.address


def gigantic() -> "tuple[memoryview, int]":
    """One page of 1 GiB, and its address."""
    mapping = mmap.mmap(-1, GIGANTIC_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB)
    return memoryview(mapping), address_of(mapping)


main()
