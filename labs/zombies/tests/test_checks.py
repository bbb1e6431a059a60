"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: a different world put in its place, numbers forged, observations cut.
`test_scripts.py` takes further controls from the guest scripts themselves.
"""

from __future__ import annotations

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, Sound, World, add, drop, put

SOUND = Sound.of(__file__)
CONTROLS = Controls(SOUND)


def test_every_check_passes_on_the_sound_set() -> None:
    assert set(SOUND.verdicts().values()) == {PASS}


def test_all_claims_are_covered_and_the_points_are_twenty() -> None:
    checks = SOUND.checks.values()
    assert {check.claim for check in checks} == set(SOUND.lab.definition.claims) == {f"Z{i}" for i in range(1, 9)}
    assert sum(check.points for check in checks) == 20


# --- controls: one broken thing each -----------------------------------------------------------------------------------------------

NAME = "an_unwaited_child_is_a_zombie"
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.state", "S"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.exit_code", 9))
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.starttime", 1))
CONTROLS.fails(NAME, put("anatomy.child.reaped.exists", True))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.stat.state", "Z"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.pid", 1))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.reaped.files", {}))


@CONTROLS.control(NAME)
def sigchld_ignored_in_anatomy(world: World) -> None:
    world["anatomy.child.zombie"] = world["anatomy.child.reaped"]


NAME = "its_status_can_be_read_without_reaping"
CONTROLS.fails(NAME, put("anatomy.child.peek_again.code", "killed"))
CONTROLS.fails(NAME, put("anatomy.child.reaping.raw_status", 9))
CONTROLS.fails(NAME, put("anatomy.child.reaping.errno", "ECHILD"))
CONTROLS.fails(NAME, put("anatomy.child.peek_after_reaping.errno", "EPERM"))
CONTROLS.fails(NAME, put("anatomy.child.after_sigkill.stat.state", "X"))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.peek.code", None))

NAME = "a_zombie_has_no_user_memory_and_no_files"
CONTROLS.fails(NAME, put("anatomy.child.zombie.stat.rss", 12))
CONTROLS.fails(NAME, add("anatomy.child.zombie.status.VmRSS", "48 kB"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.FDSize", "64"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.Uid", "1\t1\t1\t1"))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.maps.size", 800))
CONTROLS.fails(NAME, put("anatomy.child.zombie.files.exe.errno", None))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.stat.rss", 0))
CONTROLS.is_inconclusive(NAME, put("anatomy.child.alive.files.fd.size", 0))

NAME = "a_zombie_is_shown_as_Z"
CONTROLS.fails(NAME, put("anatomy.child.zombie.status.State", "S (sleeping)"))
CONTROLS.fails(NAME, put("anatomy.child.ps", {"line": "S    python3 anatomy.py"}))

NAME = "not_every_Z_is_a_zombie"
CONTROLS.fails(NAME, put("anatomy.leader.reapable", True))
CONTROLS.fails(NAME, put("anatomy.leader.state", "S"))
CONTROLS.fails(NAME, put("anatomy.leader.threads[1].state", "Z"))
CONTROLS.fails(NAME, put("anatomy.leader.raw_status_at_last", 0))
CONTROLS.is_inconclusive(NAME, put("anatomy.leader", {"observable": False, "why": "the number of the system call is not known"}))

NAME = "zombies_accumulate_one_a_fork"
CONTROLS.fails(NAME, put("accumulation.samples[3].zombies", 5))
CONTROLS.fails(NAME, put("accumulation.at_end", 3))
CONTROLS.fails(NAME, put("accumulation.peak", 10_000))
CONTROLS.is_inconclusive(NAME, put("accumulation.forked", 7))
CONTROLS.is_inconclusive(NAME, put("accumulation.samples[2].elapsed_s", 1e6))


@CONTROLS.control(NAME)
def the_parent_reaps_and_says_so(world: World) -> None:
    world["accumulation"] = world["reaping"]


@CONTROLS.control(NAME)
def the_parent_reaps_and_hides_it(world: World) -> None:
    world["accumulation"] = {**world["reaping"], "parent": "never"}


@CONTROLS.control(NAME)
def the_parent_ignores_sigchld(world: World) -> None:
    world["accumulation"] = {**world["ignored"], "parent": "never"}
    world.parameters["zombies"] = world.parameters["ignored"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def too_few_counts(world: World) -> None:
    del world["accumulation"]["samples"][3:]


@CONTROLS.control(NAME)
def twice_as_many_zombies(world: World) -> None:
    for sample in world["accumulation"]["samples"]:
        sample["zombies"] *= 2


NAME = "sigkill_removes_none"
CONTROLS.fails(NAME, put("accumulation.sigkill.left", 0))
CONTROLS.fails(NAME, put("accumulation.sigkill.same_process", 0))
CONTROLS.fails(NAME, put("accumulation.after_reaping.statuses", {"9": 200}))
CONTROLS.fails(NAME, put("accumulation.after_reaping.found", 4))
CONTROLS.fails(NAME, put("anatomy.child.after_sigkill.stat.exit_code", 9))
CONTROLS.is_inconclusive(NAME, put("accumulation.sigkill.accepted", 0))

NAME = "a_parent_that_reaps_has_none_left"
CONTROLS.fails(NAME, put("reaping.after_reaping.statuses", {}))
CONTROLS.is_inconclusive(NAME, put("reaping.parent", "never"))
CONTROLS.is_inconclusive(NAME, put("reaping.rate", 0.1))
CONTROLS.is_inconclusive(NAME, put("reaping.samples", []))


@CONTROLS.control(NAME)
def zombies_left_at_the_end(world: World) -> None:
    world["reaping"]["samples"][-1].update(zombies=5, reaped_before=0)


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def the_parent_never_waits_and_hides_it(world: World) -> None:
    """The zombies found contradict what the parent claims to have reaped."""
    waits, never = world["reaping"], world["accumulation"]
    for mine, other in zip(waits["samples"], never["samples"], strict=False):
        mine["zombies"] = other["zombies"]


@CONTROLS.control(NAME)
def the_parent_never_waits(world: World) -> None:
    world["reaping"] = {**world["accumulation"], "parent": "reap"}


NAME = "a_parent_that_ignores_sigchld_has_no_zombies"
CONTROLS.fails(NAME, put("ignored.samples[2].zombies", 1))
CONTROLS.fails(NAME, put("ignored.after_reaping.kernel_says_children_left", True))
CONTROLS.fails(NAME, put("ignored.samples[2].reaped_after", 9))
CONTROLS.is_inconclusive(NAME, put("ignored.parent", "never"))


@CONTROLS.control(NAME)
def it_does_not_ignore_it(world: World) -> None:
    world["ignored"] = {**world["accumulation"], "parent": "ignore"}
    world.parameters["ignored"] = world.parameters["zombies"]


NAME = "a_zombie_costs_kernel_memory"
CONTROLS.is_inconclusive(NAME, put("cost.median_bytes", 10.0))
CONTROLS.is_inconclusive(NAME, put("cost.batches[1].bytes_each", 10.0))
CONTROLS.is_inconclusive(NAME, put("cost.caches[0].objects_gained", 1))
CONTROLS.is_inconclusive(NAME, put("cost.caches", []))
CONTROLS.is_inconclusive(NAME, put("cost.snapshots[2].count", 0))


def with_costs(cost: World, each: list[float]) -> None:
    """A consistent set of numbers in which the batches cost this."""
    memory = cost["snapshots"][0]["SUnreclaim"]
    for batch, snapshot, bytes_each in zip(cost["batches"], cost["snapshots"][1:], each, strict=True):
        memory += round(bytes_each * cost["batch"] / 1024)
        snapshot["SUnreclaim"], batch["bytes_each"] = memory, round(bytes_each * cost["batch"] / 1024) * 1024 / cost["batch"]
    ordered = sorted(batch["bytes_each"] for batch in cost["batches"])
    cost["median_bytes"] = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


@CONTROLS.control(NAME)
def they_cost_nothing(world: World) -> None:
    with_costs(world["cost"], [0.0] * len(world["cost"]["batches"]))


@CONTROLS.control(NAME)
def no_task_struct_among_the_caches(world: World) -> None:
    world["cost"]["caches"] = [cache for cache in world["cost"]["caches"] if cache["name"] != "task_struct"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def the_batches_differ_too_much(world: World) -> None:
    count = len(world["cost"]["batches"])
    with_costs(world["cost"], [world["cost"]["median_bytes"] * (0.5 + i / count) for i in range(count)])


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def the_two_accounts_differ(world: World) -> None:
    with_costs(world["cost"], [2 * batch["bytes_each"] for batch in world["cost"]["batches"]])


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def other_tasks_come_meanwhile(world: World) -> None:
    cost = world["cost"]
    cost["snapshots"][-1]["tasks"] += cost["total"]


NAME = "its_kernel_stack_is_freed_at_death"


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def other_tasks_bring_their_stacks(world: World) -> None:
    cost = world["cost"]
    for i, snapshot in enumerate(cost["snapshots"]):
        snapshot["tasks"] += i * cost["batch"]
        snapshot["KernelStack"] += 16 * i * cost["batch"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def other_tasks_start_among_the_living(world: World) -> None:
    for name in ("alive", "dead"):
        world["cost"]["living"][name]["tasks"] += 10
        world["cost"]["living"][name]["KernelStack"] += 160


@CONTROLS.control(NAME)
def the_dead_keep_their_stacks(world: World) -> None:
    living = world["cost"]["living"]
    living["dead"]["KernelStack"] = living["alive"]["KernelStack"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def nothing_of_the_dead_is_freed_yet(world: World) -> None:
    living = world["cost"]["living"]
    for name in ("KernelStack", "PageTables"):
        living["dead"][name] = living["alive"][name]


@CONTROLS.control(NAME)
def the_zombies_keep_their_stacks(world: World) -> None:
    for snapshot in world["cost"]["snapshots"]:
        snapshot["KernelStack"] += 16 * snapshot["count"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def the_living_have_no_stacks(world: World) -> None:
    living = world["cost"]["living"]
    living["alive"]["KernelStack"] = living["before"]["KernelStack"]


NAME = "numbers_are_limited_and_threads_use_them"
CONTROLS.fails(NAME, put("limits.numbers.thread_has_proc_directory", False))
CONTROLS.is_inconclusive(NAME, put("limits.limits[0].limit", 12345))
CONTROLS.is_inconclusive(NAME, put("limits.numbers.tasks_with_thread", 1))


@CONTROLS.control(NAME)
def the_thread_has_the_number_of_its_process(world: World) -> None:
    world["limits"]["numbers"]["thread"] = world["limits"]["numbers"]["process"]


NAME = "another_limit_is_reached_first"
CONTROLS.is_inconclusive(NAME, put("limits.tightest", "nproc"))
CONTROLS.is_inconclusive(NAME, put("limits.room", 1))
CONTROLS.is_inconclusive(NAME, put("limits.limits", [{"name": "nproc", "limit": 5, "usage": 0}] * 4))


@CONTROLS.control(NAME)
def pid_max_is_the_tightest(world: World) -> None:
    limits = world["limits"]
    for each in limits["limits"]:
        each["limit"] = 400 if each["name"] == "pid_max" else 10**6
        each["usage"] = 100
    limits.update(tightest="pid_max", room=300)


NAME = "enough_zombies_stop_fork_with_eagain"
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.errno", None))
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.errno", "ENOMEM"))
CONTROLS.fails(NAME, put("exhaustion.worlds.threads_max.zombies", 0))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.living", 5))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.refused_again", 0))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds", {}))

NAME = "the_limit_that_bound_is_named"
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.usage", 3))
CONTROLS.fails(NAME, put("exhaustion.worlds.nproc.capabilities.sys_admin", True))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 0))
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.at_refusal.pids_max.refusals", 7))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.nproc.at_refusal.threads_max.limit", 1))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.threads_max.forks", 3))


@CONTROLS.control(NAME)
def it_was_another_limit(world: World) -> None:
    worlds = world["exhaustion"]["worlds"]
    worlds["pid_max"] = worlds["threads_max"]


NAME = "the_kernel_says_so_on_the_console"
CONTROLS.is_inconclusive(NAME, put("exhaustion.console", None))
CONTROLS.fails(NAME, put("exhaustion.console", "[ 1.0] cgroup: fork rejected by pids controller in /system.slice/ssh.service"))
CONTROLS.fails(NAME, put("exhaustion.guest_panicked", True))
CONTROLS.fails(NAME, put("exhaustion.guest_status", "paused"))

NAME = "forks_work_again_after_reaping"
CONTROLS.fails(NAME, put("exhaustion.worlds.pid_max.recovery.worked", 3))
CONTROLS.fails(NAME, put("exhaustion.worlds.pids_max.recovery.statuses", {}))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.threads_max.restored", False))
CONTROLS.is_inconclusive(NAME, put("exhaustion.worlds.pids_max.after_reaping.pids_max.limit", -1))

NAME = "killing_the_parent_clears_its_zombies"
CONTROLS.fails(NAME, put("orphans.left", 4))
CONTROLS.fails(NAME, put("orphans.parent_killed", False))
CONTROLS.fails(NAME, put("orphans.living_child[0].ppid", 77))
CONTROLS.fails(NAME, put("orphans.clear_after_s", 60.0))
CONTROLS.fails(NAME, put("orphans.living_child_left", 1))
CONTROLS.is_inconclusive(NAME, put("orphans.init.faults_of_the_zombies", 0))
CONTROLS.is_inconclusive(NAME, put("orphans.clear_after_s", None))


@CONTROLS.control(NAME)
def pid_1_did_not_wait_for_them(world: World) -> None:
    init = world["orphans"]["init"]
    init["faults_of_reaped_children_after"] = init["faults_of_reaped_children_before"]


NAME = "a_pid_1_that_does_not_reap_keeps_them"
CONTROLS.fails(NAME, put("namespaces.abandoned.samples[1].zombies", 0))
CONTROLS.fails(NAME, put("namespaces.never.zombies_at_end", 0))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.pid_inside", 40))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.adopted_alive", 0))


@CONTROLS.control(NAME)
def the_pid_1_reaps(world: World) -> None:
    world["namespaces"]["never"] = world["namespaces"]["reaps"]


@CONTROLS.control(NAME, kind=INCONCLUSIVE)
def not_watched_for_long(world: World) -> None:
    del world["namespaces"]["never"]["samples"][3:]


NAME = "reaping_or_the_end_of_pid_1_clears_them"
CONTROLS.fails(NAME, put("namespaces.never.left", 2))
CONTROLS.fails(NAME, put("namespaces.abandoned.left", 2))
CONTROLS.fails(NAME, put("namespaces.abandoned.init_alive", True))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.init_alive", False))
CONTROLS.is_inconclusive(NAME, put("namespaces.never.clear_after_s", 99.0))
CONTROLS.is_inconclusive(NAME, put("namespaces.reaps.adopted_alive", 0))


@CONTROLS.control(NAME)
def no_pid_1_reaps(world: World) -> None:
    world["namespaces"]["reaps"]["samples"] = world["namespaces"]["never"]["samples"]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", SOUND.names)
def test_every_check_is_seen_to_fail(check: str) -> None:
    CONTROLS.prove(check)


# --- nothing, and garbage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", SOUND.names)
def test_no_check_decides_anything_on_nothing(check: str) -> None:
    SOUND.hold_without_evidence(check)


@pytest.mark.parametrize("check", SOUND.names)
def test_garbage_anywhere_breaks_no_check(check: str) -> None:
    SOUND.hold_on_garbage(check)


def test_nothing_passes_without_evidence() -> None:
    empty = [drop(name) for name in SOUND.world().observations]
    null = [put(name, None) for name in SOUND.world().observations]
    assert set(SOUND.verdicts(*empty).values()) == set(SOUND.verdicts(*null).values()) == {INCONCLUSIVE}


def test_each_observation_is_read() -> None:
    assert not set(SOUND.unread()) & set(SOUND.world().observations)


def test_a_system_without_ps_passes_too() -> None:
    assert SOUND.verdict("a_zombie_is_shown_as_Z", put("anatomy.child.ps", None)).kind is PASS


def test_an_unsteady_machine_does_not_cost_a_point() -> None:
    """Under emulation on a busy host the forks come in bursts: then the line over time bends, and the count is still one a fork."""

    def bent(world: World) -> None:
        for i, sample in enumerate(world["accumulation.samples"]):
            sample["elapsed_s"] = 1.5**i

    assert SOUND.verdict("zombies_accumulate_one_a_fork", bent).kind is PASS
