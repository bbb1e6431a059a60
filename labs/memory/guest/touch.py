"""Touch memory when told to, and say which guest-physical frames it got.

    touch.py PAGES [--read]

Maps so many pages and prints {"event": "mapped", ...}. For each line {"touch": N} on standard input it stores a byte into each of the next
N pages and prints {"event": "touched", "frames": [[first, count], ...]} with their frame numbers; for {"again": true} it stores into all
that it has touched once more. For {"fill": N} it maps N pages more, keeps them and stores into each: {"event": "filled", "frames": ...}.

With --read (for a control of the lab) pages are read instead, and get no frame of their own: the kernel's page of zeros is behind them all.
"""

import sys

from vmlab_guest.pages import FRAME, PAGE_BYTES, PRESENT, Memory, Pagemap, runs
from vmlab_guest.say import orders, say


def main(pages: int, *, stores: bool) -> None:
    """Map, then touch as told."""
    memory = Memory(pages * PAGE_BYTES)
    kept: list[Memory] = []
    pagemap = Pagemap()
    present = sum(bool(entry & PRESENT) for entry in pagemap.entries(memory.address, pages))
    say(event="mapped", pages=pages, present=present)
    done = 0
    for order in orders():
        if "fill" in order:
            more = Memory(order["fill"] * PAGE_BYTES)
            more.view[::PAGE_BYTES] = bytes([1]) * order["fill"]
            kept.append(more)
            say(event="filled", frames=runs([entry & FRAME for entry in pagemap.entries(more.address, order["fill"])]))
            continue
        count = done if order.get("again") else order["touch"]
        first = 0 if order.get("again") else done
        if stores:
            memory.touch(first, count)
        else:
            sum(memory.view[first * PAGE_BYTES : (first + count) * PAGE_BYTES : PAGE_BYTES])
        done = max(done, first + count)
        entries = pagemap.entries(memory.address + first * PAGE_BYTES, count)
        say(
            event="touched",
            touched=done,
            present=sum(bool(entry & PRESENT) for entry in entries),
            frames=runs([e & FRAME for e in entries]),
        )


main(int(sys.argv[1]), stores=sys.argv[2:] != ["--read"])
