"""Who walks the second set of page tables: the processor, or a copy that KVM keeps. Each check judges KVM's counters in one world."""

from __future__ import annotations

from collections.abc import Callable

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, VerdictKind, check, failed, inconclusive, not_observable, passed

from .kvm_counts import (
    claims,
    counters_show_nested,
    counters_show_shadow,
    each_fault_is_named,
    leaves_the_guest_alone,
    never_reads_them,
    no_fault_is_named,
    reads_the_guests_tables,
    runs_on_the_processor,
    steps_in,
    uncounted,
    uncounted_in_a_guest,
)

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
    """On the emulated host, KVM's module says that nested paging is on.

    That is a claim and no proof: a module can say what it likes. The checks below measure whether it is so.
    """
    return emulated(evidence, NESTED, lambda seen: claims(seen.record("probe"), "Y"))


@check(points=1, claim="M13")
def nested_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """On the emulated host, the instructions of KVM's guest are run by the (emulated) processor, and KVM decodes none of them by software.

    A guest of three instructions counts in a register a million times, while the kernel counts how many instructions KVM had to decode
    (insn_emulation). A KVM that interprets its guest could show anything in the checks below.
    """
    return emulated(evidence, NESTED, lambda seen: runs_on_the_processor(seen.record("probe")))


@check(points=2, claim="M13", after="nested_runs_on_the_processor")
def nested_leaves_the_guest_alone(evidence: Evidence) -> Verdict:
    """With nested paging, a guest that maps another page, loads CR3 or takes a page fault does not leave for the host.

    Each is done two thousand times, and the kernel counts how often the processor left the guest (exits). Interrupts of the host's are
    taken off. Nested paging leaves the guest's page tables to the guest, so there is no reason to leave.
    """
    return emulated(evidence, NESTED, lambda seen: leaves_the_guest_alone(seen.record("probe")))


@check(points=2, claim="M13", after="nested_runs_on_the_processor")
def nested_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """With nested paging, the processor itself reads the guest's page tables, through a second set: each swapped table page costs a fault.

    The host puts other memory behind some of the guest's pages, and the guest reads one word, 32 times. Whoever reads a page that was
    swapped takes a fault of the second set first. Four tables and the page make five: so often one walk of the guest's needs the second
    set.
    """
    return emulated(evidence, NESTED, lambda seen: reads_the_guests_tables(seen.record("probe")))


@check(points=2, claim="M13", after="nested_reads_the_guests_tables")
def nested_names_each_fault(evidence: Evidence) -> Verdict:
    """With nested paging, the processor says of each of a walk's five faults what it read: four times a table, then the page.

    Root can see it in the kernel's trace (kvm:kvm_page_fault): bit 33 of the error code is set for a table, bit 32 for the page. The
    addresses are guest-physical, and the same five in each of the 32 walks.
    """
    return emulated(evidence, NESTED, measured_there("faults", each_fault_is_named))


@check(points=2, claim="M13")
def nested_shows_in_a_whole_guest(evidence: Evidence) -> Verdict:
    """With nested paging, a whole guest maps thousands of pages, takes page faults and switches processes, and KVM is not asked.

    Debian's own kernel runs in it. KVM's counters are read before and after each of its loops, and once around a second of rest.
    """
    return emulated(
        evidence,
        NESTED,
        measured_there("nested", lambda seen: counters_show_nested(seen.record("nested"), evidence.parameters)),
    )


@check(points=1, claim="M13")
def shadow_is_the_same_host(evidence: Evidence) -> Verdict:
    """Control: the same host, not even started anew, with its module loaded without nested paging.

    The number that Linux draws at each boot (boot_id) is the same in both worlds. So the two differ in the module's setting alone.
    """

    def judge(seen: Record) -> Verdict:
        verdict = claims(seen.record("probe"), "N")
        ids = [each.record("module").text("boot_id") for each in (evidence[NESTED], seen)]
        if len(set(ids)) != 1:
            return inconclusive("The two worlds are not one host with two settings.", measured=f"boot ids {ids[0]} and {ids[1]}")
        return verdict

    return emulated(evidence, SHADOW, judge)


