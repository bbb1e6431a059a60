"""The controls of the checks about what zombies cost, and what limits processes. See `test_checks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, Sound, World, drop, put

SOUND = Sound.of(__file__)
CONTROLS = Controls(SOUND)
HERE = ("checks_cost", "checks_limits")
NAMES = [name for name in SOUND.names if Path(SOUND.check(name).function.__code__.co_filename).stem in HERE]

# --- cost -------------------------------------------------------------------------------------------------------------------------

NAME = "a_zombie_costs_kernel_memory"
CONTROLS.fails(NAME, put("cost.reaped", 379))
CONTROLS.is_inconclusive(NAME, put("cost.median_bytes", 10.0))
CONTROLS.is_inconclusive(NAME, put("cost.batches[1].bytes_each", 10.0))
CONTROLS.is_inconclusive(NAME, put("cost.batches[1].stack_bytes_each", 10_000.0))
CONTROLS.is_inconclusive(NAME, put("cost.batches[1].batch", 7))
CONTROLS.is_inconclusive(NAME, drop("cost.batches[5]"))
CONTROLS.is_inconclusive(NAME, put("cost.caches[0].objects_gained", 1))
CONTROLS.is_inconclusive(NAME, put("cost.caches", []))
CONTROLS.is_inconclusive(NAME, put("cost.snapshots[2].count", 0))
CONTROLS.is_inconclusive(NAME, put("cost.snapshots[-1].count", 301))
CONTROLS.is_inconclusive(NAME, put("parameters.batch", 49))
CONTROLS.is_inconclusive(NAME, put("parameters.batches", 7))


def with_costs(cost: World, each: list[float]) -> None:
    """A consistent set of numbers in which the batches cost this."""
    memory = cost["snapshots"][0]["SUnreclaim"]
    for batch, snapshot, bytes_each in zip(cost["batches"], cost["snapshots"][1:], each, strict=True):
        memory += round(bytes_each * cost["batch"] / 1024)
        snapshot["SUnreclaim"], batch["bytes_each"] = memory, round(round(bytes_each * cost["batch"] / 1024) * 1024 / cost["batch"], 1)
    ordered = sorted(batch["bytes_each"] for batch in cost["batches"])
    cost["median_bytes"] = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def costing(*each: float, slabs: tuple[int, int] = (2, 5), gained: int = 300) -> Callable[[World], None]:
    """Batches of so many bytes a zombie, and one kind of record: so many of 10,240 bytes in slabs of so many records and pages."""

    def change(world: World) -> None:
        cost = world["cost"]
        with_costs(cost, [*each] if len(each) > 1 else [*each] * len(cost["batches"]))
        sizes = {"object_bytes": 10_240, "objects_a_slab": slabs[0], "pages_a_slab": slabs[1]}
        cost["caches"] = [{"name": "task_struct", "objects_gained": gained, **sizes}]

    return change


# (Steps of one KiB for fifty zombies are steps of 20.48 bytes for one.)
CONTROLS.passes(NAME, costing(12_288), name="a fifth more than the slabs")
CONTROLS.is_inconclusive(NAME, costing(12_308), name="more than a fifth more than the slabs")
CONTROLS.passes(NAME, costing(8_192), name="a fifth less than the slabs")
CONTROLS.is_inconclusive(NAME, costing(8_172), name="more than a fifth less than the slabs")
CONTROLS.passes(NAME, costing(12_000, gained=345), name="1.15 task_structs a zombie")
CONTROLS.is_inconclusive(NAME, costing(12_000, gained=346), name="more than 1.15 task_structs a zombie")
CONTROLS.passes(NAME, costing(10_000, gained=255), name="0.85 task_structs a zombie")
CONTROLS.is_inconclusive(NAME, costing(10_000, gained=254), name="less than 0.85 task_structs a zombie")
CONTROLS.is_inconclusive(NAME, costing(10_240, slabs=(3, 5)), name="more records than fit into a slab")
CONTROLS.passes(NAME, costing(20_480, slabs=(1, 5)), name="half of the slab is empty")
CONTROLS.is_inconclusive(NAME, costing(24_576, slabs=(1, 6)), name="more than half of the slab is empty")
# (The quartiles of six, where the second is like the third and the fourth like the fifth, are just these.)
WITHIN, BEYOND = (10_240, 17_920, 17_920, 23_040, 23_040, 40_960), (10_240, 17_920, 17_920, 23_060.48, 23_060.48, 40_960)
CONTROLS.passes(NAME, costing(*WITHIN, slabs=(1, 5)), name="half of them within a quarter")
CONTROLS.is_inconclusive(NAME, costing(*BEYOND, slabs=(1, 5)), name="half of them not within a quarter")


@CONTROLS.control(NAME)
def they_cost_nothing(world: World) -> None:
    costing(0)(world)
    world["cost.caches"] = [{"name": "kmalloc-8", "objects_gained": 200, **in_a_page(8)}]


def weighed(batches: int, batch: int, kib: int, *kinds: tuple[int, int]) -> Callable[[World], None]:
    """So many batches of so many zombies, which cost so many KiB each, and so many records of so many bytes, of a task_struct first.

    (No page is wasted on the records.)
    """

    def change(world: World) -> None:
        cost, total = world["cost"], batches * batch
        world.parameters.update(batches=batches, batch=batch)
        cost.update(batch=batch, total=total, reaped=total + batch + cost["living"]["count"])
        first = cost["snapshots"][0]
        cost["snapshots"] = [
            {**first, "looks": 1, "count": i * batch, "tasks": 100 + i * batch, "SUnreclaim": 10_000 + i * kib} for i in range(batches + 1)
        ]
        each = round(kib * 1024 / max(1, batch), 1)
        rows = {"bytes_each": each, "stack_bytes_each": 0.0}
        cost.update(batches=[{"batch": i + 1, **rows} for i in range(batches)], median_bytes=each)
        cost["caches"] = [
            {"name": "task_struct" if i == 0 else f"kmalloc-{i}", "objects_gained": gained, **in_a_page(size)}
            for i, (gained, size) in enumerate(kinds)
        ]

    return change


def in_a_page(size: int) -> dict[str, int]:
    """Slabs of one page, full of records of this size."""
    return {"object_bytes": size, "objects_a_slab": 4096 // size, "pages_a_slab": 1}


CONTROLS.fails(NAME, weighed(6, 50, 49, (300, 512)), name="less than a KiB by both accounts")
CONTROLS.is_inconclusive(NAME, weighed(6, 50, 50, (300, 512)), name="a KiB by one account")
CONTROLS.passes(NAME, weighed(6, 50, 49, (300, 1024)), name="a KiB by the other account")
CONTROLS.fails(NAME, weighed(6, 1100, 1099, (6600, 512)), name="a byte less than a KiB")
CONTROLS.is_inconclusive(NAME, weighed(6, 50, 0, (300, 2048)), name="the slabs grew, and no memory was used")
CONTROLS.passes(NAME, weighed(5, 50, 100, (250, 2048)), name="five batches")
CONTROLS.is_inconclusive(NAME, weighed(4, 50, 100, (200, 2048)), name="four batches")
CONTROLS.is_inconclusive(NAME, weighed(6, 0, 100, (300, 2048)), name="batches of none")
CONTROLS.is_inconclusive(NAME, put("cost.page_bytes", 0))


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def a_batch_more_is_told_of_than_was_weighed(world: World) -> None:
    weighed(6, 50, 100, (300, 2048))(world)
    world.parameters["batches"] = 7
    world["cost"].update(total=350, reaped=430)


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def no_zombie_came_in_a_batch(world: World) -> None:
    weighed(6, 50, 100, (300, 2048))(world)
    world["cost.snapshots[2]"]["count"] = 50


@CONTROLS.control(NAME, kind=PASS)
def some_stacks_stay(world: World) -> None:
    """Three KiB for fifty zombies are 61.44 bytes for one, of which the script tells a tenth."""
    weighed(6, 50, 100, (300, 2048))(world)
    for i, snapshot in enumerate(world["cost.snapshots"]):
        snapshot["KernelStack"] = 1000 + 3 * i
    for row in world["cost.batches"]:
        row["stack_bytes_each"] = 61.4


def eighth(more: int) -> Callable[[World], None]:
    """An eighth of 304 is just 38."""

    def change(world: World) -> None:
        weighed(8, 38, 76, (304, 2048))(world)
        world["cost.snapshots[-1]"]["tasks"] += 38 + more

    return change


CONTROLS.passes(NAME, eighth(0), name="just an eighth of strangers")
CONTROLS.is_inconclusive(NAME, eighth(1), name="one more than an eighth of strangers")


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def no_task_struct_among_the_caches(world: World) -> None:
    """On a kernel that merges caches the name may be another."""
    world["cost"]["caches"] = [cache for cache in world["cost"]["caches"] if cache["name"] != "task_struct"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def each_record_has_one_byte(world: World) -> None:
    for cache in world["cost.caches"]:
        cache["object_bytes"] = 1


def strangers(count: int) -> Callable[[World], None]:
    def come(world: World) -> None:
        for snapshot in world["cost.snapshots"]:
            snapshot["tasks"] = 100 + snapshot["count"]
        world["cost.snapshots[-1]"]["tasks"] += count

    return come


CONTROLS.passes(NAME, strangers(37), name="an eighth of strangers")
CONTROLS.is_inconclusive(NAME, strangers(38), name="more than an eighth of strangers")

NAME = "its_kernel_stack_is_freed_at_death"
CONTROLS.is_inconclusive(NAME, strangers(38), name="more than an eighth of strangers")


Kib = tuple[int, int, int]
"""In KernelStack, VmallocUsed and PageTables."""


def stack_of(living: Kib = (480, 600, 2160), dead: Kib = (0, 0, 0), batch: Kib = (0, 0, 0), count: int = 30) -> Callable[[World], None]:
    """What thirty living children, or so many, the same when dead, and each batch of fifty zombies add to the three accounts, in KiB."""

    def change(world: World) -> None:
        cost = world["cost"]
        for i, name in enumerate(("KernelStack", "VmallocUsed", "PageTables")):
            for state, more in (("before", 0), ("alive", living[i]), ("dead", dead[i])):
                cost["living"][state][name] = 5000 + more
            for number, snapshot in enumerate(cost["snapshots"]):
                snapshot[name] = 5000 + number * batch[i]
        cost["living"]["count"] = count
        for state, made in (("before", 0), ("alive", count), ("dead", count)):
            cost["living"][state].update(count=made, tasks=100 + made)
        for snapshot in cost["snapshots"]:
            snapshot["tasks"] = 100 + snapshot["count"]

    return change


def looked(dead: int, batches: int) -> Callable[[World], None]:
    """How often it was looked whether the stacks had gone."""

    def change(world: World) -> None:
        world["cost.living.dead"]["looks"] = dead
        for snapshot in world["cost.snapshots"][1:]:
            snapshot["looks"] = batches

    return change


OFTEN = looked(5, 5)
SELDOM = looked(4, 4)
CONTROLS.passes(NAME, stack_of())
# An eighth of 480 KiB for thirty is 100 KiB for fifty.
for account, place, share, batch in (("the stack", 0, 60, 100), ("VmallocUsed", 1, 75, 125), ("page tables", 2, 270, 450)):

    def one(more: int, place: int = place) -> tuple[int, int, int]:
        """So much more in this account, and nothing more in the others."""
        return (more if place == 0 else 0, more if place == 1 else 0, more if place == 2 else 0)

    CONTROLS.passes(NAME, stack_of(dead=one(share)), name=f"an eighth of {account} after death")
    CONTROLS.passes(NAME, stack_of(batch=one(batch)), name=f"an eighth of {account} in the batches")
    both = stack_of(dead=one(share + 1), batch=one(batch + 1))
    CONTROLS.fails(NAME, both, OFTEN, name=f"more than an eighth of {account}")
    CONTROLS.is_inconclusive(NAME, both, SELDOM, name=f"more than an eighth of {account}, seldom looked for")
    kind = CONTROLS.is_inconclusive if account == "VmallocUsed" else CONTROLS.fails
    kind(NAME, stack_of(dead=one(share + 1)), OFTEN, name=f"more than an eighth of {account} after death")
    kind(NAME, stack_of(batch=one(batch + 1)), OFTEN, name=f"more than an eighth of {account} in the batches")
AFTER_DEATH, IN_BATCHES = stack_of(dead=(61, 0, 0)), stack_of(batch=(101, 0, 0))
CONTROLS.fails(NAME, AFTER_DEATH, looked(5, 1), name="after death, and the batches were clean at once")
CONTROLS.is_inconclusive(NAME, AFTER_DEATH, looked(4, 9), name="after death, seldom looked for")
CONTROLS.fails(NAME, IN_BATCHES, looked(1, 5), name="in the batches, and the dead were clean at once")
CONTROLS.is_inconclusive(NAME, IN_BATCHES, looked(9, 4), name="in the batches, seldom looked for")
CONTROLS.fails(NAME, stack_of(dead=(61, 0, 0), batch=(100, 0, 0)), looked(5, 1), name="after death, and an eighth in the batches")
CONTROLS.fails(NAME, stack_of(dead=(61, 76, 0)), OFTEN, name="both accounts of the stack after death")
CONTROLS.passes(NAME, stack_of(living=(120, 600, 2160)), name="a stack of a page")
CONTROLS.is_inconclusive(NAME, stack_of(living=(119, 600, 2160)), name="a stack of less than a page")
CONTROLS.passes(NAME, stack_of(living=(480, 600, 120)), name="page tables of a page")
CONTROLS.is_inconclusive(NAME, stack_of(living=(480, 600, 119)), name="page tables of less than a page")
CONTROLS.passes(NAME, stack_of(living=(480, 60, 2160)), name="an eighth of the stacks in VmallocUsed")
CONTROLS.is_not_observable(NAME, stack_of(living=(480, 59, 2160)), name="a kernel whose stacks are not in VmallocUsed")


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def one_batch_of_six_was_seldom_looked_for(world: World) -> None:
    stack_of(batch=(101, 0, 0))(world)
    looked(1, 5)(world)
    world["cost.snapshots[3]"]["looks"] = 4


@CONTROLS.control(NAME)
def a_batch_that_was_clean_needs_no_more_looks(world: World) -> None:
    stack_of(batch=(101, 0, 0))(world)
    looked(1, 5)(world)
    for snapshot in world["cost.snapshots"][6:]:
        snapshot["KernelStack"] -= 101
        snapshot["looks"] = 1


@CONTROLS.control(NAME)
def the_stack_is_counted_as_gone_and_never_freed(world: World) -> None:
    """As in a kernel that loses every stack: KernelStack falls in do_exit all the same (since 5.18). (Made, not measured.)"""
    stack_of(dead=(0, 600, 0), batch=(0, 1000, 0))(world)
    OFTEN(world)


def more_tasks(more: int, count: int = 30) -> Callable[[World], None]:
    def change(world: World) -> None:
        stack_of(count=count)(world)
        world["cost.living.alive"]["tasks"] += more

    return change


CONTROLS.passes(NAME, more_tasks(3), name="a tenth of strangers among the living")
CONTROLS.is_inconclusive(NAME, more_tasks(4), name="more than an eighth of strangers among the living")
CONTROLS.passes(NAME, more_tasks(4, count=32), name="just an eighth of strangers among the living")
CONTROLS.passes(NAME, strangers(38), put("cost.total", 304), name="just an eighth of strangers")
CONTROLS.passes(NAME, stack_of(living=(16, 20, 72), count=1), name="one living child")
CONTROLS.is_inconclusive(NAME, stack_of(count=0), name="no living child")
CONTROLS.is_inconclusive(NAME, stack_of(living=(7999, 9000, 9000), count=2000), name="a byte less than a page")


def batches_of(*counts: int) -> Callable[[World], None]:
    """So many zombies at each snapshot."""

    def change(world: World) -> None:
        stack_of()(world)
        first = world["cost.snapshots[1]"]
        world["cost"]["snapshots"] = [{**first, "count": count, "tasks": 100 + count} for count in counts]

    return change


CONTROLS.passes(NAME, batches_of(0, 50), name="one batch")
CONTROLS.passes(NAME, batches_of(0, 1), name="one batch of one")
CONTROLS.is_inconclusive(NAME, batches_of(0), name="no batch")
CONTROLS.is_inconclusive(NAME, batches_of(0, 50, 50), name="a batch of none")

# --- limits -----------------------------------------------------------------------------------------------------------------------

NAME = "numbers_are_limited_and_threads_use_them"
CONTROLS.fails(NAME, put("limits.numbers.thread_has_proc_directory", False))
CONTROLS.is_inconclusive(NAME, put("limits.limits[0].limit", 12345))
CONTROLS.is_inconclusive(NAME, put("limits.numbers.tasks_with_thread", 1))
CONTROLS.is_inconclusive(NAME, put("limits.pid_max_set_by", None))
CONTROLS.is_inconclusive(NAME, put("limits.pid_max_set_by", "nobody"))


def tasks_by_the_thread(count: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        numbers = world["limits.numbers"]
        numbers["tasks_with_thread"] = numbers["tasks_before"] + count

    return change


CONTROLS.passes(NAME, tasks_by_the_thread(2), name="another task came meanwhile")
CONTROLS.is_inconclusive(NAME, tasks_by_the_thread(0), name="another task ended meanwhile")


def system(cpus: int, pid_max: int, set_by: str | None) -> tuple[Callable[[World], None], ...]:
    """A system of so many possible CPUs. (Made, not measured: the lab's guest has one.)"""
    return (put("limits.cpus_possible", cpus), put("limits.limits[0].limit", pid_max), put("limits.pid_max_set_by", set_by))


CONTROLS.passes(NAME, *system(4, 32768, None), name="four CPUs, without systemd's file")
CONTROLS.passes(NAME, *system(32, 32768, None), name="32 CPUs, without systemd's file")
CONTROLS.passes(NAME, *system(33, 33792, None), name="33 CPUs, without systemd's file")
CONTROLS.passes(NAME, *system(64, 65536, None), name="64 CPUs, without systemd's file")
CONTROLS.passes(NAME, *system(4096, 4194304, None), name="4096 CPUs, without systemd's file")
CONTROLS.passes(NAME, *system(64, 4194304, "/usr/lib/sysctl.d/50-pid-max.conf"), name="64 CPUs, with systemd's file")
CONTROLS.is_inconclusive(NAME, *system(64, 32768, None), name="64 CPUs, and the default of 32")


@CONTROLS.control(NAME)
def the_thread_has_the_number_of_its_process(world: World) -> None:
    world["limits"]["numbers"]["thread"] = world["limits"]["numbers"]["process"]


NAME = "another_limit_is_reached_first"
CONTROLS.is_inconclusive(NAME, put("limits.tightest", "nproc"))
CONTROLS.is_inconclusive(NAME, put("limits.room", 1))
CONTROLS.is_inconclusive(NAME, put("limits.limits", [{"name": "nproc", "limit": 5, "usage": 0}] * 4))
CONTROLS.is_inconclusive(NAME, put("limits.cgroup", "/system.slice/another.service"))
CONTROLS.is_inconclusive(NAME, put("limits.cgroup", "/"))


def without(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world["limits"]["limits"] = [each for each in world["limits"]["limits"] if each["name"] != name]

    return change


for name in ("pid_max", "threads_max", "pids_max", "nproc"):
    CONTROLS.is_inconclusive(NAME, without(name), name=f"{name} is not listed")


def limited(pid_max: int, others: int, *, memory_kib: int = 990_140, nproc: int | None = None) -> Callable[[World], None]:
    """Room for so many below pid_max, and so many below every other limit; with ``nproc``, the script is not run by the superuser."""

    def change(world: World) -> None:
        limits = world["limits"]
        for each in limits["limits"]:
            each.update(usage=300, limit=300 + (pid_max if each["name"] == "pid_max" else others))
            if each["name"] == "nproc" and nproc is not None:
                each.update(exempt=False, limit=300 + nproc)
        rooms = {"pid_max": pid_max, "threads_max": others, **({"nproc": nproc} if nproc is not None else {})}
        tightest = min(rooms, key=lambda name: rooms[name])
        limits.update(tightest=tightest, room=rooms[tightest], memory_kib=memory_kib)

    return change


CONTROLS.fails(NAME, limited(32_467, 32_468), name="pid_max is the tightest")
CONTROLS.passes(NAME, limited(32_468, 32_467), name="threads-max is the tightest")
CONTROLS.passes(NAME, limited(32_468, 40_000, nproc=1000), name="nproc is the tightest, for a user who is not exempt")
CONTROLS.fails(NAME, limited(32_468, 40_000, memory_kib=128 * 32_767 + 127), name="memory for a thread less than pid_max")
CONTROLS.is_not_observable(NAME, limited(32_468, 40_000, memory_kib=128 * 32_768), name="memory for more threads than pid_max")


def binding(limits: dict[str, int], tightest: str, room: int) -> Callable[[World], None]:
    """Limits by name, -1 for none, of which nothing is used yet."""

    def change(world: World) -> None:
        for each in world["limits"]["limits"]:
            if each["name"] in limits:
                each.update(limit=limits[each["name"]], usage=0)
        world["limits"].update(tightest=tightest, room=room)

    return change


CONTROLS.passes(NAME, put("limits.limits[-1].limit", 67), name="nproc is low, and the superuser exempt")
CONTROLS.passes(NAME, binding({"pids_max": 0}, "pids_max", 0), name="a control group that may have no process")
CONTROLS.passes(
    NAME, binding({"pids_max": -1, "threads_max": 7_000}, "threads_max", 7_000), name="a system without limits of control groups"
)


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", NAMES)
def test_every_check_is_seen_to_fail(check: str) -> None:
    CONTROLS.prove(check)
