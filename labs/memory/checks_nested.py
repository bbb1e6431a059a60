"""Who walks the second set of page tables: the processor, or a copy that KVM keeps. Each check judges KVM's counters in one world."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, VerdictKind, check, failed, inconclusive, kvm, not_observable, passed

# --- what tells nested paging from shadow page tables, from KVM's counters -------------------------------------------------------------
#
# The counts of the probe of /dev/kvm (runner/vmlab/host/kvm), and those around loops in a whole guest (guest/loops.py). Each function
# judges one world by itself; runner/vmlab/probes/kvm.py says why the two worlds differ in this way, and has the numbers.

# What other work of the host's adds to a count, for one operation: its timer's ticks, mostly. What is expected are whole numbers.
STRAY = kvm.TOLERANCE
# Emulated instructions in one iteration of the probe's computing loop, whose iterations have two: a processor needs none.
EMULATED = kvm.EMULATED_AT_LEAST

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


def runs_on_the_processor(probe: Record) -> Verdict:
    """Whether the guest's instructions were run by the processor."""
    emulated = each(probe, "compute", "insn_emulation")
    expected, measured = f"fewer than {EMULATED} emulated instructions an iteration", f"{emulated:.4f} an iteration"
    if emulated < EMULATED:
        return passed("KVM's emulator had nothing to do.", expected=expected, measured=measured)
    return failed("KVM decoded the guest's instructions by software.", expected=expected, measured=measured)


def claims(probe: Record, wanted: str) -> Verdict:
    """Whether the kernel's module says what it was loaded with. A claim only, for the counts to confirm or to contradict."""
    said = probe.record("claim").text("nested_paging")
    expected, measured = f"one of ept={wanted}, npt={wanted}", said or "nothing"
    if said in (f"ept={wanted}", f"npt={wanted}"):
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
    if max(exits.values()) < STRAY and handed_back < STRAY:
        return passed("The guest's page tables are its own affair.", expected=expected, measured=measured)
    return failed("KVM had to step in.", expected=expected, measured=measured, hint="that is what shadow page tables need")


def steps_in(probe: Record) -> Verdict:
    """Shadow page tables: the host sees each change, because its merged copy is what the processor walks."""
    exits, handed_back, measured = exits_of(probe)
    needed = ", ".join(f"{what} {LINUX_EXITS[name]}" for name, what in OWN_TABLES.items())
    expected = f"1 or more each (Linux 6.1 and 6.12 need: {needed}), 1 fault handed back"
    if min(exits.values()) > 1 - STRAY and abs(handed_back - 1) < STRAY:
        return passed("KVM stepped in each time.", expected=expected, measured=measured)
    return failed("KVM did not step in, so that its tables are no copy of the guest's.", expected=expected, measured=measured)


def faults_are(probe: Record, wanted: Mapping[str, int], why: str) -> Verdict:
    """Whether as many faults as expected follow when the host swaps its pages behind the guest's."""
    faults = {name: each(probe, name, "pf_taken") for name in SWAPS}
    measured = ", ".join(f"{what} {faults[name]:.2f}" for name, what in SWAPS.items())
    expected = ", ".join(f"{what} {wanted[name]}" for name, what in SWAPS.items())
    if all(abs(faults[name] - wanted[name]) < STRAY for name in SWAPS):
        return passed(why, expected=expected, measured=measured)
    return failed("The faults are not those of such a walk.", expected=expected, measured=measured)


def reads_the_guests_tables(probe: Record) -> Verdict:
    """Nested paging: the processor looks up each of the guest's tables in the host's set."""
    why = f"The processor itself went through the guest's tables: {WALK - 1} of them and the page make {WALK}."
    return faults_are(probe, NESTED_FAULTS, why)


def never_reads_them(probe: Record) -> Verdict:
    """Shadow page tables: the processor walks the merged copy."""
    return faults_are(probe, SHADOW_FAULTS, "The processor walked KVM's copy and never read the guest's tables: only the page counts.")


