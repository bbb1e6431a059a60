"""Touch memory when told to, and say which guest-physical frames it got.

    touch.py PAGES

Maps so many pages and prints {"event": "mapped", ...}. For each line {"touch": N} on standard input it stores a byte into each of the next
N pages and prints {"event": "touched", "frames": [[first, count], ...]} with their frame numbers; for {"again": true} it stores into all
that it has touched once more. For {"fill": N} it maps N pages more, keeps them and stores into each: {"event": "filled", "frames": ...}.
"""

import ctypes
import json
import mmap
import sys

TYPE_CHECKING = False  # (mypy takes it for true, and sees a package where the guest has a folder of scripts.)
if TYPE_CHECKING:
    from .pagemap import FRAME, PAGE_BYTES, PRESENT, Pagemap, runs
else:
    from pagemap import FRAME, PAGE_BYTES, PRESENT, Pagemap, runs


def say(**record: object) -> None:
    """Print one line at once."""
    print(json.dumps(record), flush=True)


def mapped(pages: int) -> tuple[mmap.mmap, int]:
    """Memory of so many small pages, none of them touched yet, and its address."""
    memory = mmap.mmap(-1, pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def main(pages: int) -> None:
    """Map, then touch as told."""
    memory, base = mapped(pages)
    kept: list[mmap.mmap] = []
    pagemap = Pagemap()
    present = sum(bool(entry & PRESENT) for entry in pagemap.entries(base, pages))
    say(event="mapped", pages=pages, present=present)
    done = 0
    for line in sys.stdin:
        order = json.loads(line)
        if "fill" in order:
            more, start = mapped(order["fill"])
            more[::PAGE_BYTES] = bytes([1]) * order["fill"]
            kept.append(more)
            say(event="filled", frames=runs([entry & FRAME for entry in pagemap.entries(start, order["fill"])]))
            continue
        count = done if order.get("again") else order["touch"]
        first = 0 if order.get("again") else done
        for page in range(first, first + count):
            memory[page * PAGE_BYTES] = 1
        done = max(done, first + count)
        entries = pagemap.entries(base + first * PAGE_BYTES, count)
        say(
            event="touched",
            touched=done,
            present=sum(bool(entry & PRESENT) for entry in entries),
            frames=runs([e & FRAME for e in entries]),
        )


main(int(sys.argv[1]))
