"""What the evidence shows of the TLB: that the page tables are not read at each access, and what an access costs for which they are."""

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
    noise_of,
    not_observable,
    passed,
)

from .walk import ACCESSED, ADDRESS, LARGE, PAGE, PRESENT

# --- the bit that a walk leaves behind ------------------------------------------------------------------------------------------------

# An access that reads the tables sets the bit; after so many reads without it nobody can say that a walk was only late.
READS = 10_000
# So many looks at least: an entry may be lost to others in any of them (an interrupt's pages take its place, the processor is changed).
TRIES = 5
# What of an entry names the page: its frame and its kind. The rest are the processor's marks and the kernel's own.
SAME = ADDRESS | PRESENT | LARGE


class Try:
    """One look: the entry before, with the bit cleared; after many reads; and after the guest's kernel flushed its translations."""

    def __init__(self, row: Record) -> None:
        before, after, flushed = (row.address(name) for name in ("before", "after", "after_flush"))
        if len({entry & SAME for entry in (before, after, flushed)}) != 1 or not before & PRESENT:
            raise EvidenceProblem(f"{row.place}: expected one entry all the time, for a page that is present")
        self.reads = row.integer("reads", minimum=0)
        self.switches = row.integer("switches", minimum=0)
        self.walked = bool(after & ACCESSED)
        self.walked_after_flush = bool(flushed & ACCESSED)
        self.reads_after_flush = row.integer("reads_after_flush", minimum=0)

    @property
    def tells(self) -> bool:
        """Whether it can decide anything: there were reads enough, and a walk was seen when there had to be one."""
        return self.reads >= READS and self.reads_after_flush > 0 and self.walked_after_flush

    @property
    def disturbed(self) -> bool:
        """Whether the kernel put another process on the processor meanwhile, which takes the translations with it."""
        return self.switches > 0


@check(points=1, claim="M8")
def the_mmu_does_not_walk_each_time(evidence: Evidence) -> Verdict:
    """The page tables are not read at every access: a translation that the TLB holds is used again without a look at them.

    When the processor reads the tables for an access it sets the bit "accessed" of the page's entry. So the host clears that bit behind
    the back of a process that reads one word of the page over and over, and looks again after many thousands of reads. As long as it
    stays clear, none of them looked at the entry. Then the guest's kernel flushes its translations, for another reason, and the bit comes
    back with the next read: that is the control which shows that a walk would have been seen.
    """
    seen = evidence["kept"]
    if "refused" in seen:
        return not_observable(f"This host's kernel does not let QEMU's memory be written: {seen.text('refused')}.")
    tries = [Try(row) for row in seen.records("tries", at_least=TRIES)]
    telling = [each for each in tries if each.tells]
    kept = [each for each in telling if not each.walked]
    undisturbed = [each for each in telling if not each.disturbed]
    expected = f"the bit stays clear for {READS:,} reads or more, in most looks, and is set after a flush"
    measured = (
        f"in {len(tries)} looks: {len(kept)} times still clear after {min((each.reads for each in kept), default=0):,} reads or more, "
        f"{sum(each.walked_after_flush for each in tries)} times set after the flush"
    )
    if 2 * len(telling) <= len(tries):
        why = "Most looks do not tell: too few reads, or a bit that did not come back after the flush."
        return inconclusive(why, expected=expected, measured=measured, hint="is the machine busy? run it again")
    if 2 * len(kept) > len(tries):
        return passed("The reads went by the translation that the TLB held.", expected=expected, measured=measured)
    if not kept and 2 * len(undisturbed) > len(tries):
        hint = "what flushes the process's translations meanwhile? look at kept.tries: the entry before, after the reads, after the flush"
        return failed("The page tables were read again each time.", expected=expected, measured=measured, hint=hint)
    return inconclusive(
        "Translations were lost in some looks and held in others.", expected=expected, measured=measured, hint="run it again"
    )


# --- what a miss costs ----------------------------------------------------------------------------------------------------------------

# A step over small pages must take this much longer than one over large pages. The 16,384 small pages are many times what any TLB holds
# (1,536 to 4,096 entries in the second level of current processors), the 32 large ones fit; a walk that hits the caches costs tens of
# cycles where the load itself costs about fifteen.
MISS_COSTS = 1.2
# The loop without memory must be so steady: the 90th percentile of its times over the 10th.
STEADY = 1.5
# From what share of the host's CPU time on others were too busy beside it for a ratio to be held against anybody.
BUSY = 0.1
# So much of what QEMU has of this guest must be in huge pages of the host. A processor keeps a translation for the smaller of the two
# sizes, the guest's and the host's (AMD APM, volume 2, 15.25.9, "Page Splintering"; Linux, Documentation/admin-guide/mm/transhuge.rst).
HUGE = 0.9


