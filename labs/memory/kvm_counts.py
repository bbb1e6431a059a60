"""What tells nested paging from shadow page tables, from KVM's counters: each function judges one world by itself.

Judged are the counts of the probe of /dev/kvm (runner/vmlab/host/kvm), and those around loops in a whole guest (guest/loops.py).
runner/vmlab/probes/kvm.py says why the two worlds differ in this way, and has the numbers.

What an operation costs is a whole number of exits or of faults. Other work of the machine's adds some here and there, so that a count
between two whole numbers decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from vmlab.lab import EvidenceProblem, Record, Verdict, failed, inconclusive, kvm, passed

# What other work of the host's adds to a count, for one operation: its timer's ticks, mostly. What is expected are whole numbers.
STRAY = kvm.TOLERANCE
# Emulated instructions in one iteration of the probe's computing loop, whose iterations have two: a processor needs none.
EMULATED = kvm.EMULATED_AT_LEAST
AGAIN = "other work on that machine had part in the counts; run it again"

OWN_TABLES = {"remap": "maps another page", "reload_cr3": "loads CR3", "page_fault": "takes a page fault"}
SWAPS = {"swap_data": "the page", "swap_table": "one table", "swap_walk": "4 tables and the page"}
# What the processor adds to the error code of a nested page fault: whether it was reading one of the guest's page tables or had come to
# the guest's final address (AMD64 Architecture Programmer's Manual, volume 2, 15.25.6; Linux, PFERR_GUEST_PAGE and PFERR_GUEST_FINAL).
TABLE, FINAL = 1 << 33, 1 << 32
BITS = {TABLE: "a table", FINAL: "the page"}
NESTED_FAULTS, SHADOW_FAULTS = kvm.expected("nested", "pf_taken"), kvm.expected("shadow", "pf_taken")
# How many exits Linux, whose code that is, needs for each change of the guest's tables; any shadow paging needs one at least.
LINUX_EXITS = kvm.expected("shadow", "exits")
WALK = NESTED_FAULTS["swap_walk"]


def is_whole(count: float) -> bool:
    """Whether a count for one operation is a whole number, but for what other work adds."""
    return abs(count - round(count)) < STRAY


# --- the probe --------------------------------------------------------------------------------------------------------------------------


def each(probe: Record, name: str, counter: str) -> float:
    """How far one of KVM's counters went for one operation in a phase of the probe, whose guest must have computed the right results.

    Taken off are the exits for interrupts of the host's, and the HLT that ends each run: one exit and one emulated instruction.
    """
    phase = probe.record("phases").record(name)
    if not phase.flag("correct"):
        raise EvidenceProblem(f"{phase.place}: the probe's guest computed wrong results")
    counts, n, runs = phase.record("counts"), phase.integer("n", minimum=1), phase.integer("runs", minimum=1)
    # An ending that was not counted would mean that nothing was.
    counts.integer("exits", minimum=runs)
    total = moved(counts, counter)
    if counter == "exits":
        total -= moved(counts, "irq_exits") + runs
    elif counter == "insn_emulation":
        total -= runs
    return max(0.0, total / n)


def moved(counts: Record, counter: str) -> int:
    """How far a counter went; the probe leaves out those that stood still."""
    return counts.integer(counter, minimum=0) if counter in counts else 0


def uncounted(probe: Record, counter: str) -> str:
    """Why a kernel is too old for a count of the probe's; empty when it is not.

    It fixed a fault for each fresh page (pf_fixed, in every kernel with such counters) and took none by its own account: then it does not
    count what it takes (pf_taken came with Linux 5.19).
    """
    if not probe.flag("has_counters"):
        return "its kernel does not tell what KVM counts (KVM_GET_STATS_FD, from Linux 5.14 on)"
    phases = probe.record("phases")
    fresh = phases.record("touch_fresh")
    fixed = moved(fresh.record("counts"), "pf_fixed") >= fresh.integer("n", minimum=1)
    if fixed and not any(moved(phases.record(name).record("counts"), counter) for name in phases):
        return f"its kernel is too old: its KVM has no counter {counter}, which came with Linux 5.19"
    return ""


def runs_on_the_processor(probe: Record) -> Verdict:
    """Whether the guest's instructions were run by the processor."""
    emulated = each(probe, "compute", "insn_emulation")
    expected, measured = f"fewer than {EMULATED} emulated instructions an iteration", f"{emulated:.4f} an iteration"
    if emulated < EMULATED:
        return passed("KVM's emulator had nothing to do.", expected=expected, measured=measured)
    hint = "look at insn_emulation in the phase compute of the probe: is this KVM a program that interprets instructions?"
    return failed("KVM decoded the guest's instructions by software.", expected=expected, measured=measured, hint=hint)


