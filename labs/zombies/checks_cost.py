"""What a zombie costs the kernel: memory, by the kernel's own counters, and what of it is freed at death."""

from __future__ import annotations

from itertools import pairwise
from statistics import median, quantiles

from vmlab.lab import Evidence, Record, Verdict, check, failed, inconclusive, passed


@check(points=1, claim="Z2")
def a_zombie_costs_kernel_memory(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A zombie costs kernel memory: about as much as the records of it that the kernel keeps, whose sizes are read from /proc/slabinfo.

    Two accounts must agree: how much SUnreclaim in /proc/meminfo rose a zombie, batch by batch, and the sum over the caches that gained
    an object a zombie, each object with its share of a slab.
    """
    cost = evidence["cost"]
    total, page = cost.integer("total", minimum=1), cost.integer("page_bytes", minimum=1)
    snapshots = cost.records("snapshots", at_least=6)
    each = rises(snapshots, "SUnreclaim")
    reported = [batch.number("bytes_each") for batch in cost.records("batches", at_least=5)]
    agree = len(reported) == len(each) and all(abs(a - b) < 1 for a, b in zip(reported, each, strict=False))
    if not agree or abs(median(reported) - cost.number("median_bytes")) > 1 or snapshots[-1].integer("count") != total:
        return inconclusive("The costs reported do not follow from the amounts of memory reported with them.")
    made = total + cost.integer("batch") + cost.record("living").integer("count")
    if cost.integer("reaped") != made:
        # Memory that is given back late could be taken for that of zombies; whoever was a zombie can still be waited for.
        return failed(
            "They were no zombies when they were weighed.",
            expected=f"{made} to be waited for afterwards, the warm-up and the living ones included",
            measured=f"{cost.integer('reaped')}",
        )
    if (strangers := other_tasks(snapshots)) > total / 8:
        return inconclusive(f"{strangers} tasks that are none of the lab's came or went meanwhile.")
    middle, (low, _, high) = median(each), quantiles(each, n=4, method="inclusive")
    measured = (
        f"median {middle:,.0f} bytes a zombie over {len(each)} batches "
        f"(half of them {low:,.0f} to {high:,.0f}, all {min(each):,.0f} to {max(each):,.0f})"
    )
    # Each record of a zombie has a number of bytes; below one KiB there is no room for any task_struct that Linux ever had.
    if middle < 1024:
        return failed(
            "The zombies cost no kernel memory worth the name: were they zombies?", expected="some KiB a zombie", measured=measured
        )
    caches = {cache.text("name"): cache for cache in cost.records("caches", at_least=1)}
    if "task_struct" not in caches:
        return failed("The number of task_structs did not rise with the zombies.", expected="one task_struct a zombie", measured=measured)
    tasks = caches["task_struct"].integer("objects_gained") / total
    by_slabs = sum(share_of_slab(cache, page) * cache.integer("objects_gained") / total for cache in caches.values())
    names = ", ".join(f"{name} {cache.integer('object_bytes')}" for name, cache in list(caches.items())[:4])
    expected = f"{by_slabs:,.0f} bytes by the slabs that grew ({names})"
    # Slabs come whole and SLUB counts the objects of a CPU's current slabs as used: with some hundred zombies that is worth a tenth.
    if not 0.85 <= tasks <= 1.15:
        return inconclusive(
            f"There were {tasks:.2f} task_structs a zombie; something else came or went.", expected=expected, measured=measured
        )
    if high - low > middle / 4:
        return inconclusive(
            "The batches differ by more than a quarter: something else used the kernel's memory.", expected=expected, measured=measured
        )
    if not 0.8 <= middle / by_slabs <= 1.2:
        return inconclusive("The two accounts differ by more than a fifth.", expected=expected, measured=measured)
    return passed("Not nothing: the kernel keeps these records until the parent has waited.", expected=expected, measured=measured)


@check(points=1, claim="Z2", after="a_zombie_costs_kernel_memory")
def its_kernel_stack_is_freed_at_death(evidence: Evidence) -> Verdict:
    """The kernel stack is given back at death, not at the wait: living children raise KernelStack, zombies do not.

    So do page tables: the last that the kernel held for the process's memory.
    """
    cost = evidence["cost"]
    snapshots, living = cost.records("snapshots", at_least=6), cost.record("living")
    count = living.integer("count", minimum=1)
    before, alive, dead = (living.record(name) for name in ("before", "alive", "dead"))

    def stack(start: Record, end: Record) -> float:
        return (end.integer("KernelStack", minimum=1) - start.integer("KernelStack", minimum=1)) * 1024 / count

    # (The median, because a batch may have met the stacks of tasks that came and went and are in no count.)
    of_living, of_dead, of_zombies = stack(before, alive), stack(before, dead), median(rises(snapshots, "KernelStack"))
    tables = [(end.integer("PageTables") - before.integer("PageTables")) * 1024 / count for end in (alive, dead)]
    measured = (
        f"kernel stack {of_living:,.0f} bytes a living child, {of_dead:,.0f} once it is dead, {of_zombies:,.0f} a zombie of the batches; "
        f"page tables {tables[0]:,.0f}, then {tables[1]:,.0f}"
    )
    expected = "at least a page for the living, less than an eighth of that for the dead"
    if other_tasks([before, alive, dead]) > count / 8 or other_tasks(snapshots) > cost.integer("total", minimum=1) / 8:
        return inconclusive("Tasks that are none of the lab's came or went meanwhile.", expected=expected, measured=measured)
    # A stack is one page at the very least (16 KiB on x86-64).
    if of_living < 4096:
        return inconclusive("The living children raised KernelStack too little to compare with.", expected=expected, measured=measured)
    if of_dead > of_living / 8 and tables[1] > tables[0] / 8:
        # Page tables go at death, before anybody could wait (exit_mm in kernel/exit.c), and like stacks after a grace period.
        return inconclusive("The kernel had not yet freed what the dead gave back.", expected=expected, measured=measured)
    if max(of_dead, of_zombies) > of_living / 8:
        return failed("The dead still had kernel stacks.", expected=expected, measured=measured)
    return passed("A zombie never runs again, and has no stack to run on.", expected=expected, measured=measured)


# --- readers ----------------------------------------------------------------------------------------------------------------------


def rises(snapshots: list[Record], name: str) -> list[float]:
    """What each batch added to a field of /proc/meminfo: bytes for one zombie of it."""
    return [
        (after.integer(name, minimum=1) - before.integer(name, minimum=1))
        * 1024
        / (after.integer("count", minimum=before.integer("count") + 1) - before.integer("count"))
        for before, after in pairwise(snapshots)
    ]


def other_tasks(snapshots: list[Record]) -> int:
    """By how much the number of tasks that are none of the lab's varied. Memory that an account gained may be theirs."""
    others = [each.integer("tasks", minimum=1) - each.integer("count") for each in snapshots]
    return max(others) - min(others)


def share_of_slab(cache: Record, page_bytes: int) -> float:
    """Bytes of memory for one object of a cache: its slab's pages divided by the objects in it, what does not fit included."""
    return cache.integer("pages_a_slab", minimum=1) * page_bytes / cache.integer("objects_a_slab", minimum=1)
