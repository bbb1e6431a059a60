"""The processor's page tables, walked by hand: a pure function over whatever reads guest-physical memory.

The layout is that of the Intel SDM, volume 3A, chapter 4 ("Paging"), and of the AMD64 Architecture Programmer's Manual, volume 2,
chapter 5: tables of 512 entries of 8 bytes, nine bits of the virtual address for each level, and a page of 4 KiB, 2 MiB or 1 GiB below
the last.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PRESENT = 1 << 0
LARGE = 1 << 7
"""PS: in an entry of level 2 or 3, the page begins here (2 MiB or 1 GiB) instead of another table."""

ADDRESS = (1 << 52) - (1 << 12)
"""The bits of an entry, and of CR3, that hold a physical address. Below them CR3 may have a PCID, above them an entry may have NX."""

CR0_PG = 1 << 31
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
EFER_LMA = 1 << 10

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
"""The general registers, in the order of QEMU's monitor."""


@dataclass(frozen=True)
class Registers:
    """What decides how a processor translates addresses, and where it stood when it was stopped."""

    cpu: int
    cpl: int
    rip: int
    fs_base: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    rflags: int = 0
    general: Mapping[str, int] = field(default_factory=dict)
    """``rax`` to ``r15``, by name."""

    @property
    def rsp(self) -> int:
        """The stack pointer."""
        return self.general["rsp"]

    @property
    def levels(self) -> int:
        """4 or 5 levels of page tables; 0 when the processor is not in 64-bit mode with paging."""
        if not (self.cr0 & CR0_PG and self.cr4 & CR4_PAE and self.efer & EFER_LMA):
            return 0
        return 5 if self.cr4 & CR4_LA57 else 4


def registers_of(text: str) -> list[Registers]:
    """The processors in what QEMU's monitor prints for ``info registers -a``; one that is not printed whole is left out."""
    found = []
    for block in re.split(r"(?m)^CPU#", text)[1:]:
        number = re.match(r"\d+", block)
        words = {
            "cpl": re.search(r"\bCPL=(\d)", block),
            **{name: re.search(rf"\b{name.upper()}=\s*([0-9a-f]+)", block) for name in ("rip", "cr0", "cr3", "cr4", "efer")},
            # A segment is printed as selector, base, limit, flags.
            "fs_base": re.search(r"(?m)^FS\s*=\s*[0-9a-f]+\s+([0-9a-f]+)", block),
            "rflags": re.search(r"\bRFL=([0-9a-f]+)", block),
        }
        values = {name: int(word[1], 16) for name, word in words.items() if word}
        # (A short name is filled up with a space: "R8 =".)
        printed = {name: re.search(rf"\b{name.upper()} ?=([0-9a-f]{{16}})", block) for name in GENERAL}
        general = {name: int(word[1], 16) for name, word in printed.items() if word}
        if number and len(values) == len(words) and len(general) == len(GENERAL):
            found.append(Registers(cpu=int(number[0]), general=general, **values))
    return found


@dataclass(frozen=True)
class Step:
    """One look into one table: ``entry`` was read at the guest-physical ``entry_address``; levels count down to 1."""

    level: int
    index: int
    entry_address: int
    entry: int


@dataclass(frozen=True)
class Walk:
    """A translation step by step. ``physical`` is None when an entry said "not present"; ``page_bytes`` is then 0."""

    virtual: int
    steps: tuple[Step, ...]
    physical: int | None
    page_bytes: int


def walk(read: Callable[[int, int], bytes], cr3: int, levels: int, virtual: int) -> Walk:
    """Translate ``virtual`` as the processor does; ``read(address, size)`` reads guest-physical memory."""
    steps: list[Step] = []
    table = cr3 & ADDRESS
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        index = virtual >> shift & 511
        address = table + 8 * index
        (entry,) = struct.unpack("<Q", read(address, 8))
        steps.append(Step(level, index, address, entry))
        if not entry & PRESENT:
            break
        if level == 1 or (level <= 3 and entry & LARGE):
            page = 1 << shift
            # (In a large page's entry, bit 12 is PAT, not address: the page's own alignment masks it.)
            return Walk(virtual, tuple(steps), entry & ADDRESS & -page | virtual & page - 1, page)
        table = entry & ADDRESS
    return Walk(virtual, tuple(steps), None, 0)
