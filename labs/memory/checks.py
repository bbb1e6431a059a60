"""What the evidence shows of one byte's way within the guest: from its virtual address to its physical one, by the guest's page tables.

What the guest says of itself is held against what the host read out of its memory (walk.py).
"""

from __future__ import annotations

import re

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, not_observable, passed

from .walk import (
    CHAINS,
    FRAME,
    IN_MEMORY,
    PAGE,
    Walked,
    address_or_none,
    guest_physical,
    holds,
    levels_by_registers,
    marker_of,
    name_of,
    shown,
    walk_of,
)


def first_of(guest: Record, name: str) -> Record:
    """The first range of a map of the guest's memory. EvidenceProblem when its addresses are hidden, which reads as 0 to 0."""
    first = guest.records(name)[0]
    if first.address("end") <= first.address("start"):
        raise EvidenceProblem(f"{first.place}: expected a range, found one from {first.text('start')} to {first.text('end')}")
    return first


@check(points=1, claim="M9")
def every_guest_begins_at_zero(evidence: Evidence) -> Verdict:
    """Each guest finds memory at physical address 0, so say its firmware's map and its kernel's; two guests do at the same time.

    The firmware's map (/sys/firmware/memmap) is what the guest was told when it was switched on; /proc/iomem is what its kernel made of
    it. Two guests on one host cannot both have the host's address 0, so the addresses of at least one of them are not the machine's.
    """
    said = evidence["addresses"]
    begins: dict[str, str] = {}
    expected = "memory from address 0 on, in both guests"
    for name in ("main", "other"):
        guest = said.record(name)
        firmware, kernel = first_of(guest, "firmware_map"), first_of(guest, "iomem")
        begins[name] = f"{name}: firmware {firmware.text('start')} ({firmware.text('type')}), kernel {kernel.text('start')}"
        if firmware.address("start") != 0 or kernel.address("start") != 0 or firmware.text("type") != "System RAM":
            hint = "compare /proc/iomem and /sys/firmware/memmap in the guest: was its kernel started with memmap= or mem=?"
            return failed(f"The memory of the guest {name} does not begin at 0.", expected=expected, measured=begins[name], hint=hint)
    measured = "; ".join(begins.values())
    return passed("Both guests have an address 0, and the host has only one.", expected=expected, measured=measured)


@check(points=2, claim="M7")
def the_tables_lead_to_the_frame(evidence: Evidence) -> Verdict:
    """Following the guest's page tables by hand, from CR3 on, leads to the frame that the guest's kernel names.

    The host stops the guest while the marker's process runs, and reads each table out of guest-physical memory. Three must agree: this
    walk by hand, the guest's kernel (/proc/PID/pagemap), and QEMU's own translation.
    """
    words = []
    expected = "one address from the walk, the guest's pagemap and QEMU"
    for name in CHAINS:
        chain = evidence[name]
        levels_by_registers(chain)
        walk, said, monitor = walk_of(chain), guest_physical(chain), address_or_none(chain, "monitor_physical")
        words.append(f"{name_of(chain)}: {len(walk.steps)} entries to {shown(walk.physical)}")
        measured = f"{name_of(chain)}: walk {shown(walk.physical)}, pagemap {said:#x}, QEMU {shown(monitor)}"
        if chain.record("registers").address("fs_base") != chain.record("ready").address("fs_base"):
            hint = "registers.fs_base tells whose thread the processor ran; it must be that of the marker's process"
            return failed("The processor ran another process, with other tables.", expected=expected, measured=measured, hint=hint)
        if walk.fault or walk.physical != said or monitor != said:
            why = f"In {name_of(chain)} the walk does not hold together: {walk.fault}." if walk.fault else "The three do not agree."
            hint = f"follow the steps of {name}.walk in the evidence, entry by entry: which is the first that leads elsewhere?"
            return failed(why, expected=expected, measured=measured, hint=hint)
    return passed("Walk, pagemap and QEMU agree each time.", expected=expected, measured="; ".join(words))