def traced(seen: Record, last: int) -> list[tuple[int, int]]:
    """The last of the faults that the kernel traced while the probe ran, each as (address, error code)."""
    faults = seen.records("last", at_least=last)[-last:]
    if "probe_error" not in seen or any("address" not in fault for fault in faults):
        raise EvidenceProblem(f"{seen.place} is no trace of the probe's faults")
    return [(fault.address("address"), fault.address("error_code")) for fault in faults]


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
    walks = [faults[at : at + WALK] for at in range(0, len(faults), WALK)]
    expected = f"{reads} times: {WALK - 1} faults at tables of the guest's, each at an address of its own, then 1 at the page"
    right = [
        walk
        for walk in walks
        if [code & (TABLE | FINAL) for _, code in walk] == [TABLE] * (WALK - 1) + [FINAL] and len({address for address, _ in walk}) == WALK
    ]
    measured = f"{len(right)} times; the last: {in_words(walks[-1])}"
    if len(right) == reads:
        return passed("Level by level, the processor named what it could not reach.", expected=expected, measured=measured)
    return failed("The faults are not those of such a walk.", expected=expected, measured=measured)


def no_fault_is_named(world: Record) -> Verdict:
    """Shadow page tables: the processor knows of one set of tables only, and its faults are at the guest's virtual address."""
    reads = reads_of(world) * SHADOW_FAULTS["swap_walk"]
    faults = traced(world.record("faults"), reads)
    named = [fault for fault in faults if fault[1] & (TABLE | FINAL)]
    expected = f"{reads} faults, none with such a bit, all at the one virtual address that the guest reads"
    measured = f"{len(named)} with such a bit, at {len({address for address, _ in faults})} addresses; the last: {in_words(faults[-1:])}"
    if not named and len({address for address, _ in faults}) == 1:
        return passed("Nothing in them tells of a second set of tables.", expected=expected, measured=measured)
    return failed("The faults tell of a second set of tables.", expected=expected, measured=measured)


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
        remapped = "/".join(str(self.remap.total(name)) for name in ("pf_taken", "pf_fixed", "pf_guest"))
        self.measured = (
            f"{pages * rounds} pages mapped anew: {remapped} faults taken/fixed/handed back; {pages} touched first: "
            f"{self.touch.total('pf_guest')} handed back; {2 * switches} switches: {self.switch.total('tlb_flush')} flushes; "
            f"a second of rest: {self.idle.total('pf_taken')} faults"
        )


def counters_show_nested(counted: Record, parameters: Record) -> Verdict:
    """Nested paging in a whole guest: its mappings, its page faults and its switches are not seen by the host."""
    loops = counted.record("loops")
    guest = WholeGuest(loops, parameters)
    expected = f"below {STRAY} for each operation"
    seen = [guest.remap.each(name) for name in ("pf_taken", "pf_fixed", "pf_guest")]
    seen += [guest.touch.each("pf_guest"), guest.switch.each("tlb_flush")]
    if max(seen) < STRAY:
        return passed("A whole guest changed its page tables, and KVM was not asked.", expected=expected, measured=guest.measured)
    return failed("KVM had to follow the guest's page tables.", expected=expected, measured=guest.measured)


def counters_show_shadow(counted: Record, parameters: Record) -> Verdict:
    """Shadow page tables in a whole guest: a fault for each page that is mapped or touched, a flush for each switch."""
    loops = counted.record("loops")
    guest = WholeGuest(loops, parameters)
    if guest.idle.total("pf_taken") > STRAY * guest.remap.total("pf_taken"):
        return inconclusive("So many faults were taken at rest that the loops' own cannot be told.", measured=guest.measured)
    expected = "1 or more for each page and for each switch"
    seen = [guest.remap.each("pf_taken"), guest.remap.each("pf_fixed"), guest.touch.each("pf_guest"), guest.switch.each("tlb_flush")]
    if min(seen) > 1 - STRAY:
        return passed("KVM followed every change of the guest's page tables.", expected=expected, measured=guest.measured)
    return failed("KVM was not asked, so that its tables are no copy of the guest's.", expected=expected, measured=guest.measured)


# --- a host that is emulated: nested paging, and shadow page tables as its control ------------------------------------------------------

NESTED, SHADOW = "emulated_nested", "emulated_shadow"

# Who emulates the host, and what the processor that it emulates says of itself.
EMULATORS = {"QEMU TCG": {"svm", "hypervisor"}, "Bochs": {"vmx"}}

Judge = Callable[[Record], Verdict]


