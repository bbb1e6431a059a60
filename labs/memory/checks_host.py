"""What the evidence shows of one byte's way on the host: as memory of QEMU's process, in a frame of the machine, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vmlab.lab import (
    Evidence,
    EvidenceProblem,
    Record,
    Verdict,
    attempts_of,
    check,
    failed,
    inconclusive,
    not_observable,
    passed,
)

from .walk import CHAINS, PAGE, address_or_none, guest_physical, holds, marker_of, name_of, refusal, shown

ANSWER_CHARACTERS = 16

# --- guest-physical to host-virtual -------------------------------------------------------------------------------------------------


@check(points=2, claim="M10", after="the_byte_lies_at_its_address")
def the_guests_memory_is_qemus(evidence: Evidence) -> Verdict:
    """What the guest takes for physical memory is virtual memory of QEMU's process: the marker is read there as well.

    QEMU's monitor says where in its own process it keeps the guest-physical address. The host's kernel then reads that process's memory
    (process_vm_readv), and says that the address lies in one mapping that is large enough for all of the guest's memory.
    """
    words = []
    for name in CHAINS:
        chain = evidence[name]
        marker, virtual = marker_of(chain), chain.address("host_virtual")
        host = chain.record("host")
        why = refusal(host, "holds") or refusal(host, "next_page_holds")
        if why:
            return not_observable(f"This host's kernel does not let QEMU's memory be read: {why}.")
        mapping = host.record("mapping")
        start, end, memory = mapping.address("start"), mapping.address("end"), chain.integer("memory_bytes", minimum=1)
        expected = f"the marker at its address, other bytes a page further, in a mapping of at least {memory >> 20} MiB"
        if not (start <= virtual < end and end - start >= memory):
            measured = f"{virtual:#x}, and a mapping from {start:#x} to {end:#x}"
            hint = f"compare {name}.host.mapping with {name}.host_virtual and {name}.memory_bytes in the evidence"
            return failed("The address does not lie in such a mapping.", expected=expected, measured=measured, hint=hint)
        here, beside = holds(host, "holds", marker), holds(host, "next_page_holds", marker)
        at, further = ("the marker" if found else "other bytes" for found in (here, beside))
        words.append(f"{name_of(chain)}: {guest_physical(chain):#x} is {virtual:#x} in QEMU, {at} there, {further} a page further")
        if not here or beside:
            hint = f"compare {name}.marker with {name}.host.holds and {name}.host.next_page_holds: is it the right QEMU, the right address?"
            return failed("The marker is not where QEMU keeps that address.", expected=expected, measured=words[-1], hint=hint)
    return passed("The host's kernel read it there, not QEMU.", expected=expected, measured="; ".join(words))


@check(points=1, claim="M10", after="the_guests_memory_is_qemus")
def a_store_by_the_host_reaches_the_guest(evidence: Evidence) -> Verdict:
    """What the host stores into QEMU's memory, the guest's process then reads in its own.

    The process makes no system call meanwhile: it looks at its own memory again and again until the bytes there change.
    """
    words = []
    expected = "the process reads what was sent"
    for name in CHAINS:
        answer = evidence[name].record("answer")
        if "refused" in answer:
            return not_observable(f"This host's kernel does not let QEMU's memory be written: {answer.text('refused')}.")
        sent, seen = answer.text("sent"), answer.record("answered").text("answer")
        words.append(f"{name_of(evidence[name])}: sent {sent}, read {seen}")
        if len(sent) < ANSWER_CHARACTERS:
            raise EvidenceProblem(f"{answer.place}.sent: expected at least {ANSWER_CHARACTERS} characters, found {len(sent)}")
        if sent != seen:
            hint = f"compare {name}.answer.sent with {name}.answer.answered.answer: did anything else store there?"
            return failed("The guest's process saw something else.", expected=expected, measured=words[-1], hint=hint)
    return passed("The process watched its own memory and saw the host's bytes appear.", expected=expected, measured="; ".join(words))


# --- memory grows as it is touched ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step of touching: how many pages, how many of them had no frame of QEMU's before, and what there was after it."""

    count: int
    unbacked: int
    grown: int
    """By how many pages QEMU's own memory grew since the last look."""
    have: tuple[int, int, int]
    """How many of the pages were in the guest's memory after it, in how many frames, and how many of these were QEMU's own."""

    @property
    def fault(self) -> str:
        """Why it contradicts the claim; empty when it does not."""
        if set(self.have) != {self.count}:
            return "After a step not every page that was touched had a frame of its own."
        return "In a step fewer frames came than were needed." if self.grown < self.unbacked else ""

    def __str__(self) -> str:
        present, frames, own = self.have
        what = f"{self.count} pages touched, {self.unbacked} without a frame before, {present} present after"
        return f"{what} in {frames} frames, {own} of them QEMU's; QEMU's own memory +{self.grown} pages"