def claims(probe: Record, wanted: str) -> Verdict:
    """Whether the kernel's module says what it was loaded with. A claim only, for the counts to confirm or to contradict."""
    said = probe.record("claim").text("nested_paging")
    expected, measured = f"one of ept={wanted}, npt={wanted}", said or "nothing"
    # (Linux 5.10 and earlier print kvm_amd's as a number.)
    if said in (f"ept={wanted}", f"npt={wanted}", f"npt={int(wanted == 'Y')}"):
        return passed("So says the module; the counts must confirm it.", expected=expected, measured=measured)
    return failed("The module says something else.", expected=expected, measured=measured, hint="was it loaded as it was asked to be?")


def exits_of(probe: Record) -> tuple[dict[str, float], float, str]:
    """Exits an operation for what the guest does to its own tables, page faults handed back to it, and both in words."""
    exits = {name: each(probe, name, "exits") for name in OWN_TABLES}
    handed_back = each(probe, "page_fault", "pf_guest")
    words = ", ".join(f"{what} {exits[name]:.2f}" for name, what in OWN_TABLES.items())
    return exits, handed_back, f"exits when the guest {words}; {handed_back:.2f} faults handed back to it"


def leaves_the_guest_alone(probe: Record) -> Verdict:
    """Nested paging: what the guest does to its own page tables never ends in the host."""
    exits, handed_back, measured = exits_of(probe)
    expected = f"below {STRAY} each, no fault handed back"
    most = max(*exits.values(), handed_back)
    if most < STRAY:
        return passed("The guest's page tables are its own affair.", expected=expected, measured=measured)
    if most > 1 - STRAY:
        hint = "that is what shadow page tables need: what does the module say (npt, ept), and was it loaded so?"
        return failed("KVM had to step in.", expected=expected, measured=measured, hint=hint)
    return inconclusive("KVM had to step in sometimes, and not each time.", expected=expected, measured=measured, hint=AGAIN)


def steps_in(probe: Record) -> Verdict:
    """Shadow page tables: the host sees each change, because its merged copy is what the processor walks."""
    exits, handed_back, measured = exits_of(probe)
    needed = ", ".join(f"{what} {LINUX_EXITS[name]}" for name, what in OWN_TABLES.items())
    expected = f"1 or more each (Linux 6.1 and 6.12 need: {needed}), 1 fault handed back"
    fewest = min(exits.values())
    if fewest > 1 - STRAY and abs(handed_back - 1) < STRAY:
        return passed("KVM stepped in each time.", expected=expected, measured=measured)
    if fewest < STRAY or (is_whole(handed_back) and round(handed_back) != 1):
        hint = "that is what nested paging shows: what does the module say (npt, ept), and was it loaded so?"
        return failed(
            "KVM did not step in, so that its tables are no copy of the guest's.", expected=expected, measured=measured, hint=hint
        )
    return inconclusive("KVM stepped in sometimes, and not each time.", expected=expected, measured=measured, hint=AGAIN)


def faults_are(probe: Record, wanted: Mapping[str, int], why: str) -> Verdict:
    """Whether as many faults as expected follow when the host swaps its pages behind the guest's."""
    faults = {name: each(probe, name, "pf_taken") for name in SWAPS}
    measured = ", ".join(f"{what} {faults[name]:.2f}" for name, what in SWAPS.items())
    expected = ", ".join(f"{what} {wanted[name]}" for name, what in SWAPS.items())
    wrong = [faults[name] for name in SWAPS if abs(faults[name] - wanted[name]) >= STRAY]
    if not wrong:
        return passed(why, expected=expected, measured=measured)
    if any(is_whole(count) for count in wrong):
        hint = "how many tables does the processor read: each of the guest's (nested paging), or none of them (shadow page tables)?"
        return failed("The faults are not those of such a walk.", expected=expected, measured=measured, hint=hint)
    return inconclusive("The faults are no whole number for each read.", expected=expected, measured=measured, hint=AGAIN)


def reads_the_guests_tables(probe: Record) -> Verdict:
    """Nested paging: the processor looks up each of the guest's tables in the host's set."""
    why = f"The processor itself went through the guest's tables: {WALK - 1} of them and the page make {WALK}."
    return faults_are(probe, NESTED_FAULTS, why)


