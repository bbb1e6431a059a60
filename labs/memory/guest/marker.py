"""Keep a marker in memory and stay in user mode, so that the host can find this process's page tables in its processor.

    marker.py MARKER small|large CPU

MARKER (64 characters) is put into a page of the kind asked for, the process binds itself to one processor and says where it is; then it
watches its own memory without a system call until the host has stored an answer behind the marker, and says what it read. In between it
touches a second page for the first time, and says what the kernel had for it before and has after.

Prints, in this order: {"event": "ready", ...}, {"event": "touched", ...}, {"event": "answered", ...}. After each of the first two it waits
for the host to store a byte at the address that it named.
"""

import sys
import time

from vmlab_guest.pages import LARGE_BYTES, PAGE_BYTES, Memory, Pagemap
from vmlab_guest.say import say
from vmlab_guest.syscalls import thread_pointer
from vmlab_guest.timing import pin

PATIENCE_S = 60.0

# Where in the memory kept by this process things lie: the marker somewhere inside the page, so that its offset shows in each address.
MARKER_AT = 0x340
GO_AT = MARKER_AT + 0x80
ANSWER_AT = MARKER_AT + 0x100
ANSWER_BYTES = 32


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


def main(marker: str, kind: str, cpu: int) -> None:
    """Put the marker there, and answer twice."""
    pin(cpu)
    # All of it is made of small pages or of large ones.
    mapped = Memory(2 * LARGE_BYTES, large=kind == "large")
    offset = 0x123000 if kind == "large" else 0
    memory = mapped.view[offset:]
    virtual = mapped.address + offset
    # The next extent of 2 MiB: not the marker's page, of whatever size that is.
    second = mapped.view[LARGE_BYTES:]
    second_virtual = mapped.address + LARGE_BYTES

    memory[MARKER_AT : MARKER_AT + len(marker)] = marker.encode()
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
        cpu=cpu,
        page_bytes=PAGE_BYTES,
    )
    watch(memory, GO_AT)
    second[0] = 1
    say(event="touched", second_pagemap=hex(pagemap.entry(second_virtual)))
    looks = watch(memory, ANSWER_AT)
    answer = bytes(memory[ANSWER_AT : ANSWER_AT + ANSWER_BYTES]).rstrip(b"\0").decode("latin-1")
    say(event="answered", answer=answer, looks=looks)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
