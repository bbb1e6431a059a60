"""How QEMU's memory grows as a guest touches its own, step by step: the guest's script is told what to touch, the host looks each time.

A guest gives away first what others in it used before, and such pages have a frame. So another mapping takes those before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

PAGE_BYTES = 4096
# pagemap, an entry's bit: the page is swapped out (Documentation/admin-guide/mm/pagemap.rst).
SWAPPED = 1 << 62

# How many pages at a time the memory that was used before is filled with, and how much of the guest's memory in all, at most.
FILL_PAGES = 4096
FILL_SHARE = 0.5
# Used memory lies behind some that never was, here and there: how often growth is looked for, until nearly all pages had no frame before.
TRIES = 5
NEARLY_ALL = 0.95

# A machine that is busy with others takes long for it.
LONG_S = 240.0


def growth(guest: Any, arguments: tuple[str, ...], pages: int, steps: int) -> dict[str, Any]:
    """How many frames of the host QEMU's process has after each step of touching, and after touching everything once more."""
    base = guest.memory.host_virtual(0)
    if base is None:
        return {"refused": "QEMU names no address of its own for the guest's memory"}
    tries: list[int] = []
    rounds = int(FILL_SHARE * guest.memory.memory_bytes) // (FILL_PAGES * PAGE_BYTES)
    with ExitStack() as kept:
        while not tries or (tries[-1] < NEARLY_ALL * pages and len(tries) < TRIES and rounds > 0):
            # Each keeps what it has taken until the end, so that the next one gets other memory.
            look = Look(guest.memory, kept.enter_context(guest.start("touch.py", pages, *arguments)), base)
            seen = look.grown(pages, steps, rounds)
            rounds -= len(seen["filled"]) + -(-pages // FILL_PAGES)
            tries.append(seen["samples"][-1]["unbacked_so_far"])
        look.process.finish()
    return {"pages": pages, "tries": tries, **seen}


def others_moved(seen: Mapping[str, Any]) -> float:
    """How many pages of QEMU's own memory came or went that the touching does not explain, as a share of the pages that were touched."""
    if "refused" in seen:
        return 0.0
    last, again = seen["samples"][-1], seen["again"]
    unexplained = last["own_growth_pages"] - last["unbacked_so_far"]
    more = (again["own_bytes"] - last["own_bytes"]) // PAGE_BYTES
    return float(round((abs(unexplained) + abs(more)) / seen["pages"], 4))


class Look:
    """One look at it: the host's view of the guest's memory, the script that touches it, and where QEMU keeps the guest's address 0."""

    def __init__(self, view: Any, process: Any, base: int) -> None:
        self.view, self.process, self.base = view, process, base

    def grown(self, pages: int, steps: int, rounds: int) -> dict[str, Any]:
        """Fill what was used before, so many rounds at most; then touch so many pages in steps, and all of them once more."""
        mapped, filled = self.process.read(LONG_S), self.fill(rounds)
        samples = [{"touched": 0, "unbacked": 0, **self.resident()}]
        for step in range(steps):
            count = pages // steps + (pages % steps if step == steps - 1 else 0)
            samples.append(self.touched({"touch": count}))
        again = self.touched({"again": True})
        unbacked = 0
        for sample in samples:
            unbacked += sample["unbacked"]
            sample["unbacked_so_far"] = unbacked
            sample["own_growth_pages"] = (sample["own_bytes"] - samples[0]["own_bytes"]) // PAGE_BYTES
        return {"mapped": mapped, "filled": filled, "samples": samples, "again": again}

    def fill(self, rounds: int) -> list[dict[str, int]]:
        """Have pages touched, at most so many rounds, until nearly all had no frame before; how many had none, each time."""
        filled: list[dict[str, int]] = []
        while len(filled) < rounds and not any(each["unbacked"] >= NEARLY_ALL * each["pages"] for each in filled):
            before = self.pages()
            self.process.send({"fill": FILL_PAGES})
            frames = each_frame(self.process.read(LONG_S))
            filled.append({"pages": FILL_PAGES, "unbacked": sum(not before[frame].own for frame in frames)})
        return filled

    def pages(self) -> list[Any]:
        """What the host's page tables hold for each page of the guest's memory."""
        found: list[Any] = self.view.host_pages(self.base, self.view.memory_bytes // PAGE_BYTES)
        return found

    def touched(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """One step of touching: which of its frames had a frame of the host before, and which have after.

        The whole of the guest's memory is looked at before, for nobody knows yet which frames it will be. What is swapped out in it by
        then, or of the touched pages after, is counted: then frames went as others came.
        """
        before = self.pages()
        self.process.send(order)
        said = self.process.read(LONG_S)
        frames = each_frame(said)
        after = [page for first, count in said["frames"] for page in self.view.host_pages(self.base + first * PAGE_BYTES, count)]
        return {
            "touched": said["touched"],
            "present": said["present"],
            "frames": len(set(frames)),
            "unbacked": sum(not before[frame].own for frame in frames),
            "backed_after": sum(page.own for page in after),
            "swapped": sum(bool(page.entry & SWAPPED) for page in (*before, *after)),
            **self.resident(),
        }

    def resident(self) -> dict[str, int]:
        """How much of the guest's memory is resident in QEMU's process, and how much of that is its own."""
        mapping = self.view.mapping(self.base)
        return {"resident_bytes": mapping.resident_bytes, "own_bytes": mapping.own_bytes, "huge_bytes": mapping.huge_bytes}


def each_frame(said: Mapping[str, Any]) -> list[int]:
    """The frame numbers that a guest script told as runs."""
    return [frame for first, count in said["frames"] for frame in range(first, first + count)]