def never_reads_them(probe: Record) -> Verdict:
    """Shadow page tables: the processor walks the merged copy."""
    return faults_are(probe, SHADOW_FAULTS, "The processor walked KVM's copy and never read the guest's tables: only the page counts.")


# --- the kernel's trace of the probe's faults ---------------------------------------------------------------------------------------------


def traced(seen: Record, last: int) -> list[tuple[int, int]]:
    """The last of the faults that the kernel traced while the probe ran, each as (address, error code).

    EvidenceProblem when the probe did not come to its end: then they are of another phase.
    """
    if not seen.is_null("probe_error"):
        raise EvidenceProblem(f"{seen.place}.probe_error: the probe did not come to its end while its faults were traced")
    return [(fault.address("address"), fault.address("error_code")) for fault in seen.records("last", at_least=last)[-last:]]


def in_words(faults: list[tuple[int, int]]) -> str:
    """Faults as a reader can follow them: where, and what the processor said they were."""
    return ", ".join(f"{address:#x} ({BITS.get(code & (TABLE | FINAL), 'no such bit')})" for address, code in faults)


def reads_of(world: Record) -> int:
    """How often the probe's last phase had the guest read, as its record says."""
    return world.record("probe").record("phases").record("swap_walk").integer("n", minimum=1)


def each_fault_is_named(world: Record) -> Verdict:
    """Nested paging: the processor says of each fault whether it was reading a table of the guest's or the page itself."""
    reads = reads_of(world)
    faults = traced(world.record("faults"), WALK * reads)
    # (A read ends with the fault at the page.)
    walks: list[list[tuple[int, int]]] = [[]]
    for address, code in faults:
        walks[-1].append((address, code & (TABLE | FINAL)))
        if code & FINAL:
            walks.append([])
    right = Counter(tuple(walk) for walk in walks if is_a_walk(walk))
    times = max(right.values(), default=0)
    expected = f"{reads} times: {WALK - 1} faults at tables of the guest's, the same ones each time, then 1 at the page"
    measured = f"{times} times; the last: {in_words(faults[-WALK:])}"
    if times == reads:
        return passed("Level by level, the processor named what it could not reach.", expected=expected, measured=measured)
    if 2 * times <= reads:
        hint = "look at the error codes in faults.last: which have bit 33 (a table), which bit 32 (the page), and which neither?"
        return failed("The faults are not those of such a walk.", expected=expected, measured=measured, hint=hint)
    return inconclusive("Other faults came between those of the walks.", expected=expected, measured=measured, hint=AGAIN)


def is_a_walk(faults: list[tuple[int, int]]) -> bool:
    """Whether these are the faults of one walk, each as (address, bit): one at each table and then one at the page, all elsewhere."""
    bits, addresses = [bit for _, bit in faults], {address for address, _ in faults}
    return bits == [TABLE] * (WALK - 1) + [FINAL] and len(addresses) == WALK


def no_fault_is_named(world: Record) -> Verdict:
    """Shadow page tables: the processor knows of one set of tables only, and its faults are at the guest's virtual address."""
    reads = reads_of(world) * SHADOW_FAULTS["swap_walk"]
    faults = traced(world.record("faults"), reads)
    named = sum(bool(code & (TABLE | FINAL)) for _, code in faults)
    (_, times), *others = Counter(address for address, _ in faults).most_common()
    expected = f"{reads} faults, none with such a bit, all at the one virtual address that the guest reads"
    measured = f"{named} with such a bit, at {1 + len(others)} addresses; the last: {in_words(faults[-1:])}"
    if not named and not others:
        return passed("Nothing in them tells of a second set of tables.", expected=expected, measured=measured)
    if 2 * named >= reads or 2 * times <= reads:
        hint = "look at faults.last: an address that is not the guest's virtual one, or a bit 32 or 33, is of nested paging"
        return failed("The faults tell of a second set of tables.", expected=expected, measured=measured, hint=hint)
    return inconclusive("Other faults came between those of the reads.", expected=expected, measured=measured, hint=AGAIN)


# --- a whole guest --------------------------------------------------------------------------------------------------------------------


