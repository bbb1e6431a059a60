"""What the evidence shows of one byte's way: from the guest's virtual address to the host's memory, and back.

The tables were read by the host out of the guest's physical memory, and are read again here: every index, every address of an entry and
every hop is computed from the virtual address, from CR3 and from the entries themselves. What the guest says is held against that.
"""

from __future__ import annotations

from statistics import median

from vmlab.lab import (
    Evidence,
    EvidenceProblem,
    Interval,
    Record,
    Verdict,
    check,
    failed,
    inconclusive,
    median_interval,
    not_observable,
    passed,
)

PAGE = 4096
CHAINS = ("chain_small", "chain_large", "chain_other")

# Page-table entries and CR3: Intel SDM, volume 3A, chapter 4; AMD APM, volume 2, chapter 5.
PRESENT, LARGE = 1 << 0, 1 << 7
ADDRESS = (1 << 52) - (1 << 12)

# /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst.
IN_MEMORY, FRAME = 1 << 63, (1 << 55) - 1


# --- reading evidence -------------------------------------------------------------------------------------------------------------


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
    """Whether the text that was read somewhere is the marker."""
    return record.text(key) == marker


def marker_of(chain: Record) -> str:
    """The marker of a chain: 64 characters that nobody could know beforehand."""
    marker = chain.text("marker")
    if len(marker) != 64:
        raise EvidenceProblem(f"{chain.place}.marker: expected 64 characters, found {len(marker)}")
    return marker


def guest_physical(chain: Record) -> int:
    """Where the guest's own kernel says that the marker is: its pagemap's frame, and the offset in the page."""
    said = chain.record("ready")
    entry = said.address("pagemap")
    if not entry & IN_MEMORY or not entry & FRAME:
        raise EvidenceProblem(f"{said.place}.pagemap: expected a page in memory with its frame, found {entry:#x}")
    return (entry & FRAME) * PAGE + said.address("virtual") % PAGE


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
        if not self.fault and address_or_none(walk, "physical") != self.physical:
            self.fault = "the address it ended at does not follow from its last entry"

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


# --- one byte under four names: guest-virtual to guest-physical --------------------------------------------------------------------


@check(points=1, claim="M9")
def every_guest_begins_at_zero(evidence: Evidence) -> Verdict:
    """Each guest thinks that its physical memory begins at 0: so say its firmware's map and its kernel's, in two guests at once."""
    said = evidence["addresses"]
    begins: dict[str, str] = {}
    for name in ("main", "other"):
        guest = said.record(name)
        firmware, kernel = guest.records("firmware_map")[0], guest.records("iomem")[0]
        begins[name] = f"firmware {firmware.text('start')} ({firmware.text('type')}), kernel {kernel.text('start')}"
        if firmware.address("start") != 0 or kernel.address("start") != 0 or firmware.text("type") != "System RAM":
            return failed(f"The guest {name} does not begin at 0.", expected="memory from 0 on", measured=begins[name])
    measured = "; ".join(f"{name}: {words}" for name, words in begins.items())
    return passed("Both do, and cannot both be right: the host has one address 0.", expected="memory from 0 on", measured=measured)


