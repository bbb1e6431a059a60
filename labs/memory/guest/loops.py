#!/usr/bin/env python3
"""Loops whose cost in exits tells nested page tables from shadow page tables. Whoever runs this guest reads its counters around each.

It talks in JSON lines. It greets with the names of its loops. ``{"loop": "remap", "pages": 4096, "rounds": 8}`` is answered by
``{"ready": "remap"}`` when everything that the loop needs is there and warm; the next line, whatever it is, starts it, and its result is
printed when it has ended. At the end of the input the script ends.

A nested guest runs it as its init process and the lab's own guest over SSH, so it imports only what is cheap to start with.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable

from vmlab_guest.say import hear, say
from vmlab_guest.timing import pin

PAGE = mmap.PAGESIZE
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
WARM_UP_SWITCHES = 50

Loop = Callable[[], "dict[str, object]"]


def remap(pages: int = 4096, rounds: int = 8) -> Loop:
    """Map the same page frames at fresh addresses, again and again.

    The guest writes page-table entries and no new frame is touched. With nested page tables that is the guest's own affair; shadow page
    tables have to be made anew for every mapping.
    """
    size = pages * PAGE
    file = os.memfd_create("vmlab-remap")
    os.ftruncate(file, size)

    def one_round() -> None:
        mapping = mmap.mmap(file, size, flags=mmap.MAP_SHARED)
        for at in range(0, size, PAGE):
            mapping[at] = (mapping[at] + 1) & 0xFF
        mapping.close()

    # The first round brings the frames; those of its page tables go back to where the next round finds them.
    one_round()

    def run() -> dict[str, object]:
        for _ in range(rounds):
            one_round()
        os.close(file)
        return {"operations": pages * rounds, "pages": pages, "rounds": rounds}

    return run


def touch(pages: int = 4096) -> Loop:
    """Touch memory that was never touched before: the guest's own page faults.

    With nested page tables they never leave the guest. With shadow page tables each is taken by the host first, and handed back.
    """
    size = pages * PAGE

    def mapped(size: int) -> mmap.mmap:
        mapping = mmap.mmap(-1, size, flags=ANONYMOUS)
        # One fault a page, not one for each 512 of them.
        mapping.madvise(mmap.MADV_NOHUGEPAGE)
        return mapping

    def write(mapping: mmap.mmap) -> None:
        for at in range(0, len(mapping), PAGE):
            mapping[at] = 1

    write(mapped(16 * PAGE))
    mapping = mapped(size)

    def run() -> dict[str, object]:
        write(mapping)
        return {"operations": pages, "pages": pages}

    return run


def switch(rounds: int = 500) -> Loop:
    """Two processes take turns: each switch loads another address space (a write to CR3)."""
    to_child, from_parent = pipe()
    to_parent, from_child = pipe()
    child = os.fork()
    if child == 0:
        for _ in range(WARM_UP_SWITCHES + rounds):
            os.read(from_parent, 1)
            os.write(to_parent, b"x")
        os._exit(0)

    def turns(count: int) -> None:
        for _ in range(count):
            os.write(to_child, b"x")
            os.read(from_child, 1)

    # After the fork both share their pages until they write to them; that is over before the loop is measured.
    turns(WARM_UP_SWITCHES)

    def run() -> dict[str, object]:
        turns(rounds)
        # (Not waited for: a child's end costs more than many switches.)
        return {"operations": 2 * rounds, "rounds": rounds}

    return run


def idle(seconds: float = 1.0) -> Loop:
    """Nothing: the control. What is counted here is the noise of the others."""

    def run() -> dict[str, object]:
        time.sleep(seconds)
        return {"operations": 0, "seconds": seconds}

    return run


LOOPS: dict[str, Callable[..., Loop]] = {"remap": remap, "touch": touch, "switch": switch, "idle": idle}


def pipe() -> tuple[int, int]:
    """Its writing end and its reading end."""
    reading, writing = os.pipe()
    return writing, reading


def main() -> None:
    """Answer until the input ends."""
    # On one CPU, or two processes that take turns would not switch but wait for each other.
    pin()
    say(loops=sorted(LOOPS))
    while asked := hear():
        name = asked.pop("loop")
        run = LOOPS[name](**asked)
        say(ready=name)
        if hear() is None:
            return
        began = time.monotonic()
        result = run()
        say(result, loop=name, elapsed_s=round(time.monotonic() - began, 6))


if __name__ == "__main__":
    main()