class Counted:
    """KVM's counters around one loop of a guest, as far as they can be believed: the loop was the one asked for, and they were counting."""

    def __init__(self, loops: Record, name: str, operations: int) -> None:
        self._loop = loops.record(name)
        done = self._loop.integer("operations")
        if done != operations:
            raise EvidenceProblem(f"{self._loop.place}.operations: expected {operations}, found {done}")
        self._operations = operations
        # Even at rest a guest exits, for its timer, and the fault by which its first pages came lies behind it.
        self._loop.record("before").integer("pf_taken", minimum=1)
        if self.total("exits") < 1:
            raise EvidenceProblem(f"{self._loop.place}: no exit was counted, not even the loop's own words")

    def total(self, counter: str) -> int:
        """How far it rose."""
        before, after = (self._loop.record(when).integer(counter, minimum=0) for when in ("before", "after"))
        if after < before:
            raise EvidenceProblem(f"{self._loop.place}: {counter} fell from {before} to {after}")
        return after - before

    def each(self, counter: str) -> float:
        """How far it rose for one operation."""
        return self.total(counter) / self._operations


class WholeGuest:
    """What was counted around the loops in a whole guest."""

    def __init__(self, loops: Record, parameters: Record) -> None:
        pages, rounds, switches = (parameters.integer(name, minimum=1) for name in ("pages", "rounds", "switches"))
        self.idle = Counted(loops, "idle", 0)
        self.remap = Counted(loops, "remap", pages * rounds)
        self.touch = Counted(loops, "touch", pages)
        self.switch = Counted(loops, "switch", 2 * switches)
        taken, fixed, handed_back = (self.remap.total(name) for name in ("pf_taken", "pf_fixed", "pf_guest"))
        self.measured = (
            f"{pages * rounds} pages mapped anew: {taken} faults taken, {fixed} fixed, {handed_back} handed back; {pages} touched first: "
            f"{self.touch.total('pf_guest')} handed back; {2 * switches} switches: {self.switch.total('tlb_flush')} flushes; "
            f"a second of rest: {self.idle.total('pf_taken')} faults"
        )


def uncounted_in_a_guest(counted: Record, counter: str) -> str:
    """Why a kernel is too old for a count around the loops; empty when it is not: it counts what it fixed and not this."""
    before = counted.record("loops").record("idle").record("before")
    if counter not in before and before.integer("pf_fixed", minimum=1):
        return f"its kernel is too old: its KVM has no counter {counter}, which came with Linux 5.19"
    return ""


def counters_show_nested(counted: Record, parameters: Record) -> Verdict:
    """Nested paging in a whole guest: its mappings, its page faults and its switches are not seen by the host."""
    guest = WholeGuest(counted.record("loops"), parameters)
    expected = f"below {STRAY} for each operation"
    seen = [guest.remap.each(name) for name in ("pf_taken", "pf_fixed", "pf_guest")]
    seen += [guest.touch.each("pf_guest"), guest.switch.each("tlb_flush")]
    if max(seen) < STRAY:
        return passed("A whole guest changed its page tables, and KVM was not asked.", expected=expected, measured=guest.measured)
    if max(seen) > 1 - STRAY:
        hint = "that is what shadow page tables need: compare the counters before and after each of the loops"
        return failed("KVM had to follow the guest's page tables.", expected=expected, measured=guest.measured, hint=hint)
    return inconclusive("KVM was asked sometimes, and not each time.", expected=expected, measured=guest.measured, hint=AGAIN)


def counters_show_shadow(counted: Record, parameters: Record) -> Verdict:
    """Shadow page tables in a whole guest: a fault for each page that is mapped or touched, a flush for each switch."""
    guest = WholeGuest(counted.record("loops"), parameters)
    if guest.idle.total("pf_taken") > STRAY * guest.remap.total("pf_taken") > 0:
        return inconclusive("So many faults were taken at rest that the loops' own cannot be told.", measured=guest.measured, hint=AGAIN)
    expected = "1 or more for each page and for each switch"
    seen = [guest.remap.each("pf_taken"), guest.remap.each("pf_fixed"), guest.touch.each("pf_guest"), guest.switch.each("tlb_flush")]
    if min(seen) > 1 - STRAY:
        return passed("KVM followed every change of the guest's page tables.", expected=expected, measured=guest.measured)
    if min(seen) < STRAY:
        why = "KVM was not asked, so that its tables are no copy of the guest's."
        hint = "that is what nested paging shows: compare the counters before and after each of the loops"
        return failed(why, expected=expected, measured=guest.measured, hint=hint)
    return inconclusive("KVM was asked sometimes, and not each time.", expected=expected, measured=guest.measured, hint=AGAIN)