def step_between(before: Record, after: Record) -> Step:
    """What happened between two looks. EvidenceProblem when nothing was touched."""
    count = after.integer("touched") - before.integer("touched")
    if count <= 0:
        raise EvidenceProblem(f"{after.place}.touched: expected more than before")
    have = after.integer("present"), after.integer("frames"), after.integer("backed_after")
    return Step(count, after.integer("unbacked", minimum=0), growth(before, after), have)


def growth(before: Record, after: Record) -> int:
    """By how many pages QEMU's own part of the guest's memory grew."""
    return (after.integer("own_bytes", minimum=1) - before.integer("own_bytes", minimum=1)) // PAGE


def allowed(unbacked: int) -> int:
    """A quarter more: what the guest's other processes, its kernel's buffers and the marker's own stack may need meanwhile."""
    return unbacked + unbacked // 4 + 64


@check(points=2, claim="M10", after="the_guests_memory_is_qemus")
def memory_grows_as_it_is_touched(evidence: Evidence) -> Verdict:
    """QEMU's own memory grows step by step, by a frame for each page that the guest touches for the first time, and not the second time.

    The host notes before each step which of the guest's pages have a frame of QEMU's own. Others in the guest touch pages meanwhile, so
    that somewhat more is allowed; fewer is not. Where others touched much it was looked at again, and the quietest attempt counts. Where
    the host swaps QEMU's pages out, frames go as others come, and nothing is decided.
    """
    seen = evidence["growth"]
    if "refused" in seen:
        return not_observable(f"It could not be looked at: {seen.text('refused')}.")
    samples, again, pages = seen.records("samples"), seen.record("again"), asked_for(evidence)
    if any(sample.integer("huge_bytes", minimum=0) for sample in (*samples, again)):
        return inconclusive("The host backs this guest with huge pages, so that it grows in steps of 2 MiB.")
    steps = [step_between(before, after) for before, after in pairwise(samples)]
    late, more = again.integer("unbacked", minimum=0), growth(samples[-1], again)
    unbacked, grown = sum(step.unbacked for step in steps), growth(samples[0], samples[-1])
    expected = f"+{unbacked} to +{allowed(unbacked)} pages, at least as many in each step as had no frame, then about 0"
    measured = (
        f"{pages} pages touched, {unbacked} without a frame before; QEMU's own memory +{grown} pages, and {more:+d} when touched again"
    )
    wrong = next((step for step in steps if step.fault), None)
    if wrong is not None or late:
        gone = max(sample.integer("swapped", minimum=0) for sample in (*samples[1:], again))
        measured = f"{measured}; {f'a step: {wrong}' if wrong is not None else f'{late} had no frame by then'}"
        why = wrong.fault if wrong is not None else "Pages that had been touched had no frame when they were touched again."
        return gone_by_itself(gone, expected, measured) if gone else never_came(why, expected, measured)
    if unbacked < pages // 2:
        why, hint = "Most of the pages had a frame before they were touched.", "in a guest that has just booted fewer have: --cold"
    elif grown > allowed(unbacked) or abs(more) > pages // 10:
        why = f"Others in the guest touched too much meanwhile, in the quietest of {len(attempts_of(seen))} attempts too."
        hint = "run it again"
    else:
        return passed("A frame for each page, at its first touch.", expected=expected, measured=measured)
    return inconclusive(why, expected=expected, measured=measured, hint=hint)