def emulated(evidence: Evidence, name: str, judge: Judge) -> Verdict:
    """The verdict on one world of the emulated host: not observable where it was not run, and labelled as emulated where it was."""
    seen = evidence[name]
    if "not_run" in seen:
        return not_observable(f"It was not run: {seen.text('not_run')}.", hint="HOST=npt runs it")
    emulator, flags = seen.text("emulator"), seen.record("module").texts("cpu_flags", at_least=1)
    expected = next((flags for name, flags in EMULATORS.items() if emulator.startswith(name)), None)
    if expected is None or not expected <= set(flags):
        raise EvidenceProblem(f"{seen.place}: {emulator[:40]} with {', '.join(flags)} is none of the emulated processors")
    verdict = judge(seen)
    said = f"{verdict.rationale} (Hardware walk emulated by {emulator}.)"
    return Verdict(verdict.kind, said, verdict.expected, verdict.measured, verdict.hint)


def measured_there(part: str, judge: Judge) -> Judge:
    """The judge of a world by one part of what was measured there, which it may lack."""

    def judged(seen: Record) -> Verdict:
        record = seen.record(part)
        if "not_run" in record:
            return not_observable(f"It was not measured: {record.text('not_run')}.", hint="HOST=npt measures it")
        return judge(seen)

    return judged


@check(points=1, claim="M13")
def nested_claims(evidence: Evidence) -> Verdict:
    """Emulated host: its kernel's module says that nested paging is on. A claim only; the checks below test it."""
    return emulated(evidence, NESTED, lambda seen: claims(seen.record("probe"), "Y"))


@check(points=1, claim="M13")
def nested_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """Emulated host: KVM's guest is run by the (emulated) processor; KVM itself decodes none of its instructions."""
    return emulated(evidence, NESTED, lambda seen: runs_on_the_processor(seen.record("probe")))


@check(points=2, claim="M13", after="nested_runs_on_the_processor")
def nested_leaves_the_guest_alone(evidence: Evidence) -> Verdict:
    """Nested paging: a guest that maps another page, loads CR3 or takes a page fault never leaves for the host."""
    return emulated(evidence, NESTED, lambda seen: leaves_the_guest_alone(seen.record("probe")))


@check(points=2, claim="M13", after="nested_runs_on_the_processor")
def nested_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """Nested paging: the processor walks the guest's tables through the host's. Each table page that the host swaps costs one fault.

    Four tables and the page make five: the number of walks of the second set that one walk of the guest's needs.
    """
    return emulated(evidence, NESTED, lambda seen: reads_the_guests_tables(seen.record("probe")))


@check(points=2, claim="M13", after="nested_reads_the_guests_tables")
def nested_names_each_fault(evidence: Evidence) -> Verdict:
    """Nested paging: of the five faults of a walk the processor says itself that four were at tables of the guest's and one at the page.

    Seen by root in the kernel's trace: bits 33 and 32 of the error code, which an AMD processor sets.
    """
    return emulated(evidence, NESTED, measured_there("faults", each_fault_is_named))


@check(points=2, claim="M13")
def nested_shows_in_a_whole_guest(evidence: Evidence) -> Verdict:
    """Nested paging: a whole guest maps thousands of pages anew, takes faults and switches, and KVM's counters stand still."""
    return emulated(
        evidence,
        NESTED,
        measured_there("nested", lambda seen: counters_show_nested(seen.record("nested"), evidence.parameters)),
    )


@check(points=1, claim="M13")
def shadow_is_the_same_host(evidence: Evidence) -> Verdict:
    """Control: the same host, not even started anew, whose module was loaded without nested paging."""

    def judge(seen: Record) -> Verdict:
        verdict = claims(seen.record("probe"), "N")
        ids = [each.record("module").text("boot_id") for each in (evidence[NESTED], seen)]
        if len(set(ids)) != 1:
            return inconclusive("The two worlds are not one host with two settings.", measured=f"boot ids {ids[0]} and {ids[1]}")
        return verdict

    return emulated(evidence, SHADOW, judge)