@check(points=2, claim="M7")
def the_tables_lead_to_the_frame(evidence: Evidence) -> Verdict:
    """Walking the guest's page tables by hand, from CR3 on, ends at the frame that the guest's kernel names.

    The host stops the guest while the marker's process runs, and reads each table out of guest-physical memory. QEMU's own translation is a
    third opinion.
    """
    words = []
    for name in CHAINS:
        chain = evidence[name]
        walk, said, monitor = walk_of(chain), guest_physical(chain), address_or_none(chain, "monitor_physical")
        words.append(f"{chain.text('guest')}, {chain.text('kind')} page: {len(walk.steps)} entries to {shown(walk.physical)}")
        if walk.fault or walk.physical != said or monitor != said:
            return failed(
                f"In guest {chain.text('guest')} ({chain.text('kind')} page) the three do not agree. {walk.fault}".strip(),
                expected="one address from the walk, the guest's pagemap and QEMU",
                measured=f"walk {shown(walk.physical)}, pagemap {said:#x}, QEMU {shown(monitor)}",
            )
    return passed("Walk, pagemap and QEMU agree each time.", expected="one address from all three", measured="; ".join(words))


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def a_walk_has_four_levels_or_five(evidence: Evidence) -> Verdict:
    """A walk has five levels where the processor has 57-bit addresses (LA57) and the kernel uses them; told not to, it has four."""
    found = {}
    for name, guest in (("chain_small", "main"), ("chain_other", "other")):
        chain = evidence[name]
        if chain.text("guest") != guest:
            raise EvidenceProblem(f"{chain.place}.guest: expected {guest}, found {chain.text('guest')}")
        found[guest] = (chain.integer("levels"), len(walk_of(chain).steps), bool(chain.record("registers").address("cr4") >> 12 & 1))
    measured = "; ".join(f"{guest}: {steps} entries read, CR4.LA57 {int(la57)}" for guest, (_, steps, la57) in found.items())
    if any(levels != steps or levels != (5 if la57 else 4) for levels, steps, la57 in found.values()):
        return failed("The levels are not those that CR4 says.", expected="5 with LA57, 4 without", measured=measured)
    if found["other"][0] != 4:
        return failed("A kernel that was told no5lvl used five levels.", expected="4 levels in the other guest", measured=measured)
    if not evidence["addresses"].record("main").flag("la57"):
        return not_observable(f"This processor has no LA57, so that no walk has five levels here ({measured}).")
    if found["main"][0] != 5:
        return failed("The processor has LA57, and the kernel does not use it.", expected="5 levels in main, 4 in other", measured=measured)
    return passed("Five levels in one guest, four in the other.", expected="5 levels in main, 4 in other", measured=measured)


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def a_large_page_ends_the_walk_earlier(evidence: Evidence) -> Verdict:
    """A page of 2 MiB ends the walk one level earlier: its entry has the bit PS, and the offset takes the 21 lowest bits."""
    chain = evidence["chain_large"]
    walk = walk_of(chain)
    if walk.page_bytes == PAGE:
        return inconclusive("The guest's kernel gave no page of 2 MiB.", hint="is /sys/kernel/mm/transparent_hugepage/enabled never?")
    measured = (
        f"{len(walk.steps)} of {walk.levels} levels, a page of {walk.page_bytes >> 10} KiB, last entry {walk.steps[-1].text('entry')}"
    )
    expected = "one level fewer, 2048 KiB"
    if walk.page_bytes == 2 << 20 and len(walk.steps) == walk.levels - 1:
        return passed("Level 2 maps the page itself.", expected=expected, measured=measured)
    return failed("The walk did not end at level 2.", expected=expected, measured=measured)


@check(points=1, claim="M7", after="the_tables_lead_to_the_frame")
def untouched_memory_has_no_frame(evidence: Evidence) -> Verdict:
    """Memory that was asked for and never touched is "not present": no table leads to a frame until the first touch."""
    chain = evidence["chain_small"]
    said, later = chain.record("ready"), chain.record("answer")
    if "refused" in later:
        return not_observable(f"The guest's process could not be told to touch its page: {later.text('refused')}.")
    virtual = said.address("second_virtual")
    before, after = Walked(chain, "second_before", virtual), Walked(chain, "second_after", virtual)
    entries = said.address("second_pagemap"), later.record("touched").address("second_pagemap")
    measured = (
        f"before: level {before.steps[-1].integer('level')} says not present, pagemap {entries[0]:#x}; "
        f"after: {shown(after.physical)}, pagemap frame {entries[1] & FRAME:#x}"
    )
    expected = "no frame before, the same frame by both after"
    if before.fault or after.fault:
        return failed(f"The tables do not hang together: {before.fault or after.fault}.", expected=expected, measured=measured)
    if before.physical is not None or entries[0] & IN_MEMORY:
        return failed("There was a frame before the first touch.", expected=expected, measured=measured)
    if after.physical is None or not entries[1] & IN_MEMORY or after.physical // PAGE != entries[1] & FRAME:
        return failed("After the touch the tables and the pagemap do not name one frame.", expected=expected, measured=measured)
    return passed("The first touch brought the frame.", expected=expected, measured=measured)


# --- guest-physical to host-virtual -------------------------------------------------------------------------------------------------


@check(points=1, claim="M2", after="the_tables_lead_to_the_frame")
def the_byte_lies_at_its_address(evidence: Evidence) -> Verdict:
    """Memory is bytes with addresses: what the guest stored is read from outside at its guest-physical address, and not a page further."""
    words = []
    for name in CHAINS:
        chain = evidence[name]
        marker = marker_of(chain)
        here, beside = holds(chain, "physical_holds", marker), holds(chain, "next_page_holds", marker)
        words.append(f"{guest_physical(chain):#x}: {'the marker' if here else 'something else'}")
        if not here or beside:
            where = "It is a page further, too." if beside else "It is not there."
            return failed(where, expected="the marker at its address alone", measured=words[-1])
    return passed("64 characters, three times.", expected="the marker at its address alone", measured="; ".join(words))