def virtual_bits(guest: Record) -> int:
    """How wide the processor's virtual addresses are, by /proc/cpuinfo. (CPUID says so whether the kernel uses them or not.)"""
    found = re.search(r"([0-9]{1,3}) bits virtual", guest.text("address_sizes"))
    if found is None:
        raise EvidenceProblem(f"{guest.place}.address_sizes: expected a number of bits")
    return int(found[1])


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def a_walk_has_four_levels_or_five(evidence: Evidence) -> Verdict:
    """A walk reads five entries where the kernel uses addresses of 57 bits (LA57), and four where it was told not to.

    The flag la57 in /proc/cpuinfo says that the kernel uses them; the width beside it ("57 bits virtual") says that the processor could.
    Register CR4 says what the processor does.
    """
    found: dict[str, tuple[int, int]] = {}
    words = []
    for name, guest in (("chain_small", "main"), ("chain_other", "other")):
        chain = evidence[name]
        if chain.text("guest") != guest:
            raise EvidenceProblem(f"{chain.place}.guest: expected {guest}, found {chain.text('guest')}")
        walk = walk_of(chain)
        found[guest] = walk.levels, levels_by_registers(chain)
        words.append(f"{guest}: {len(walk.steps)} entries read, CR4.LA57 {found[guest][1] - 4}")
        if len(walk.steps) != walk.levels:
            raise EvidenceProblem(f"{chain.place}.walk.steps: expected {walk.levels} entries, found {len(walk.steps)}")
    measured, expected = "; ".join(words), "5 entries with LA57, 4 without, and 4 in the guest other"
    if any(levels != by_registers for levels, by_registers in found.values()):
        hint = "compare registers.cr4, bit 12, with the number of steps of the walk"
        return failed("The entries read are not as many as CR4 says.", expected=expected, measured=measured, hint=hint)
    if found["other"][0] != 4:
        hint = "does /proc/cmdline of the guest other say no5lvl?"
        return failed("A kernel that was told no5lvl used five levels.", expected=expected, measured=measured, hint=hint)
    main = evidence["addresses"].record("main")
    bits, used = virtual_bits(main), main.flag("la57")
    if used != (found["main"][0] == 5):
        hint = "compare the flags in /proc/cpuinfo of the guest main with registers.cr4"
        return failed("The flag la57 and the walk contradict each other.", expected=expected, measured=measured, hint=hint)
    if used:
        return passed("Five levels in one guest, four in the other.", expected=expected, measured=measured)
    why = f"This processor has addresses of {bits} bits" if bits < 57 else "The guest's kernel was built without tables of five levels"
    return not_observable(f"{why}, so that no walk has five levels here ({measured}).")


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def a_large_page_ends_the_walk_earlier(evidence: Evidence) -> Verdict:
    """For a page of 2 MiB the walk ends one level earlier: the entry of level 2 has the bit PS and leads to the page itself.

    The offset within the page then has the 21 lowest bits of the address, in the place of 12: nine bits more, those that would have chosen
    an entry of the last table.
    """
    chain = evidence["chain_large"]
    walk = walk_of(chain)
    if walk.page_bytes == PAGE:
        return inconclusive("The guest's kernel gave no page of 2 MiB.", hint="is /sys/kernel/mm/transparent_hugepage/enabled never?")
    expected = "one entry fewer than there are levels, a page of 2048 KiB"
    measured = f"{len(walk.steps)} of {walk.levels} levels, a page of {walk.page_bytes >> 10} KiB"
    if walk.page_bytes == 2 << 20:
        return passed("The entry of level 2 leads to the page itself.", expected=expected, measured=measured)
    hint = "which level has the last entry of chain_large.walk, and is bit 7 (PS) set in it?"
    return failed("The walk did not end at level 2.", expected=expected, measured=measured, hint=hint)


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def untouched_memory_has_no_frame(evidence: Evidence) -> Verdict:
    """Memory that a process asked for and never touched has no frame: an entry says "not present" until the first touch.

    The same address is walked by hand before and after the process stores its first byte there, and each time the guest's pagemap is
    asked, too.
    """
    words = []
    expected = "no frame before, and the same frame by both after"
    for name in ("chain_small", "chain_other"):
        chain = evidence[name]
        said, later = chain.record("ready"), chain.record("answer")
        if "refused" in later:
            return not_observable(f"The guest's process could not be told to touch its page: {later.text('refused')}.")
        virtual = said.address("second_virtual")
        before, after = Walked(chain, "second_before", virtual), Walked(chain, "second_after", virtual)
        entries = said.address("second_pagemap"), later.record("touched").address("second_pagemap")
        words.append(
            f"{chain.text('guest')}: {len(before.steps)} entries to {shown(before.physical)} before, pagemap {entries[0]:#x}; "
            f"{len(after.steps)} entries to {shown(after.physical)} after, pagemap frame {entries[1] & FRAME:#x}"
        )
        why = contradiction(before, after, entries)
        if why:
            hint = f"follow {name}.second_before and {name}.answer.second_after; did anything touch the page before (MAP_POPULATE, mlock)?"
            return failed(why, expected=expected, measured=words[-1], hint=hint)
    return passed("The first touch brought the frame.", expected=expected, measured="; ".join(words))


def contradiction(before: Walked, after: Walked, pagemap: tuple[int, int]) -> str:
    """Why the walks before and after a touch, and the pagemap's two entries, do not show that it brought the frame; empty when they do."""
    if before.fault or after.fault:
        return f"The walk does not hold together: {before.fault or after.fault}."
    if before.physical is not None or pagemap[0] & IN_MEMORY:
        return "There was a frame before the first touch."
    if after.physical is None or not pagemap[1] & IN_MEMORY or after.physical // PAGE != pagemap[1] & FRAME:
        return "After the touch the tables and the pagemap do not name one frame."
    return ""


@check(points=1, claim="M2", after="the_tables_lead_to_the_frame")
def the_byte_lies_at_its_address(evidence: Evidence) -> Verdict:
    """What the guest's process stored is read from outside at its guest-physical address, and a page further lies something else.

    The process stores 64 random characters, the marker. The host knows the address from the page tables alone and reads the guest's
    memory there, without asking anybody in the guest. The look at the next page shows that the marker is not simply everywhere.
    """
    words = []
    expected = "the marker at its address, other bytes a page further"
    for name in CHAINS:
        chain = evidence[name]
        marker = marker_of(chain)
        here, beside = holds(chain, "physical_holds", marker), holds(chain, "next_page_holds", marker)
        at, further = ("the marker" if found else "other bytes" for found in (here, beside))
        words.append(f"{name_of(chain)}: {at} at {guest_physical(chain):#x}, {further} a page further")
        if not here or beside:
            where = "The marker is a page further, too." if beside else "The marker is not at its address."
            hint = f"compare {name}.marker with {name}.physical_holds and {name}.next_page_holds in the evidence"
            return failed(where, expected=expected, measured=words[-1], hint=hint)
    return passed("64 characters, found three times.", expected=expected, measured="; ".join(words))