@check(points=1, claim="M13")
def shadow_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, too, the guest is run by the processor. So what differs below is paging alone."""
    return emulated(evidence, SHADOW, lambda seen: runs_on_the_processor(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_runs_on_the_processor")
def shadow_steps_in(evidence: Evidence) -> Verdict:
    """Control: shadow page tables show what nested paging does not. KVM steps in when the guest maps a page, loads CR3, takes a fault."""
    return emulated(evidence, SHADOW, lambda seen: steps_in(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_runs_on_the_processor")
def shadow_never_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables the processor never reads the guest's. Four swapped tables cost nothing, the page one fault."""
    return emulated(evidence, SHADOW, lambda seen: never_reads_them(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_never_reads_the_guests_tables")
def shadow_names_none(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables the faults name no table, and they are at the guest's virtual address instead of a physical one."""
    return emulated(evidence, SHADOW, measured_there("faults", no_fault_is_named))


@check(points=1, claim="M13")
def shadow_shows_in_a_whole_guest(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables KVM follows a whole guest, page by page and switch by switch."""
    return emulated(
        evidence,
        SHADOW,
        measured_there("nested", lambda seen: counters_show_shadow(seen.record("nested"), evidence.parameters)),
    )


# --- this machine, and the lab's own guest ------------------------------------------------------------------------------------------------


def own(evidence: Evidence, name: str, judge: Judge) -> Verdict:
    """The verdict on what was recorded of this machine: not observable where KVM does not run the lab's guests."""
    seen = evidence[name]
    if "not_run" in seen:
        return not_observable(f"Not to be seen here: {seen.text('not_run')}.")
    return judge(seen)


@check(points=1, claim="M13")
def own_kvm_claims(evidence: Evidence) -> Verdict:
    """This machine: its kernel's module says that nested paging is on. A claim only; the checks below test it."""
    return own(evidence, "own_probe", lambda seen: claims(seen, "Y"))


@check(points=1, claim="M13")
def own_kvm_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """This machine: KVM's guest is run by the processor; KVM itself decodes none of its instructions."""
    return own(evidence, "own_probe", runs_on_the_processor)


@check(points=2, claim="M13", after="own_kvm_runs_on_the_processor")
def own_kvm_leaves_the_guest_alone(evidence: Evidence) -> Verdict:
    """This machine: a guest that maps another page, loads CR3 or takes a page fault never leaves for the host."""
    return own(evidence, "own_probe", leaves_the_guest_alone)


@check(points=2, claim="M13", after="own_kvm_runs_on_the_processor")
def own_kvm_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """This machine: the processor walks the guest's tables through the host's. Four swapped tables and the page cost five faults."""
    return own(evidence, "own_probe", reads_the_guests_tables)


@check(points=2, claim="M13")
def own_guest_shows_nested_paging(evidence: Evidence) -> Verdict:
    """This machine: the lab's own guest maps thousands of pages anew, takes faults and switches, and KVM's counters stand still."""
    return own(evidence, "own_counters", lambda seen: counters_show_nested(seen, evidence.parameters))


@check(points=2, claim="M13", after=["the_tables_lead_to_the_frame", "the_guests_memory_is_qemus"])
def own_memory_is_behind_nested_paging(evidence: Evidence) -> Verdict:
    """The memory of the lab's own guest is behind nested page tables: everything above holds together, and nothing contradicts it.

    The chain of addresses alone proves nothing of this kind: it is the same where software walks the tables.
    """
    accelerator = evidence.run.accelerator
    if accelerator != "kvm":
        return not_observable(
            f"Its processor is emulated ({accelerator.upper()}): a software MMU. The second dimension is not demonstrated on this machine.",
            hint="what the hardware would do is shown by the emulated host",
        )
    probe, counters = evidence["own_probe"], evidence["own_counters"]
    counted = {
        "no emulation": runs_on_the_processor(probe),
        "no exits": leaves_the_guest_alone(probe),
        "table faults": reads_the_guests_tables(probe),
        "the lab's guest": counters_show_nested(counters, evidence.parameters),
    }
    against = [name for name, verdict in counted.items() if verdict.kind is not VerdictKind.PASS]
    said = probe.record("claim").text("nested_paging") or "nothing"
    measured = f"module: {said}; " + ", ".join(f"{name}: {verdict.kind}" for name, verdict in counted.items())
    expected = "ept=Y or npt=1, and every count that of nested paging"
    if not against and claims(probe, "N").kind is not VerdictKind.PASS:
        return passed("The processor walks a second set of page tables for this guest.", expected=expected, measured=measured)
    if not against:
        return failed("The counts are those of nested paging, and the module says that it is off.", expected=expected, measured=measured)
    return failed(f"Not what nested paging shows: {', '.join(against)}.", expected=expected, measured=measured)
