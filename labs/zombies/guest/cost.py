#!/usr/bin/env python3
"""What one zombie costs the kernel: memory read from /proc/meminfo and /proc/slabinfo around batches of zombies.

What would spoil the measurement, and what is done about it:

- Reading /proc/PID makes the kernel allocate inodes and directory entries for it. So nothing here looks at /proc/PID until the
  measurement is over: that a child is a zombie is learnt from waitid(WNOWAIT), which reaps nothing. (Then it does look at them all,
  and measures that too.)
- The kernel sums its memory counters a CPU at a time, about once a second. Writing to /proc/sys/vm/stat_refresh folds them first.
- Slabs that are partly free fill up before new ones are made, so the first zombies seem to cost nothing: a warm-up batch fills them.
- What a dead child had is freed after a grace period (RCU), which on a busy machine takes longer than any fixed pause: each look waits
  for two of them, and then a moment for what the kernel does at their end. And what the dead give back is waited for, look after look:
  its kernel stack by two accounts. KernelStack falls when the dying process itself reaches the end of do_exit (since 5.18), which is
  *before* the stack is freed; VmallocUsed falls when the pages of the stack have gone back (where the kernel maps stacks so,
  CONFIG_VMAP_STACK, as on x86-64).
- Parent and children are tied to one CPU, so that only one CPU's caches of free objects play a part.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.
# ruff: noqa: PTH110

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from collections.abc import Mapping

from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import exit_at_once, running
from vmlab_guest.proc import meminfo, read, stat_or_none, tasks_in_kernel, write
from vmlab_guest.say import say
from vmlab_guest.syscalls import wait_for_grace_period
from vmlab_guest.timing import pin
from vmlab_guest.wait import wait_until

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.

FREED = ("KernelStack", "VmallocUsed", "PageTables")
MEMINFO = ("SUnreclaim", *FREED)
SETTLE_S = 0.15
FREED_S = 10.0  # So long the stacks of the dead are waited for before they count as kept, and so long for those of each batch:
BATCH_FREED_S = 4.0


def main() -> None:
    """Living children for comparison, then batches of zombies, then the observer's own cost, then reaping."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100, help="zombies a batch")
    parser.add_argument("--living", type=int, default=30, help="living children to compare with")
    parser.add_argument("--stacks", action="store_true", help="control: with most batches some threads of the parent stay alive")
    parser.add_argument("--reap", action="store_true", help="control: reap each batch before looking, as a good parent would")
    options = parser.parse_args()

    with Cgroup("cost") as cgroup:

        def work() -> None:
            cgroup.enter()
            pin()
            say(measure(options))

        _, status = os.waitpid(running(work), 0)
    if status:
        raise SystemExit("the measuring process broke")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """The whole measurement, in the parent of all the children."""
    make_zombies(options.batch)  # The warm-up; they stay, so that the slabs they filled stay full.

    before_living = look_once_settled()
    children, gate = living_children(options.living)
    alive = look(options.living)
    os.close(gate)  # They read the end of the pipe, and exit.
    for pid in children:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    dead = look_once_freed(before_living, alive, options.living, FREED_S)
    of_one = {name: (alive[name] - before_living[name]) / options.living for name in FREED}

    snapshots = [look(0)]
    caches_before = slabs()
    made = 0
    pids = []
    for number in range(options.batches):
        pids = make_zombies(options.batch)
        if options.stacks and number <= options.batches // 2:
            leave_threads(options.batch // 8 + 1)
        if options.reap:
            for pid in pids:
                os.waitpid(pid, 0)
        made += options.batch
        most = {name: snapshots[-1][name] + of_one[name] * options.batch for name in FREED}
        snapshots.append(look_once_freed(snapshots[-1], {"count": made, **most}, made, BATCH_FREED_S))
    caches_after = slabs()

    before_reading = meminfo()["SReclaimable"]
    readable = sum(1 for pid in pids if stat_or_none(pid))
    after_reading = meminfo()["SReclaimable"]

    reaped = 0
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
        reaped += 1
    return {
        "batch": options.batch,
        "batches": batches(snapshots),
        "snapshots": snapshots,
        "total": made,
        "reaped": reaped,
        "median_bytes": median([each["bytes_each"] for each in batches(snapshots)]),
        "caches": caches_that_grew(caches_before, caches_after, made),
        "living": {"count": options.living, "before": before_living, "alive": alive, "dead": dead},
        "observer": {"count": readable, "reclaimable_kib": after_reading - before_reading},
        "page_bytes": os.sysconf("SC_PAGESIZE"),
    }


def make_zombies(count: int) -> list[int]:
    """Children that have exited; for each the kernel was asked, without reaping it."""
    pids = [exit_at_once(EXIT_CODE) for _ in range(count)]
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pids


def leave_threads(count: int) -> None:
    """Threads of this process that live until it ends, and have kernel stacks as all that lives has."""
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def living_children(count: int) -> tuple[list[int], int]:
    """Children that wait for a pipe to close, and the end of the pipe that closes it."""
    reading, writing = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(EXIT_CODE)
        pids.append(pid)
    os.close(reading)
    return pids, writing


def look(count: int) -> dict[str, int]:
    """The kernel's own account of its memory, in KiB, after what was freed has really been freed.

    And of its tasks, zombies too: those that are none of ours, when they come or go, are in the account of memory as well.
    """
    for _ in range(2):
        wait_for_grace_period()  # (A kernel without such a call answers at once; then the pause must do.)
    time.sleep(SETTLE_S)
    write("/proc/sys/vm/stat_refresh", 1)
    kib = meminfo()
    return {"count": count, "tasks": tasks_in_kernel(), **{name: kib[name] for name in MEMINFO}}


def look_once_settled() -> dict[str, int]:
    """The account when two looks have seen the same: what the warm-up had is gone, and will not go during what is measured next."""
    seen = look(0)

    def settled() -> bool:
        nonlocal seen
        last, seen = seen, look(0)
        return all(seen[name] == last[name] for name in FREED)

    wait_until(settled, limit_s=FREED_S)
    return seen


def look_once_freed(before: Mapping[str, float], most: Mapping[str, float], count: int, limit_s: float) -> dict[str, int]:
    """The account when the stacks and page tables of the dead are gone, or have stayed for too long; ``looks`` says how often it looked.

    ``most`` is what the account would be if nothing of theirs were freed: they count as gone when an eighth of that is left.
    """
    seen: dict[str, int] = {}
    looks = 0

    def freed() -> bool:
        nonlocal seen, looks
        seen = look(count)
        looks += 1
        return all((seen[name] - before[name]) * 8 <= max(0, most[name] - before[name]) for name in FREED)

    wait_until(freed, limit_s=limit_s)
    return {**seen, "looks": looks}


def batches(snapshots: list[dict[str, int]]) -> list[dict[str, float | int]]:
    """What each batch added, for one zombie of it."""
    rows: list[dict[str, float | int]] = []
    for i, (before, after) in enumerate(itertools.pairwise(snapshots), start=1):
        count = after["count"] - before["count"]
        rows.append(
            {
                "batch": i,
                "bytes_each": round((after["SUnreclaim"] - before["SUnreclaim"]) * 1024 / count, 1),
                "stack_bytes_each": round((after["KernelStack"] - before["KernelStack"]) * 1024 / count, 1),
            }
        )
    return rows


def slabs() -> dict[str, dict[str, int]]:
    """Every cache of /proc/slabinfo: objects in use, size of one, objects a slab, pages a slab. None where the kernel has no such file."""
    found: dict[str, dict[str, int]] = {}
    if not os.path.exists("/proc/slabinfo"):
        return found
    for line in read("/proc/slabinfo").decode().splitlines()[2:]:
        left, _, _ = line.partition(" : tunables")
        name, active, _, size, objects_a_slab, pages_a_slab = left.split()
        found[name] = {
            "active": int(active),
            "object_bytes": int(size),
            "objects_a_slab": int(objects_a_slab),
            "pages_a_slab": int(pages_a_slab),
        }
    return found


def caches_that_grew(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], zombies: int) -> list[dict[str, object]]:
    """The caches that gained at least half an object a zombie, found by looking at all of them rather than by knowing their names."""
    grown = []
    for name, cache in after.items():
        gained = cache["active"] - before.get(name, {"active": 0})["active"]
        if gained * 2 >= zombies:
            sizes = {key: cache[key] for key in ("object_bytes", "objects_a_slab", "pages_a_slab")}
            grown.append({"name": name, "objects_gained": gained, **sizes})
    return sorted(grown, key=lambda cache: -int(str(cache["object_bytes"])))


def median(values: list[float | int]) -> float:
    """The middle value."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


if __name__ == "__main__":
    main()
