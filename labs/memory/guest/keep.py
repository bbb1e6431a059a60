#!/usr/bin/env python3
"""Read one word of a page over and over, in user mode, so that the host can see whether the page tables are read for it.

    keep.py CPU [--flush-always]

One thread binds itself to that processor and reads, in machine code: nothing of it enters the kernel. Another stays on other processors
and does what it is told. Prints {"event": "reading", ...} with the addresses of the page and of the box, which the reading thread fills:
what it read last, and how often. For each line {"flush": true} on standard input it has the kernel flush all translations of this process,
by giving back memory that has nothing to do with the page. It answers {"event": "flushed", "switches": N}: how often the reading thread was
taken off its processor so far. At the end of the input the script ends.

With --flush-always (for a control of the lab) they are flushed all the time.
"""

import mmap
import os
import sys
import threading

from vmlab_guest import native
from vmlab_guest.pages import PAGE_BYTES, Memory
from vmlab_guest.proc import status
from vmlab_guest.say import orders, say
from vmlab_guest.syscalls import gettid, thread_pointer
from vmlab_guest.timing import pin
from vmlab_guest.wait import wait_until

# rdi: the word that is read; rsi: the box, whose words are: what was read, how often, and whether to end.
READ = (
    ("488b07", "again: mov rax, [rdi]"),
    ("488906", "mov [rsi], rax"),
    ("48ff4608", "inc qword ptr [rsi + 8]"),
    ("48837e1000", "cmp qword ptr [rsi + 16], 0"),
    ("74ef", "je again"),
    ("c3", "ret"),
)
COUNT_AT, END_AT = 8, 16

# Above 33 pages Linux flushes all translations of a process at once (x86, tlb_single_page_flush_ceiling).
FLUSHED_PAGES = 64


def flush(others: Memory) -> None:
    """Give back pages that were touched: the kernel must see to it that no processor goes on using them."""
    others.touch()
    others.mapping.madvise(mmap.MADV_DONTNEED)


def obey(reading: Memory, thread: int) -> None:
    """Do as told, until there is nothing more to do."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {CPU} or {CPU})
    box = reading.view[PAGE_BYTES : 2 * PAGE_BYTES].cast("Q")
    others = Memory(FLUSHED_PAGES * PAGE_BYTES)
    wait_until(lambda: box[COUNT_AT // 8] > 0)
    say(event="reading", page=hex(reading.address), box=hex(reading.address + PAGE_BYTES), fs_base=hex(MAIN), cpu=CPU)
    for _ in orders():
        flush(others)
        say(event="flushed", switches=sum(int(status("self", thread)[f"{kind}_ctxt_switches"]) for kind in ("voluntary", "nonvoluntary")))
    box[END_AT // 8] = 1


def always() -> None:
    """Flush all the time."""
    others = Memory(FLUSHED_PAGES * PAGE_BYTES)
    while True:
        flush(others)


CPU, MAIN = int(sys.argv[1]), thread_pointer()


def main() -> None:
    """Two threads, or three."""
    reading = Memory(2 * PAGE_BYTES)
    reading.touch()
    routine = native.Routine(READ)
    helper = threading.Thread(target=obey, args=(reading, gettid()))
    helper.start()
    if "--flush-always" in sys.argv[2:]:
        threading.Thread(target=always, daemon=True).start()
    pin(CPU)
    routine(reading.address, reading.address + PAGE_BYTES)
    helper.join()


main()