@check(points=1, claim="M8")
def a_miss_costs_a_walk(evidence: Evidence) -> Verdict:
    """What the TLB does not hold costs a walk: a step from page to page takes longer over small pages than over large ones.

    The same pointers at the same offsets, so that the caches have the same work; only the pages differ. 64 MiB are 16,384 small pages, far
    more than a TLB holds, or 32 large ones, which it holds. The loops take turns, a third one needs no memory and shows how steady the
    machine is, and the interval is a bootstrap's over the ratios of each turn. It is measured in a guest whose memory the host backs with
    huge pages: where that is made of small ones, the processor holds small translations for the guest's large pages, too.
    """
    seen = evidence["chase"]
    if "not_run" in seen:
        return not_observable(f"Time in this guest is not the processor's: {seen.text('not_run')}.")
    machine, guest = seen.record("native"), seen.record("guest")
    for run in (machine, guest):
        hold_to_what_was_asked(run, evidence.parameters)
    unfit = unfit_to_compare(machine) or unfit_to_compare(guest)
    if unfit:
        return inconclusive(unfit, hint="is the machine busy? run it again")
    own, ratio = small_over_large(machine), small_over_large(guest)
    over = {name: median(of(guest, name)) / median(of(machine, name)) for name in ("small", "compute")}
    measured = (
        f"small over large pages: {ratio} in the guest, {own} on this machine itself; guest over machine: {over['small']:.2f} for a step "
        f"over small pages, {over['compute']:.2f} without memory"
    )
    expected = f"a ratio above {MISS_COSTS} (95 % interval)"
    hidden = why_no_ratio(own, ratio, seen.record("backed"))
    if hidden:
        return not_observable(f"{hidden} ({measured}).", hint="is /sys/kernel/mm/transparent_hugepage/enabled never on this machine?")
    if ratio.low > MISS_COSTS:
        return passed("A miss costs a walk, a hit does not.", expected=expected, measured=measured)
    if ratio.high < MISS_COSTS and noise_of(guest) < BUSY:
        hint = "look at chase.guest: do its loops go through more pages than the TLB has entries (pages, --param chase_mib)?"
        return failed("Small pages cost no more than large ones.", expected=expected, measured=measured, hint=hint)
    why = "The interval holds the bound, or others were busy on this machine."
    return inconclusive(why, expected=expected, measured=measured, hint="ask for more --param samples, on a quiet machine")


def why_no_ratio(own: Interval, ratio: Interval, backed: Record) -> str:
    """Why this machine cannot show what a miss costs in a guest; empty when it can, or did."""
    if own.high < MISS_COSTS:
        return "On this machine itself small pages cost no more than large ones: it shows no TLB"
    resident, huge = backed.integer("resident_bytes", minimum=1), backed.integer("huge_bytes", minimum=0)
    if ratio.low <= MISS_COSTS and huge < HUGE * resident:
        return f"The host backs this guest with small pages ({huge >> 20} of {resident >> 20} MiB in huge ones), and so does the TLB"
    return ""


def hold_to_what_was_asked(run: Record, asked: Record) -> None:
    """EvidenceProblem unless a chase went through as much memory, in as many samples of as many steps, as the run was asked for."""
    samples = {len(of(run, name)) for name in ("small", "large", "compute")}
    steps, pages = run.integer("steps"), run.integer("mapped_pages")
    if (
        samples != {asked.integer("samples")}
        or steps != asked.integer("chase_steps")
        or pages != asked.integer("chase_mib") * (1 << 20) // PAGE
    ):
        raise EvidenceProblem(f"{run.place}: it is not the chase that was asked for")


def unfit_to_compare(run: Record) -> str:
    """Why the times of a chase compare nothing; empty when they do."""
    small, large = (run.record("large_bytes").integer(name, minimum=0) for name in ("small", "large"))
    if not run.flag("right"):
        return f"The loops did not end where they should ({run.place})."
    if small or large < run.integer("mapped_pages") * PAGE:
        return f"The kernel did not give the pages that were asked for ({run.place}: {large >> 20} MiB of large ones)."
    compute = sorted(of(run, "compute"))
    spread = compute[len(compute) * 9 // 10] / compute[len(compute) // 10]
    return f"Even a loop without memory varied by a factor of {spread:.2f} ({run.place})." if spread > STEADY else ""


def small_over_large(run: Record) -> Interval:
    """How much longer a step over small pages takes, turn by turn."""
    return median_interval([one / other for one, other in zip(of(run, "small"), of(run, "large"), strict=True)])


def of(run: Record, name: str) -> list[float]:
    """The samples of one loop, in nanoseconds a step."""
    samples = run.record("ns_per_step").numbers(name, at_least=10)
    if min(samples) <= 0:
        raise EvidenceProblem(f"{run.place}.ns_per_step.{name}: expected times above 0")
    return samples