@check(points=1, claim="M13")
def shadow_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, too, the guest's instructions are run by the processor.

    It is counted as with nested paging. So what differs in the checks below is how addresses are translated, and nothing else.
    """
    return emulated(evidence, SHADOW, lambda seen: runs_on_the_processor(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_runs_on_the_processor")
def shadow_steps_in(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, KVM steps in each time that the guest maps another page, loads CR3 or takes a page fault.

    The processor walks a merged copy of the guest's tables and the host's, and KVM has to follow each change of what that copy was made
    from. So the counters that stand still with nested paging do count.
    """
    return emulated(evidence, SHADOW, lambda seen: steps_in(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_runs_on_the_processor")
def shadow_never_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, the processor never reads the guest's: four swapped tables cost nothing, the page one fault.

    Done as with nested paging. The processor walks KVM's merged copy, in which the host's new memory behind a table does not occur.
    """
    return emulated(evidence, SHADOW, lambda seen: never_reads_them(seen.record("probe")))


@check(points=1, claim="M13", after="shadow_never_reads_the_guests_tables")
def shadow_names_none(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, no fault is one at a table of the guest's, and all are at the guest's virtual address.

    Traced as with nested paging. The processor knows of one set of tables, so it cannot say of which set a fault was.
    """
    return emulated(evidence, SHADOW, measured_there("faults", no_fault_is_named))


@check(points=1, claim="M13")
def shadow_shows_in_a_whole_guest(evidence: Evidence) -> Verdict:
    """Control: with shadow page tables, KVM follows a whole guest page by page and switch by switch.

    The same loops as with nested paging, in the same guest.
    """
    return emulated(
        evidence,
        SHADOW,
        measured_there("nested", lambda seen: counters_show_shadow(seen.record("nested"), evidence.parameters)),
    )


# --- this machine, and the lab's own guest ------------------------------------------------------------------------------------------------


def own(evidence: Evidence, name: str, judge: Judge, counter: str = "") -> Verdict:
    """The verdict on what was recorded of this machine: not observable where KVM does not run the lab's guests, or does not count."""
    seen = evidence[name]
    if "not_run" in seen:
        return not_observable(f"Not to be seen here: {seen.text('not_run')}.")
    too_old = counter and (uncounted_in_a_guest(seen, counter) if "loops" in seen else uncounted(seen, counter))
    if too_old:
        return not_observable(f"Not to be seen on this machine: {too_old}.", hint="a newer kernel shows it, or the emulated host: HOST=npt")
    return judge(seen)


@check(points=1, claim="M13")
def own_kvm_claims(evidence: Evidence) -> Verdict:
    """On this machine, KVM's module says that nested paging is on.

    That is a claim and no proof; the checks below measure whether it is so.
    """
    return own(evidence, "own_probe", lambda seen: claims(seen, "Y"))


@check(points=1, claim="M13")
def own_kvm_runs_on_the_processor(evidence: Evidence) -> Verdict:
    """On this machine, the instructions of KVM's guest are run by the processor, and KVM decodes none of them by software.

    Counted by the probe of /dev/kvm, as on the emulated host.
    """
    return own(evidence, "own_probe", runs_on_the_processor, "exits")


@check(points=2, claim="M13", after="own_kvm_runs_on_the_processor")
def own_kvm_leaves_the_guest_alone(evidence: Evidence) -> Verdict:
    """On this machine, a guest that maps another page, loads CR3 or takes a page fault does not leave for the host.

    Counted by the probe of /dev/kvm, as on the emulated host.
    """
    return own(evidence, "own_probe", leaves_the_guest_alone, "exits")


@check(points=2, claim="M13", after="own_kvm_runs_on_the_processor")
def own_kvm_reads_the_guests_tables(evidence: Evidence) -> Verdict:
    """On this machine, the processor itself reads the guest's page tables: four swapped tables and the page cost five faults.

    Counted by the probe of /dev/kvm, as on the emulated host. The counter came with Linux 5.19.
    """
    return own(evidence, "own_probe", reads_the_guests_tables, "pf_taken")


@check(points=2, claim="M13")
def own_guest_shows_nested_paging(evidence: Evidence) -> Verdict:
    """On this machine, the lab's own guest maps thousands of pages anew, takes page faults and switches, and KVM is not asked.

    QEMU tells KVM's counters (query-stats, from version 7.1 on) before and after each of the loops.
    """
    return own(evidence, "own_counters", lambda seen: counters_show_nested(seen, evidence.parameters), "pf_taken")


@check(points=2, claim="M13", after=["the_tables_lead_to_the_frame", "the_guests_memory_is_qemus"])
def own_memory_is_behind_nested_paging(evidence: Evidence) -> Verdict:
    """The memory of the lab's own guest is behind nested page tables: all that was measured here says so, and nothing contradicts it.

    The chain of addresses alone proves nothing of this kind: it is the same where software walks the tables. So KVM's counts must be
    those of nested paging, for the probe and for the lab's own guest, and the module must not say that it is off.
    """
    accelerator = evidence.run.accelerator
    if accelerator != "kvm":
        return not_observable(
            f"Its processor is emulated ({accelerator.upper()}): a software MMU. The second dimension is not demonstrated on this machine.",
            hint="what the hardware would do is shown by the emulated host",
        )
    judged = {
        "no emulation": own_kvm_runs_on_the_processor(evidence),
        "no exits": own_kvm_leaves_the_guest_alone(evidence),
        "table faults": own_kvm_reads_the_guests_tables(evidence),
        "the lab's guest": own_guest_shows_nested_paging(evidence),
    }
    said = evidence["own_probe"].record("claim").text("nested_paging") or "nothing"
    measured = f"module: {said}; " + ", ".join(f"{name}: {verdict.kind}" for name, verdict in judged.items())
    expected = "ept=Y or npt=1, and every count that of nested paging"
    for kind in (VerdictKind.FAIL, VerdictKind.INCONCLUSIVE, VerdictKind.NOT_OBSERVABLE):
        named = [name for name, verdict in judged.items() if verdict.kind is kind]
        if named:
            why = {"fail": "Not what nested paging shows", "inconclusive": "Not decided"}.get(kind, "Not to be seen on this machine")
            hint = "look at the checks own_... above: which count is it, and what does it say?"
            return Verdict(kind, f"{why}: {', '.join(named)}.", expected, measured, hint)
    if claims(evidence["own_probe"], "N").kind is VerdictKind.PASS:
        why = "The counts are those of nested paging, and the module says that it is off."
        hint = "whose parameter is it that /sys/module shows: is another module loaded beside the one that runs this guest?"
        return failed(why, expected=expected, measured=measured, hint=hint)
    return passed("The processor walks a second set of page tables for this guest.", expected=expected, measured=measured)