def gone_by_itself(pages: int, expected: str, measured: str) -> Verdict:
    """Frames went as others came, which is the host's affair."""
    why, hint = f"The host swapped {pages} of QEMU's pages out meanwhile.", "run it again when the machine has memory to spare (free -m)"
    return inconclusive(why, expected=expected, measured=measured, hint=hint)


def never_came(why: str, expected: str, measured: str) -> Verdict:
    """Frames that should have come did not."""
    hint = "look at growth.samples one by one: does the guest's process store into its pages, or only read them?"
    return failed(why, expected=expected, measured=measured, hint=hint)


def asked_for(evidence: Evidence) -> int:
    """How many pages were touched. EvidenceProblem when it is not what the run was asked for, from no page on, in so many steps."""
    seen, asked = evidence["growth"], evidence.parameters
    samples = seen.records("samples")
    pages, steps = asked.integer("pages"), asked.integer("steps")
    found = [seen.integer("pages"), seen.record("mapped").integer("pages"), samples[-1].integer("touched"), len(samples) - 1]
    if found != [pages, pages, pages, steps]:
        raise EvidenceProblem(f"{seen.place}: expected {pages} pages, touched in {steps} steps")
    if seen.record("mapped").integer("present") != 0 or samples[0].integer("touched") != 0:
        raise EvidenceProblem(f"{seen.place}: expected pages that nobody had touched before")
    return pages


# --- host-virtual to host-physical --------------------------------------------------------------------------------------------------


