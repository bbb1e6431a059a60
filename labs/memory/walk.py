"""One byte's way as the host recorded it: what was read at each stage, and the page tables, followed again entry by entry.

The tables were read by the host out of the guest's physical memory, and are read again here: every index, every address of an entry and
every hop is computed from the virtual address, from CR3 and from the entries themselves.
"""

from __future__ import annotations

from vmlab.lab import EvidenceProblem, Record

PAGE = 4096
CHAINS = ("chain_small", "chain_large", "chain_other")
"""A marker in a small page, in a large one, and in the other guest."""

MARKER_BYTES = 64

# Page-table entries, CR3 and what switches paging on: Intel SDM, volume 3A, chapter 4; AMD APM, volume 2, chapter 5.
PRESENT, ACCESSED, LARGE = 1 << 0, 1 << 5, 1 << 7
ADDRESS = (1 << 52) - (1 << 12)
CR0_PG, CR4_LA57, EFER_LMA = 1 << 31, 1 << 12, 1 << 10
USER_MODE = 3

# /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst.
IN_MEMORY, FRAME = 1 << 63, (1 << 55) - 1


def address_or_none(record: Record, key: str) -> int | None:
    """An address, or None where the evidence says that there is none (null)."""
    return None if record.is_null(key) else record.address(key)


def refusal(record: Record, key: str) -> str:
    """Why the host's kernel did not allow a look; empty when it did."""
    try:
        return record.record(key).text("refused")
    except EvidenceProblem:
        return ""


def holds(record: Record, key: str, marker: str) -> bool:
    """Whether the text that was read somewhere is the marker. EvidenceProblem when less was read than the marker has: that is no look."""
    found = record.text(key)
    if len(found) != len(marker):
        raise EvidenceProblem(f"{record.place}.{key}: expected {len(marker)} bytes that were read, found {len(found)}")
    return found == marker


def marker_of(chain: Record) -> str:
    """The marker of a chain: 64 characters that nobody could know beforehand."""
    marker = chain.text("marker")
    if len(marker) != MARKER_BYTES:
        raise EvidenceProblem(f"{chain.place}.marker: expected {MARKER_BYTES} characters, found {len(marker)}")
    return marker


def name_of(chain: Record) -> str:
    """Which chain it is, for people."""
    return f"{chain.text('guest')} ({chain.text('kind')} page)"


def guest_physical(chain: Record) -> int:
    """Where the guest's own kernel says that the marker is: its pagemap's frame, and the offset in the page."""
    said = chain.record("ready")
    entry = said.address("pagemap")
    if not entry & IN_MEMORY or not entry & FRAME:
        raise EvidenceProblem(f"{said.place}.pagemap: expected a page in memory with its frame, found {entry:#x}")
    return (entry & FRAME) * PAGE + said.address("virtual") % PAGE


def levels_by_registers(chain: Record) -> int:
    """How many levels the processor's registers say that its tables have.

    EvidenceProblem unless it was met on the processor of the marker's process, in user mode, with paging switched on in 64-bit mode:
    elsewhere its CR3 would be another's.
    """
    seen = chain.record("registers")
    if seen.integer("cpl") != USER_MODE or seen.integer("cpu") != chain.record("ready").integer("cpu"):
        raise EvidenceProblem(f"{seen.place}: expected the marker's processor in user mode")
    if not (seen.address("cr0") & CR0_PG and seen.address("efer") & EFER_LMA):
        raise EvidenceProblem(f"{seen.place}: expected a processor that translates (CR0.PG, EFER.LMA)")
    return 5 if seen.address("cr4") & CR4_LA57 else 4


class Walked:
    """A translation, computed again from what was read; ``fault`` says where the steps do not follow from each other."""

    def __init__(self, chain: Record, name: str, virtual: int) -> None:
        walk = chain.record(name) if name in chain else chain.record("answer").record(name)
        self.levels = chain.integer("levels")
        self.steps = walk.records("steps")
        self.page_bytes = 0
        self.physical: int | None = None
        self.fault = ""
        self._follow(chain.record("registers").address("cr3") & ADDRESS, virtual)
        if not self.fault and (address_or_none(walk, "physical"), walk.integer("page_bytes")) != (self.physical, self.page_bytes):
            self.fault = "the address it ended at does not follow from its last entry"
        if not self.fault and walk.address("virtual") != virtual:
            self.fault = "it is the walk for another address"

    def _follow(self, table: int, virtual: int) -> None:
        if self.levels not in (4, 5) or len(self.steps) > self.levels:
            self.fault = f"{len(self.steps)} steps in {self.levels} levels"
            return
        for level, step in zip(range(self.levels, 0, -1), self.steps, strict=False):
            shift = 12 + 9 * (level - 1)
            index, entry = virtual >> shift & 511, step.address("entry")
            if (step.integer("level"), step.integer("index"), step.address("entry_address")) != (level, index, table + 8 * index):
                self.fault = f"level {level} should read entry {index} of the table at {table:#x}"
                return
            last = step.place == self.steps[-1].place
            if not entry & PRESENT:
                self.fault = "" if last else f"level {level} says not present, and the walk goes on"
                return
            if level == 1 or (level <= 3 and entry & LARGE):
                self.page_bytes = 1 << shift
                self.physical = entry & ADDRESS & -self.page_bytes | virtual & self.page_bytes - 1
                self.fault = "" if last else f"level {level} maps a page, and the walk goes on"
                return
            table = entry & ADDRESS
        self.fault = "it ended before an entry that maps a page"


def walk_of(chain: Record) -> Walked:
    """The walk for the marker's address."""
    return Walked(chain, "walk", chain.record("ready").address("virtual"))


def shown(address: int | None) -> str:
    """An address for people."""
    return "nothing" if address is None else hex(address)
