"""Page tables walked by hand, over tables that are made here."""

from __future__ import annotations

import struct

import pytest

from vmlab.guest.look.paging import GENERAL, Registers, registers_of, walk

PRESENT, LARGE = 1, 1 << 7


class Physical:
    """Guest-physical memory with nothing in it but what was put there."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def read(self, address: int, size: int) -> bytes:
        assert size == 8
        return struct.pack("<Q", self.words.get(address, 0))

    def map(self, virtual: int, frame: int, *, levels: int, leaf: int = 1, flags: int = PRESENT) -> int:
        """Tables for one page, at 0x100000 and on; returns CR3."""
        cr3 = table = 0x100000
        for level in range(levels, 0, -1):
            place = table + 8 * (virtual >> 12 + 9 * (level - 1) & 511)
            if level == leaf:
                self.words[place] = frame | flags
                return cr3
            table += 0x1000
            self.words[place] = table | PRESENT
        raise AssertionError("no such level")


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("virtual", [0, 0x7F8B9D600340, 0xFFFF_8000_0000_0FFF])
def test_a_small_page(levels: int, virtual: int) -> None:
    memory = Physical()
    found = walk(memory.read, memory.map(virtual, 0xABC000, levels=levels), levels, virtual)
    assert found.physical == 0xABC000 | virtual & 0xFFF
    assert found.page_bytes == 4096
    assert [step.level for step in found.steps] == list(range(levels, 0, -1))
    assert [step.index for step in found.steps] == [virtual >> 12 + 9 * (step.level - 1) & 511 for step in found.steps]


@pytest.mark.parametrize(("leaf", "page"), [(2, 2 << 20), (3, 1 << 30)])
def test_a_large_page_keeps_more_of_the_address(leaf: int, page: int) -> None:
    virtual, memory = 0x7F8B9D723456, Physical()
    # Bit 12 of a large page's entry is PAT: no part of the address.
    cr3 = memory.map(virtual, 4 << 30, levels=4, leaf=leaf, flags=PRESENT | LARGE | 1 << 12)
    found = walk(memory.read, cr3, 4, virtual)
    assert (found.physical, found.page_bytes, len(found.steps)) == (4 << 30 | virtual & page - 1, page, 4 - leaf + 1)


def test_bit_7_means_nothing_in_the_upper_levels_and_in_the_last() -> None:
    virtual, memory = 0x1234567000, Physical()
    cr3 = memory.map(virtual, 0x5000, levels=4, flags=PRESENT | LARGE)
    top = min(memory.words)
    memory.words[top] |= LARGE
    assert walk(memory.read, cr3, 4, virtual).physical == 0x5000


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
def test_an_entry_that_is_not_present_ends_the_walk(gone: int) -> None:
    virtual, memory = 0x1234567000, Physical()
    cr3 = memory.map(virtual, 0x5000, levels=4)
    place = sorted(memory.words)[4 - gone]
    memory.words[place] &= ~PRESENT
    found = walk(memory.read, cr3, 4, virtual)
    assert (found.physical, found.page_bytes, found.steps[-1].level) == (None, 0, gone)


def test_what_is_no_address_is_masked() -> None:
    """PCID in CR3, no-execute and protection keys in the entries."""
    virtual, memory = 0x1234567000, Physical()
    cr3 = memory.map(virtual, 0x5000, levels=4, flags=PRESENT | 1 << 63 | 0xF << 59 | 0x800)
    assert walk(memory.read, cr3 | 0x123, 4, virtual).physical == 0x5000


def state(cr0: int = 0x80050033, cr4: int = 0x750EF0, efer: int = 0xD01) -> Registers:
    return Registers(cpu=0, cpl=3, rip=0, fs_base=0, cr0=cr0, cr3=0, cr4=cr4, efer=efer)


@pytest.mark.parametrize(
    ("registers", "levels"),
    [
        (state(), 4),
        (state(cr4=0x751EF0), 5),
        (state(cr0=0x00050033), 0),
        (state(cr4=0x751ED0), 0),
        (state(efer=0x101), 0),
    ],
)
def test_how_many_levels_a_processor_walks(registers: Registers, levels: int) -> None:
    assert registers.levels == levels


PRINTED = """
CPU#0
RAX=0000000000000000 RBX=00007f8b9d6003c0 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000001 RDI=0000000000000002 RBP=00007ffd10203040 RSP=00007ffd10203000
R8 =0000000000000008 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000246
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=00000000000000ff
RIP=00000000005612b0 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 ffffffff 00000000
CS =0033 0000000000000000 ffffffff 00affb00 DPL=3 CS64 [-RA]
FS =0000 00007f8b9e102780 ffffffff 00000000
GS =0000 0000000000000000 ffffffff 00000000
CR0=80050033 CR2=00007f8b9d600340 CR3=000000000260c000 CR4=00751ef0
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80

CPU#1
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffffff82003e98
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=ffffffff8103f2b4 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
FS =0000 0000000000000000 ffffffff 00000000
CR0=80050033 CR2=0000000000000000 CR3=0000000002a0a000 CR4=00751ef0
EFER=0000000000000d01

CPU#2
RIP=000000000000fff0 RFL=00000002 [-------] CPL=0
"""


def test_registers_as_qemu_prints_them() -> None:
    first, second = registers_of(PRINTED)
    table = {"cr0": 0x80050033, "cr3": 0x260C000, "cr4": 0x751EF0, "efer": 0xD01}
    general = dict.fromkeys(GENERAL, 0) | {"rbx": 0x7F8B9D6003C0, "rsi": 1, "rdi": 2, "r8": 8, "r11": 0x246, "r15": 0xFF}
    general |= {"rbp": 0x7FFD10203040, "rsp": 0x7FFD10203000}
    assert first == Registers(cpu=0, cpl=3, rip=0x5612B0, fs_base=0x7F8B9E102780, rflags=0x246, general=general, **table)
    assert first.rsp == 0x7FFD10203000
    assert (second.cpu, second.cpl, second.cr3) == (1, 0, 0x2A0A000)


def test_a_processor_of_which_a_register_is_not_printed_is_left_out() -> None:
    assert [each.cpu for each in registers_of(PRINTED.replace(" R15=", " R16=", 1))] == [1]


@pytest.mark.parametrize("text", ["", "CPU#", "no such command", "CPU#0\nRIP=zz CPL=3"])
def test_what_is_not_registers_is_none(text: str) -> None:
    assert registers_of(text) == []