@check(points=1, claim="M11", after="the_guests_memory_is_qemus")
def the_hosts_tables_name_a_frame(evidence: Evidence) -> Verdict:
    """The host's page tables map QEMU's memory to frames of the machine's RAM: the kernel names a frame for each marker, each time another.

    The host's kernel (/proc/PID/pagemap of QEMU) and QEMU's monitor must name one address, and /proc/iomem must say that RAM is there.
    The kernel shows frames to root alone; to others it shows 0, which is no frame.
    """
    ram = [(each.address("start"), each.address("end")) for each in evidence["machine"].records("ram", at_least=0)]
    hidden = next(filter(None, (why_hidden(evidence[name].record("host")) for name in CHAINS)), "")
    if hidden:
        return not_observable(f"This host's kernel hides it: {hidden}.", hint="run the lab as root to see it")
    found = {}
    for name in CHAINS:
        host = evidence[name].record("host")
        page = host.record("page")
        physical, monitor = host.address("host_physical"), address_or_none(host, "monitor_host_physical")
        if not page.flag("present") or physical != page.address("frame") * PAGE + evidence[name].address("host_virtual") % PAGE:
            raise EvidenceProblem(f"{host.place}: host_physical does not follow from the page's frame")
        expected = "a frame in the machine's RAM, one address by the kernel and by QEMU's monitor"
        measured = f"{name_of(evidence[name])}: {physical:#x} by the kernel, {shown(monitor)} by QEMU"
        if monitor != physical:
            hint = f"compare {name}.host.host_physical with {name}.host.monitor_host_physical: was one of them asked for another page?"
            return failed("The kernel and QEMU name two addresses.", expected=expected, measured=measured, hint=hint)
        if ram and not any(start <= physical <= end for start, end in ram):
            hint = "look for the address among the lines System RAM of the host's /proc/iomem (machine.ram)"
            return failed("The frame does not lie in the host's RAM.", expected=expected, measured=measured, hint=hint)
        found[name] = physical
    measured = ", ".join(f"{name_of(evidence[name])} {place:#x}" for name, place in found.items())
    if not ram:
        return inconclusive("The host's kernel does not tell where its RAM is.", measured=measured)
    if len({place // PAGE for place in found.values()}) != len(found):
        hint = "which two of the three addresses differ in their last three digits alone?"
        return failed("Two markers share a frame.", expected="three frames in RAM", measured=measured, hint=hint)
    return passed("Three markers, three frames of the host's RAM.", expected="three frames in RAM", measured=measured)


def why_hidden(host: Record) -> str:
    """Why the host's kernel names no frame; empty when it does."""
    return refusal(host, "page") or ("frames are shown to root alone" if host.record("page").is_null("frame") else "")


# What the kernel says of an address that a process does not have (EFAULT of process_vm_readv(2)). Any other refusal is no look at all.
NOT_MAPPED = "Bad address"


@check(points=1, claim="M12", after=["the_byte_lies_at_its_address", "the_guests_memory_is_qemus"])
def nobody_else_has_it(evidence: Evidence) -> Verdict:
    """Control: at the same guest-physical address the other guest has other bytes, and so has its QEMU at the same host-virtual one.

    Addresses mean something only together with whose they are. If the marker were found in the other guest as well, finding it would
    prove nothing.
    """
    words = []
    expected = "other bytes, or an address that is not in use there"
    for name in CHAINS:
        chain = evidence[name]
        marker, stranger = marker_of(chain), chain.record("stranger")
        if stranger.text("guest") == chain.text("guest"):
            raise EvidenceProblem(f"{stranger.place}.guest is the guest itself")
        there, refused = holds(stranger, "physical_holds", marker), refusal(stranger, "holds")
        elsewhere = not refused and holds(stranger, "holds", marker)
        at = "the marker" if there else "other bytes"
        in_qemu = refused or ("the marker" if elsewhere else "other bytes")
        words.append(f"{name_of(chain)}: in {stranger.text('guest')} at {guest_physical(chain):#x} {at}, in its QEMU {in_qemu}")
        if there or elsewhere:
            hint = f"compare {name}.marker with {name}.stranger.physical_holds and {name}.stranger.holds: who copied it there?"
            return failed("The other guest has the marker, too.", expected=expected, measured=words[-1], hint=hint)
        if refused and NOT_MAPPED not in refused:
            return inconclusive("The other QEMU's memory could not be looked at.", expected=expected, measured=words[-1])
        if stranger.address("host_virtual_of_physical") == chain.address("host_virtual"):
            return inconclusive("Both QEMU processes keep their guests' memory at one address, so that the control controls nothing.")
    return passed("The same addresses mean other bytes there.", expected=expected, measured="; ".join(words))


@check(
    points=2,
    claim="M12",
    after=["the_tables_lead_to_the_frame", "the_guests_memory_is_qemus", "nobody_else_has_it", "the_hosts_tables_name_a_frame"],
)
def one_byte_has_four_names(evidence: Evidence) -> Verdict:
    """One byte has four names: guest-virtual, guest-physical, host-virtual, host-physical, and the offset in its page is the same in all.

    Under its first name the guest's process stored the marker; under the second and the third the host read it back. Under the fourth it
    can be read where the kernel offers the machine's memory (/proc/kcore). Where it does not, that name is what two readings of the
    host's page tables say, and nothing was read under it.
    """
    words = []
    unread = ""
    expected = "one offset in the page, and the marker wherever it can be read"
    for name in CHAINS:
        chain = evidence[name]
        host, marker = chain.record("host"), marker_of(chain)
        names = (
            chain.record("ready").address("virtual"),
            guest_physical(chain),
            chain.address("host_virtual"),
            host.address("host_physical"),
        )
        refused = refusal(host, "frame_holds")
        unread = unread or refused
        read = [holds(chain, "physical_holds", marker), holds(host, "holds", marker)]
        if not refused:
            read.append(holds(host, "frame_holds", marker))
        words.append(f"{name_of(chain)}: {' → '.join(hex(each) for each in names)}")
        if len({each % PAGE for each in names}) != 1:
            hint = f"compare the last three digits of the four addresses of {name}: which hop led to another byte?"
            return failed("The offset in the page is not the same under all four.", expected=expected, measured=words[-1], hint=hint)
        if not all(read):
            hint = f"compare {name}.marker with what was read: {name}.physical_holds, {name}.host.holds, {name}.host.frame_holds"
            return failed("Under one of its names something else was read.", expected=expected, measured=words[-1], hint=hint)
    measured = "; ".join(words)
    if unread:
        why = f"The marker was stored under the first name and read under the next two. The fourth was named, not read: {unread}."
        return passed(why, expected=expected, measured=measured)
    return passed("The marker was stored under the first name and read under the other three.", expected=expected, measured=measured)