@check(points=2, claim="M10", after="the_byte_lies_at_its_address")
def the_guests_memory_is_qemus(evidence: Evidence) -> Verdict:
    """The guest's physical memory is virtual memory of QEMU's process: the marker is read there, in a mapping that holds all of it."""
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
        words.append(f"{guest_physical(chain):#x} is {virtual:#x}")
        expected = f"the marker at its address alone, in a mapping of at least {memory >> 20} MiB"
        if not (start <= virtual < end and end - start >= memory):
            return failed("The address does not lie in such a mapping.", expected=expected, measured=f"{virtual:#x} in {start:#x}-{end:#x}")
        if not holds(host, "holds", marker) or holds(host, "next_page_holds", marker):
            return failed("The marker is not where QEMU keeps that address.", expected=expected, measured=words[-1])
    return passed("Read there by the host's kernel, not by QEMU.", expected=expected, measured="; ".join(words))


@check(points=1, claim="M10", after="the_guests_memory_is_qemus")
def a_store_by_the_host_reaches_the_guest(evidence: Evidence) -> Verdict:
    """The way back: what the host stores into QEMU's memory, the guest's process finds in its own."""
    words = []
    for name in CHAINS:
        answer = evidence[name].record("answer")
        if "refused" in answer:
            return not_observable(f"This host's kernel does not let QEMU's memory be written: {answer.text('refused')}.")
        sent, seen = answer.text("sent"), answer.record("answered").text("answer")
        words.append(f"sent {sent}, seen {seen}")
        if len(sent) < 16:
            raise EvidenceProblem(f"{answer.place}.sent: expected at least 16 characters, found {len(sent)}")
        if sent != seen:
            return failed("The guest's process saw something else.", expected="what was sent", measured=words[-1])
    return passed(
        "The process watched its own memory and saw the host's words appear.", expected="what was sent", measured="; ".join(words)
    )


@check(points=2, claim="M10", after="the_guests_memory_is_qemus")
def memory_grows_as_it_is_touched(evidence: Evidence) -> Verdict:
    """QEMU's resident memory grows as the guest touches its own: by one frame for each page that had none, and by none the second time.

    The host notes before each step which of the guest's pages have a frame of QEMU's own. Others in the guest touch pages meanwhile, so
    that somewhat more is allowed.
    """
    seen = evidence["growth"]
    pages = seen.integer("pages", minimum=64)
    samples, again = seen.records("samples", at_least=3), seen.record("again")
    mapped = seen.record("mapped")
    if mapped.integer("present") != 0 or samples[0].integer("touched") != 0 or samples[-1].integer("touched") != pages:
        raise EvidenceProblem(f"{seen.place}: not {pages} pages touched from none on")
    if any(sample.integer("huge_bytes", minimum=0) for sample in samples):
        return inconclusive("The host backs this guest with huge pages, so that it grows in steps of 2 MiB.")
    steps = samples[1:]
    for before, step in zip(samples, steps, strict=False):
        count = step.integer("touched") - before.integer("touched")
        if count <= 0 or {step.integer(name) for name in ("present", "frames", "backed_after")} != {count}:
            return failed(
                "After a step not every page that was touched had a frame of its own.",
                expected=f"{count} pages, {count} frames, {count} of them QEMU's",
                measured=", ".join(f"{name} {step.integer(name)}" for name in ("present", "frames", "backed_after")),
            )
    unbacked = sum(step.integer("unbacked", minimum=0) for step in steps)
    grown, more = growth(samples[0], samples[-1]), growth(samples[-1], again)
    measured = f"{pages} pages touched, {unbacked} without a frame before; QEMU's own memory +{grown} pages, and +{more} when touched again"
    expected = f"+{unbacked} to +{allowed(unbacked)}, then about 0"
    if unbacked < pages // 2:
        return inconclusive("Most of the pages had a frame before they were touched.", expected=expected, measured=measured)
    if grown < unbacked or again.integer("unbacked") != 0:
        return failed("Fewer frames came than were needed.", expected=expected, measured=measured)
    if grown > allowed(unbacked) or more > pages // 10:
        return inconclusive("Others in the guest touched too much meanwhile.", expected=expected, measured=measured, hint="run it again")
    return passed("A frame for each page, at its first touch.", expected=expected, measured=measured)


