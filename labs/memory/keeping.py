"""Whether the page tables are read for each access, seen from outside: by the bit that the processor sets in an entry that it reads.

The host clears it behind the back of a process that reads one word of the page over and over, and looks again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .walk import ACCESSED
from .writing import address

LOOKS = 10
ENTRY_BYTES = 8
# Where in the box (guest/keep.py) the number of reads is.
COUNT_AT = 8
# How many reads are waited for before the host looks again, and after the guest's kernel flushed its translations.
READS, READS_AFTER = 1_000_000, 10_000
# A guest's processor that gets no time of the host's reads nothing: then there are fewer, and the look does not tell.
PATIENCE_S = 5.0
BETWEEN_LOOKS_S = 0.005
# A machine that is busy with others takes long for it.
LONG_S = 240.0


def kept(view: Any, process: Any) -> dict[str, Any]:
    """Some looks, one after the other, at the entry of the page that the process reads. HostError where the host's kernel refuses it."""
    said = process.read(LONG_S)
    with view.frozen_in(address(said, "fs_base")) as registers:
        page, box = (view.walk(registers, address(said, name)) for name in ("page", "box"))
    entry_at, box_at = view.host_virtual(page.steps[-1].entry_address), view.host_virtual(box.physical)
    if entry_at is None or box_at is None:
        return {"refused": "QEMU names no address of its own for the guest's page tables"}
    look = Look(view, process, entry_at, box_at)
    # (The first flush is there for what it says: how often the process was taken off its processor until now.)
    look.flush()
    tries = [look.taken() for _ in range(LOOKS)]
    # (For the reader: the checks count anew.)
    set_again = sum(bool(int(each["after"], 16) & ACCESSED) for each in tries)
    return {"entry_address": hex(page.steps[-1].entry_address), "tries": tries, "set_again": set_again}


def disturbed(seen: Mapping[str, Any]) -> float:
    """In what part of the looks another process was on the processor as well."""
    tries = seen.get("tries", [])
    return sum(each["switches"] > 0 for each in tries) / len(tries) if tries else 0.0


class Look:
    """Looks at one entry of the guest's page tables while a process reads by it."""

    def __init__(self, view: Any, process: Any, entry_at: int, box_at: int) -> None:
        self._view, self._process = view, process
        self._entry_at, self._box_at = entry_at, box_at
        self._switches = 0

    def taken(self) -> dict[str, Any]:
        """Clear the bit, wait for reads, look; have the translations flushed, wait again, look again."""
        began, entry = self._count(), self._entry()
        # (One byte, so that nothing is lost of what the guest may store into the others meanwhile.)
        self._view.write(self._entry_at, bytes([entry & 0xFF & ~ACCESSED]))
        reads = self._wait_for(began, READS)
        after = self._entry()
        switches = self.flush()
        reads_after = self._wait_for(self._count(), READS_AFTER)
        return {
            "before": hex(entry),
            "reads": reads,
            "after": hex(after),
            "switches": switches,
            "reads_after_flush": reads_after,
            "after_flush": hex(self._entry()),
        }

    def flush(self) -> int:
        """Have the guest's kernel flush the process's translations; how often another had its processor since the last time."""
        self._process.send({"flush": True})
        before, self._switches = self._switches, int(self._process.read(LONG_S)["switches"])
        return self._switches - before

    def _wait_for(self, began: int, reads: int) -> int:
        """How many reads there were since; so many, unless the guest's processor gets no time."""
        end = time.monotonic() + PATIENCE_S
        while (done := self._count() - began) < reads and time.monotonic() < end:
            time.sleep(BETWEEN_LOOKS_S)
        return done

    def _entry(self) -> int:
        return int.from_bytes(self._view.read(self._entry_at, ENTRY_BYTES), "little")

    def _count(self) -> int:
        return int.from_bytes(self._view.read(self._box_at + COUNT_AT, ENTRY_BYTES), "little")
