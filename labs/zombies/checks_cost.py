"""What a zombie costs the kernel: memory, by the kernel's own counters, and what of it is freed at death."""

from __future__ import annotations

from itertools import pairwise
from statistics import median, quantiles

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, not_observable, passed

ACCOUNTS = ("KernelStack", "VmallocUsed", "PageTables")

LOOKS = 5
"""So often the account was looked at, each time after two grace periods, before something counts as kept."""


@check(points=1, claim="Z2")
def a_zombie_costs_kernel_memory(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A zombie costs kernel memory: about as much as the records of it that the kernel keeps, whose sizes are read from /proc/slabinfo.

    Two accounts must agree: how much SUnreclaim in /proc/meminfo rose a zombie, batch by batch, and the sum over the kinds of records that
    gained one a zombie. Each record is counted with its share of a slab, because a slab takes up whole pages: three task_structs of 8,448
    bytes fill a slab of 32,768 bytes, so that each costs 10,923.
    """
    cost = evidence["cost"]
    total, batch, page = (cost.integer(name) for name in ("total", "batch", "page_bytes"))
    asked = evidence.parameters
    if batch != asked.integer("batch") or total != batch * asked.integer("batches"):
        return inconclusive(f"{total} zombies in batches of {batch} were weighed, which is not what was asked for.")
    snapshots = cost.records("snapshots")
    each = rises(snapshots, "SUnreclaim")
    if not follows(cost, each) or snapshots[-1].integer("count") != total:
        return inconclusive("The costs reported do not follow from the amounts of memory reported with them.")
    made = total + batch + cost.record("living").integer("count")
    if cost.integer("reaped") != made:
        # Memory that is given back late could be taken for that of zombies; whoever was a zombie can still be waited for.
        return failed(
            "They were no zombies when they were weighed.",
            expected=f"{made} to be waited for afterwards, the warm-up and the living ones included",
            measured=f"{cost.integer('reaped')}",
            hint="who waited for them before? cost.py reaps them all at its end, and counts",
        )
    if (strangers := other_tasks(snapshots)) > total / 8:
        return inconclusive(f"{strangers} tasks that are none of the lab's came or went meanwhile.")
    middle, (low, _, high) = median(each), quantiles(each, n=4, method="inclusive")
    measured = (
        f"median {middle:,.0f} bytes a zombie over {len(each)} batches "
        f"(half of them {low:,.0f} to {high:,.0f}, all {min(each):,.0f} to {max(each):,.0f})"
    )
    caches = {cache.text("name"): cache for cache in cost.records("caches")}
    shares = {name: share_of_slab(cache, page) * cache.integer("objects_gained") / total for name, cache in caches.items()}
    by_slabs = sum(shares.values())
    expected = f"{by_slabs:,.0f} bytes by the records that came ({listed(shares)})"
    # Each record of a zombie has a number of bytes; below one KiB there is no room for any task_struct that Linux ever had.
    if max(middle, by_slabs) < 1024:
        return failed(
            "The zombies cost no kernel memory worth the name.",
            expected="at least 1,024 bytes a zombie",
            measured=measured,
            hint="were they zombies? See cost.snapshots: SUnreclaim should rise from one to the next, and tasks as well",
        )
    if "task_struct" not in caches:
        return inconclusive("The number of task_structs did not rise with the zombies.", expected=expected, measured=measured)
    tasks = caches["task_struct"].integer("objects_gained") / total
    # Slabs come whole and SLUB counts the objects of a CPU's current slabs as used: with some hundred zombies that is worth a tenth.
    if not 0.85 <= tasks <= 1.15:
        return inconclusive(
            f"There were {tasks:.2f} task_structs a zombie; something else came or went.", expected=expected, measured=measured
        )
    if high - low > middle / 4:
        return inconclusive(
            "The batches differ by more than a quarter: something else used the kernel's memory.", expected=expected, measured=measured
        )
    if not 0.8 * by_slabs <= middle <= 1.2 * by_slabs:
        return inconclusive("The two accounts differ by more than a fifth.", expected=expected, measured=measured)
    return passed("The kernel keeps these records of each zombie until its parent has waited.", expected=expected, measured=measured)


@check(points=1, claim="Z2", after="a_zombie_costs_kernel_memory")
def its_kernel_stack_is_freed_at_death(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """The kernel stack and the page tables are given back at death, not at the wait: living children have them, zombies do not.

    The stack has two accounts. KernelStack falls when the dying process comes to the end of do_exit (since Linux 5.18), which is before
    the stack is freed: a kernel that lost every stack would show the same. VmallocUsed falls when the stack's pages have really gone back.
    Page tables go with the process's memory (exit_mm), and have a line of their own. What has not gone yet is looked for again, each time
    after two of the kernel's grace periods, before it counts as kept.
    """
    cost = evidence["cost"]
    snapshots, living = cost.records("snapshots", at_least=2), cost.record("living")
    count = living.integer("count", minimum=1)
    before, alive, dead = (living.record(name) for name in ("before", "alive", "dead"))
    # (The median of the batches, because one may have met the stacks of tasks that came and went and are in no count.)
    of_living = {name: grown(before, alive, name) / count for name in ACCOUNTS}
    of_dead = {name: grown(before, dead, name) / count for name in ACCOUNTS}
    of_zombies = {name: median(rises(snapshots, name)) for name in ACCOUNTS}
    looks, in_batch = dead.integer("looks"), [each.integer("looks") for each in snapshots[1:]]
    measured = "; ".join(
        f"{name}: {of_living[name]:,.0f} bytes a living child, {of_dead[name]:,.0f} once it is dead, {of_zombies[name]:,.0f} a zombie"
        for name in ACCOUNTS
    )
    expected = "at least a page for the living, less than an eighth of that for the dead, in each account"
    if other_tasks([before, alive, dead]) > count / 8 or other_tasks(snapshots) > cost.integer("total") / 8:
        return inconclusive("Tasks that are none of the lab's came or went meanwhile.", expected=expected, measured=measured)
    # A stack is one page at the very least (16 KiB on x86-64), and so are page tables.
    if min(of_living["KernelStack"], of_living["PageTables"]) < 4096:
        return inconclusive("The living children raised the accounts too little to compare with.", expected=expected, measured=measured)
    if of_living["VmallocUsed"] < of_living["KernelStack"] / 8:
        return not_observable("This kernel does not keep its stacks in the memory that VmallocUsed counts (CONFIG_VMAP_STACK).")
    after_death = {name for name in ACCOUNTS if of_dead[name] > of_living[name] / 8}
    in_batches = {name for name in ACCOUNTS if of_zombies[name] > of_living[name] / 8}
    if not after_death | in_batches:
        return passed("A zombie never runs again, and has no stack to run on.", expected=expected, measured=measured)
    seldom = [seen < LOOKS for seen, over in zip(in_batch, over_in(snapshots, of_living), strict=True) if over]
    if (after_death and looks < LOOKS) or any(seldom):
        return inconclusive("The kernel had no time to free what the dead gave back.", expected=expected, measured=measured)
    # (VmallocUsed counts more than stacks, of the whole system: only what both measurements show is the dead's.)
    if after_death | in_batches == {"VmallocUsed"} and after_death != in_batches:
        return inconclusive("Something else may have taken the memory that VmallocUsed counts.", expected=expected, measured=measured)
    return failed(
        "The dead still had kernel stacks or page tables.",
        expected=expected,
        measured=measured,
        hint="compare the living and the dead in cost.living, and one snapshot with the next: do threads live on that nobody counts?",
    )


# --- readers ----------------------------------------------------------------------------------------------------------------------


def rises(snapshots: list[Record], name: str) -> list[float]:
    """What each batch added to a field of /proc/meminfo: bytes for one zombie of it."""
    return [
        grown(before, after, name) / (after.integer("count", minimum=before.integer("count") + 1) - before.integer("count"))
        for before, after in pairwise(snapshots)
    ]


def grown(start: Record, end: Record, name: str) -> int:
    """By how many bytes a field of /proc/meminfo rose, which has KiB."""
    return (end.integer(name) - start.integer(name)) * 1024


def follows(cost: Record, each: list[float]) -> bool:
    """Whether what the script derived for the pictures follows from the snapshots: the cost of each batch, its stacks, and the median."""
    batches = cost.records("batches", at_least=5)
    stacks = rises(cost.records("snapshots"), "KernelStack")
    told = [(row.integer("batch"), row.number("bytes_each"), row.number("stack_bytes_each")) for row in batches]
    # (The script rounds to a tenth of a byte.)
    if told != [
        (i, round(cost_of_one, 1), round(stack, 1)) for i, (cost_of_one, stack) in enumerate(zip(each, stacks, strict=True), start=1)
    ]:
        return False
    return cost.number("median_bytes") == median(row.number("bytes_each") for row in batches)


def over_in(snapshots: list[Record], of_living: dict[str, float]) -> list[bool]:
    """Of each batch whether one of the accounts did not come down after it."""
    columns = [[rise > of_living[name] / 8 for rise in rises(snapshots, name)] for name in ACCOUNTS]
    return [any(row) for row in zip(*columns, strict=True)]


def other_tasks(snapshots: list[Record]) -> int:
    """By how much the number of tasks that are none of the lab's varied. Memory that an account gained may be theirs."""
    others = [each.integer("tasks") - each.integer("count") for each in snapshots]
    return max(others) - min(others)


def share_of_slab(cache: Record, page_bytes: int) -> float:
    """Bytes of memory for one record of a kind: its slab's pages divided by the records in it, what does not fit included.

    EvidenceProblem where they do not fit, or would leave half of the slab empty: the kernel makes no such slabs.
    """
    size, objects, pages = (cache.integer(name) for name in ("object_bytes", "objects_a_slab", "pages_a_slab"))
    if not pages * page_bytes / 2 <= size * objects <= pages * page_bytes:
        raise EvidenceProblem(f"{cache.place}: {objects} records of {size} bytes are no slab of {pages} pages")
    return pages * page_bytes / objects


def listed(shares: dict[str, float]) -> str:
    """What each kind of record takes up a zombie, so that whoever adds it up finds the sum. (The script has the largest first.)"""
    return " + ".join(f"{name} {share:,.0f}" for name, share in shares.items())