def growth(before: Record, after: Record) -> int:
    """By how many pages QEMU's own part of the guest's memory grew."""
    return (after.integer("own_bytes", minimum=1) - before.integer("own_bytes", minimum=1)) // PAGE


def allowed(unbacked: int) -> int:
    """A quarter more: what the guest's other processes, its kernel's buffers and the marker's own stack may need meanwhile."""
    return unbacked + unbacked // 4 + 64


# --- host-virtual to host-physical --------------------------------------------------------------------------------------------------


@check(points=1, claim="M11", after="the_guests_memory_is_qemus")
def the_hosts_tables_name_a_frame(evidence: Evidence) -> Verdict:
    """The host's page tables map QEMU's memory to frames of real RAM: the kernel names one for each marker, and each is another.

    The kernel shows frames to root alone. To others it shows 0, which is no frame.
    """
    ram = [(each.address("start"), each.address("end")) for each in evidence["machine"].records("ram", at_least=0)]
    found = {}
    for name in CHAINS:
        host = evidence[name].record("host")
        why = refusal(host, "page")
        page = host.record("page")
        if why or page.is_null("frame"):
            reason = why or "frames are shown to root alone"
            return not_observable(f"This host's kernel hides it: {reason}.", hint="run the lab as root to see it")
        physical, monitor = host.address("host_physical"), address_or_none(host, "monitor_host_physical")
        expected = "a frame in RAM that QEMU's monitor names, too"
        measured = f"{physical:#x} by the kernel, {shown(monitor)} by QEMU"
        if not page.flag("present") or physical != page.address("frame") * PAGE + evidence[name].address("host_virtual") % PAGE:
            raise EvidenceProblem(f"{host.place}: host_physical does not follow from the page's frame")
        if monitor != physical:
            return failed("Kernel and QEMU name two addresses.", expected=expected, measured=measured)
        if ram and not any(start <= physical <= end for start, end in ram):
            return failed("The frame does not lie in the host's RAM.", expected=expected, measured=measured)
        found[name] = physical
    measured = ", ".join(f"{evidence[name].text('guest')} ({evidence[name].text('kind')}) {place:#x}" for name, place in found.items())
    if not ram:
        return inconclusive("The host's kernel does not tell where its RAM is.", measured=measured)
    if len({place // PAGE for place in found.values()}) != len(found):
        return failed("Two markers share a frame.", expected="three frames in RAM", measured=measured)
    return passed("Three markers, three frames of the host's RAM.", expected="three frames in RAM", measured=measured)


@check(points=1, claim="M12", after=["the_byte_lies_at_its_address", "the_guests_memory_is_qemus"])
def nobody_else_has_it(evidence: Evidence) -> Verdict:
    """Control: the other guest has something else at the same guest-physical address, and QEMU's address means nothing in its process."""
    words = []
    for name in CHAINS:
        chain = evidence[name]
        marker, stranger = marker_of(chain), chain.record("stranger")
        if stranger.text("guest") == chain.text("guest"):
            raise EvidenceProblem(f"{stranger.place}.guest is the guest itself")
        there, elsewhere = holds(stranger, "physical_holds", marker), refusal(stranger, "holds")
        words.append(f"{chain.text('guest')}'s marker in {stranger.text('guest')}: {elsewhere or 'other bytes'}")
        if there or (not elsewhere and holds(stranger, "holds", marker)):
            return failed("The other guest has the marker, too.", expected="something else, or nothing", measured=words[-1])
        if stranger.address("host_virtual_of_physical") == chain.address("host_virtual"):
            return inconclusive("Both QEMU processes keep their guests' memory at one address, so that the control controls nothing.")
    return passed("The same numbers mean other bytes there.", expected="something else, or nothing", measured="; ".join(words))


@check(
    points=2,
    claim="M12",
    after=["the_tables_lead_to_the_frame", "the_guests_memory_is_qemus", "nobody_else_has_it", "the_hosts_tables_name_a_frame"],
)
def one_byte_has_four_names(evidence: Evidence) -> Verdict:
    """One byte, four names: guest-virtual, guest-physical, host-virtual, host-physical, with the marker read back on the way.

    Read in guest-physical and in host-virtual memory. The frame itself is read where the kernel offers its physical memory
    (/proc/kcore); where it does not, two readings of the host's page table name it.
    """
    words = []
    for name in CHAINS:
        chain = evidence[name]
        host, marker = chain.record("host"), marker_of(chain)
        why = refusal(host, "frame_holds")
        last = f"not read: {why}" if why else "the marker" if holds(host, "frame_holds", marker) else "something else"
        names = (
            chain.record("ready").address("virtual"),
            guest_physical(chain),
            chain.address("host_virtual"),
            host.address("host_physical"),
        )
        words.append(" → ".join(hex(each) for each in names) + f" ({last})")
        if last == "something else":
            return failed("The frame holds something else.", expected="the marker under every name", measured=words[-1])
        if len({each % PAGE for each in names}) != 1:
            return failed("The offset in the page is not the same under all four.", expected="one offset", measured=words[-1])
    return passed("Each hop was made by another part of the system.", expected="the marker under every name", measured="; ".join(words))


# --- what a miss costs ----------------------------------------------------------------------------------------------------------------

# A step over small pages must take this much longer than one over large pages. The 16,384 small pages are many times what any TLB holds
# (1,536 to 4,096 entries in the second level of current processors), the 32 large ones fit; a walk that hits the caches costs tens of
# cycles where the load itself costs about fifteen.
MISS_COSTS = 1.2
# The loop without memory must be so steady: the 90th percentile of its times over the 10th.
STEADY = 1.5


@check(points=1, claim="M8")
def the_mmu_does_not_walk_each_time(evidence: Evidence) -> Verdict:
    """Translations are kept in the TLB: over large pages, whose translations it holds, each step is quicker than over small ones.

    The same pointers at the same offsets, so that the caches have the same work. The three loops take turns; the interval is a bootstrap's
    over the ratios of each turn.
    """
    seen = evidence["chase"]
    if "not_run" in seen:
        return not_observable(f"Time in this guest is not the processor's: {seen.text('not_run')}.")
    machine, guest = seen.record("native"), seen.record("guest")
    unfit = unfit_to_compare(machine) or unfit_to_compare(guest)
    if unfit:
        return inconclusive(unfit, hint="is the machine busy? run it again")
    own, ratio = small_over_large(machine), small_over_large(guest)
    over = {name: median(of(guest, name)) / median(of(machine, name)) for name in ("small", "compute")}
    measured = (
        f"small over large pages: {ratio} in the guest, {own} on this machine itself; guest over machine: {over['small']:.2f} for a step "
        f"that misses, {over['compute']:.2f} without memory"
    )
    expected = f"a ratio above {MISS_COSTS} (95 % interval)"
    if own.high < MISS_COSTS:
        return not_observable(f"On this machine itself small pages cost no more than large ones: it shows no TLB ({measured}).")
    if ratio.low > MISS_COSTS:
        return passed("A miss costs a walk, a hit does not.", expected=expected, measured=measured)
    if ratio.high < MISS_COSTS:
        return failed("Small pages cost no more than large ones.", expected=expected, measured=measured)
    return inconclusive("The interval holds the bound.", expected=expected, measured=measured, hint="ask for more --param samples")


def unfit_to_compare(run: Record) -> str:
    """Why the times of a chase compare nothing; empty when they do."""
    small, large = (run.record("large_bytes").integer(name, minimum=0) for name in ("small", "large"))
    if not run.flag("right"):
        return f"The loops did not end where they should ({run.place})."
    if small or large < run.integer("pages", minimum=1) * PAGE:
        return f"The kernel did not give the pages that were asked for ({run.place}: {large >> 20} MiB of large ones)."
    compute = sorted(of(run, "compute"))
    spread = compute[len(compute) * 9 // 10] / compute[len(compute) // 10]
    return f"Even a loop without memory varied by a factor of {spread:.2f} ({run.place})." if spread > STEADY else ""


def small_over_large(run: Record) -> Interval:
    """How much longer a step over small pages takes, turn by turn."""
    small, large = of(run, "small"), of(run, "large")
    if len(small) != len(large):
        raise EvidenceProblem(f"{run.place}.ns_per_step: expected as many of small as of large, found {len(small)} and {len(large)}")
    return median_interval([one / other for one, other in zip(small, large, strict=True)])


def of(run: Record, name: str) -> list[float]:
    """The samples of one loop, in nanoseconds a step."""
    samples = run.record("ns_per_step").numbers(name, at_least=10)
    if min(samples) <= 0:
        raise EvidenceProblem(f"{run.place}.ns_per_step.{name}: expected times above 0")
    return samples


def shown(address: int | None) -> str:
    """An address for people."""
    return "nothing" if address is None else hex(address)
