"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: a different world put in its place, numbers forged, observations cut.
`test_scripts.py` takes further controls from the guest scripts themselves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vmlab.lab import Check, Evidence, Record, VerdictKind, judge, read_lab

LAB = Path(__file__).resolve().parents[1]
CHECKS = read_lab(LAB).load_checks()
SOUND = json.loads((LAB / "tests" / "sound.json").read_text())
FAIL, INCONCLUSIVE, PASS = VerdictKind.FAIL, VerdictKind.INCONCLUSIVE, VerdictKind.PASS

World = dict[str, Any]


def verdicts(observations: World, parameters: World | None = None) -> dict[str, VerdictKind]:
    evidence = Evidence(observations, SOUND["parameters"] if parameters is None else parameters)
    return {judgement.check.id: judgement.verdict.kind for judgement in judge(CHECKS, evidence)}


def alone(name: str, observations: World, parameters: World) -> VerdictKind:
    """The verdict of one check, whatever those it rests on conclude."""
    found = next(check for check in CHECKS if check.id == name)
    single = Check(found.id, found.title, found.points, found.claim, (), found.function)
    return judge([single], Evidence(observations, parameters))[0].verdict.kind


def test_every_check_passes_on_the_sound_set() -> None:
    assert {name: kind for name, kind in verdicts(SOUND["observations"]).items() if kind is not PASS} == {}


def test_all_claims_are_covered_and_the_points_are_twenty() -> None:
    definition = read_lab(LAB).definition
    assert {check.claim for check in CHECKS} == set(definition.claims) == {f"Z{i}" for i in range(1, 9)}
    assert sum(check.points for check in CHECKS) == 20


# --- controls: one broken thing each -----------------------------------------------------------------------------------------------

Breakage = Callable[[World, World], None]
CONTROLS: list[tuple[str, str, VerdictKind, Breakage]] = []


def control(check: str, kind: VerdictKind) -> Callable[[Breakage], Breakage]:
    def add(breakage: Breakage) -> Breakage:
        CONTROLS.append((check, breakage.__name__, kind, breakage))
        return breakage

    return add


def place(world: World, path: str) -> Any:
    for part in path.split("."):
        world = world[int(part)] if isinstance(world, list) else world[part]
    return world


def setting(check: str, kind: VerdictKind, path: str, value: Any) -> None:
    """A control that sets one value: for what needs no explanation."""
    holder, _, key = path.rpartition(".")

    def breakage(observations: World, parameters: World) -> None:
        place(observations, holder)[key] = value

    CONTROLS.append((check, f"{path} = {json.dumps(value)[:30]}", kind, breakage))


NAME = "an_unwaited_child_is_a_zombie"
setting(NAME, FAIL, "anatomy.child.zombie.stat.state", "S")
setting(NAME, FAIL, "anatomy.child.zombie.stat.exit_code", 9)
setting(NAME, FAIL, "anatomy.child.zombie.stat.starttime", 1)
setting(NAME, FAIL, "anatomy.child.reaped.exists", True)
setting(NAME, INCONCLUSIVE, "anatomy.child.alive.stat.state", "Z")
setting(NAME, INCONCLUSIVE, "anatomy.child.pid", 1)
setting(NAME, INCONCLUSIVE, "anatomy.child.reaped.files", {})


@control(NAME, FAIL)
def sigchld_ignored_in_anatomy(observations: World, parameters: World) -> None:
    observations["anatomy"]["child"]["zombie"] = copy.deepcopy(observations["anatomy"]["child"]["reaped"])


NAME = "its_status_can_be_read_without_reaping"
setting(NAME, FAIL, "anatomy.child.peek_again.code", "killed")
setting(NAME, FAIL, "anatomy.child.reaping.raw_status", 9)
setting(NAME, FAIL, "anatomy.child.reaping.errno", "ECHILD")
setting(NAME, FAIL, "anatomy.child.peek_after_reaping.errno", "EPERM")
setting(NAME, FAIL, "anatomy.child.after_sigkill.stat.state", "X")
setting(NAME, INCONCLUSIVE, "anatomy.child.peek.code", None)

NAME = "a_zombie_has_no_user_memory_and_no_files"
setting(NAME, FAIL, "anatomy.child.zombie.stat.rss", 12)
setting(NAME, FAIL, "anatomy.child.zombie.status.VmRSS", "48 kB")
setting(NAME, FAIL, "anatomy.child.zombie.status.FDSize", "64")
setting(NAME, FAIL, "anatomy.child.zombie.status.Uid", "1\t1\t1\t1")
setting(NAME, FAIL, "anatomy.child.zombie.files.maps.size", 800)
setting(NAME, FAIL, "anatomy.child.zombie.files.exe.errno", None)
setting(NAME, INCONCLUSIVE, "anatomy.child.alive.stat.rss", 0)
setting(NAME, INCONCLUSIVE, "anatomy.child.alive.files.fd.size", 0)

NAME = "a_zombie_is_shown_as_Z"
setting(NAME, FAIL, "anatomy.child.zombie.status.State", "S (sleeping)")
setting(NAME, FAIL, "anatomy.child.ps", {"line": "S    python3 anatomy.py"})

NAME = "not_every_Z_is_a_zombie"
setting(NAME, FAIL, "anatomy.leader.reapable", True)
setting(NAME, FAIL, "anatomy.leader.state", "S")
setting(NAME, FAIL, "anatomy.leader.threads.1.state", "Z")
setting(NAME, FAIL, "anatomy.leader.raw_status_at_last", 0)
setting(NAME, INCONCLUSIVE, "anatomy.leader", {"observable": False, "why": "the number of the system call is not known"})

NAME = "zombies_accumulate_one_a_fork"
setting(NAME, FAIL, "accumulation.samples.3.zombies", 5)
setting(NAME, FAIL, "accumulation.at_end", 3)
setting(NAME, FAIL, "accumulation.peak", 10_000)
setting(NAME, INCONCLUSIVE, "accumulation.forked", 7)
setting(NAME, INCONCLUSIVE, "accumulation.samples.2.elapsed_s", 1e6)


@control(NAME, FAIL)
def the_parent_reaps_and_says_so(observations: World, parameters: World) -> None:
    observations["accumulation"] = observations["reaping"]


@control(NAME, FAIL)
def the_parent_reaps_and_hides_it(observations: World, parameters: World) -> None:
    observations["accumulation"] = {**observations["reaping"], "parent": "never"}


@control(NAME, FAIL)
def the_parent_ignores_sigchld(observations: World, parameters: World) -> None:
    observations["accumulation"] = {**observations["ignored"], "parent": "never"}
    parameters["zombies"] = parameters["ignored"]


@control(NAME, INCONCLUSIVE)
def too_few_counts(observations: World, parameters: World) -> None:
    del observations["accumulation"]["samples"][3:]


@control(NAME, FAIL)
def twice_as_many_zombies(observations: World, parameters: World) -> None:
    for sample in observations["accumulation"]["samples"]:
        sample["zombies"] *= 2


NAME = "sigkill_removes_none"
setting(NAME, FAIL, "accumulation.sigkill.left", 0)
setting(NAME, FAIL, "accumulation.sigkill.same_process", 0)
setting(NAME, FAIL, "accumulation.after_reaping.statuses", {"9": 200})
setting(NAME, FAIL, "accumulation.after_reaping.found", 4)
setting(NAME, FAIL, "anatomy.child.after_sigkill.stat.exit_code", 9)
setting(NAME, INCONCLUSIVE, "accumulation.sigkill.accepted", 0)

NAME = "a_parent_that_reaps_has_none_left"
setting(NAME, FAIL, "reaping.after_reaping.statuses", {})
setting(NAME, INCONCLUSIVE, "reaping.parent", "never")
setting(NAME, INCONCLUSIVE, "reaping.rate", 0.1)
setting(NAME, INCONCLUSIVE, "reaping.samples", [])


@control(NAME, FAIL)
def zombies_left_at_the_end(observations: World, parameters: World) -> None:
    observations["reaping"]["samples"][-1].update(zombies=5, reaped_before=0)


@control(NAME, INCONCLUSIVE)
def the_parent_never_waits_and_hides_it(observations: World, parameters: World) -> None:
    """The zombies found contradict what the parent claims to have reaped."""
    waits, never = observations["reaping"], observations["accumulation"]
    for mine, other in zip(waits["samples"], never["samples"], strict=False):
        mine["zombies"] = other["zombies"]


@control(NAME, FAIL)
def the_parent_never_waits(observations: World, parameters: World) -> None:
    observations["reaping"] = {**observations["accumulation"], "parent": "reap"}


NAME = "a_parent_that_ignores_sigchld_has_no_zombies"
setting(NAME, FAIL, "ignored.samples.2.zombies", 1)
setting(NAME, FAIL, "ignored.after_reaping.kernel_says_children_left", True)
setting(NAME, FAIL, "ignored.samples.2.reaped_after", 9)
setting(NAME, INCONCLUSIVE, "ignored.parent", "never")


@control(NAME, FAIL)
def it_does_not_ignore_it(observations: World, parameters: World) -> None:
    observations["ignored"] = {**observations["accumulation"], "parent": "ignore"}
    parameters["ignored"] = parameters["zombies"]


NAME = "a_zombie_costs_kernel_memory"
setting(NAME, INCONCLUSIVE, "cost.median_bytes", 10.0)
setting(NAME, INCONCLUSIVE, "cost.batches.1.bytes_each", 10.0)
setting(NAME, INCONCLUSIVE, "cost.caches.0.objects_gained", 1)
setting(NAME, INCONCLUSIVE, "cost.caches", [])
setting(NAME, INCONCLUSIVE, "cost.snapshots.2.count", 0)


def with_costs(cost: World, each: list[float]) -> None:
    """A consistent set of numbers in which the batches cost this."""
    memory = cost["snapshots"][0]["SUnreclaim"]
    for batch, snapshot, bytes_each in zip(cost["batches"], cost["snapshots"][1:], each, strict=True):
        memory += round(bytes_each * cost["batch"] / 1024)
        snapshot["SUnreclaim"], batch["bytes_each"] = memory, round(bytes_each * cost["batch"] / 1024) * 1024 / cost["batch"]
    ordered = sorted(batch["bytes_each"] for batch in cost["batches"])
    cost["median_bytes"] = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


@control(NAME, FAIL)
def they_cost_nothing(observations: World, parameters: World) -> None:
    with_costs(observations["cost"], [0.0] * len(observations["cost"]["batches"]))


@control(NAME, FAIL)
def no_task_struct_among_the_caches(observations: World, parameters: World) -> None:
    observations["cost"]["caches"] = [cache for cache in observations["cost"]["caches"] if cache["name"] != "task_struct"]


@control(NAME, INCONCLUSIVE)
def the_batches_differ_too_much(observations: World, parameters: World) -> None:
    count = len(observations["cost"]["batches"])
    with_costs(observations["cost"], [observations["cost"]["median_bytes"] * (0.5 + i / count) for i in range(count)])


@control(NAME, INCONCLUSIVE)
def the_two_accounts_differ(observations: World, parameters: World) -> None:
    with_costs(observations["cost"], [2 * batch["bytes_each"] for batch in observations["cost"]["batches"]])


@control(NAME, INCONCLUSIVE)
def other_tasks_come_meanwhile(observations: World, parameters: World) -> None:
    cost = observations["cost"]
    cost["snapshots"][-1]["tasks"] += cost["total"]


NAME = "its_kernel_stack_is_freed_at_death"


@control(NAME, INCONCLUSIVE)
def other_tasks_bring_their_stacks(observations: World, parameters: World) -> None:
    cost = observations["cost"]
    for i, snapshot in enumerate(cost["snapshots"]):
        snapshot["tasks"] += i * cost["batch"]
        snapshot["KernelStack"] += 16 * i * cost["batch"]


@control(NAME, INCONCLUSIVE)
def other_tasks_start_among_the_living(observations: World, parameters: World) -> None:
    for name in ("alive", "dead"):
        observations["cost"]["living"][name]["tasks"] += 10
        observations["cost"]["living"][name]["KernelStack"] += 160


@control(NAME, FAIL)
def the_dead_keep_their_stacks(observations: World, parameters: World) -> None:
    living = observations["cost"]["living"]
    living["dead"]["KernelStack"] = living["alive"]["KernelStack"]


@control(NAME, INCONCLUSIVE)
def nothing_of_the_dead_is_freed_yet(observations: World, parameters: World) -> None:
    living = observations["cost"]["living"]
    for name in ("KernelStack", "PageTables"):
        living["dead"][name] = living["alive"][name]


@control(NAME, FAIL)
def the_zombies_keep_their_stacks(observations: World, parameters: World) -> None:
    for snapshot in observations["cost"]["snapshots"]:
        snapshot["KernelStack"] += 16 * snapshot["count"]


@control(NAME, INCONCLUSIVE)
def the_living_have_no_stacks(observations: World, parameters: World) -> None:
    living = observations["cost"]["living"]
    living["alive"]["KernelStack"] = living["before"]["KernelStack"]


NAME = "numbers_are_limited_and_threads_use_them"
setting(NAME, FAIL, "limits.numbers.thread_has_proc_directory", False)
setting(NAME, INCONCLUSIVE, "limits.limits.0.limit", 12345)
setting(NAME, INCONCLUSIVE, "limits.numbers.tasks_with_thread", 1)


@control(NAME, FAIL)
def the_thread_has_the_number_of_its_process(observations: World, parameters: World) -> None:
    observations["limits"]["numbers"]["thread"] = observations["limits"]["numbers"]["process"]


NAME = "another_limit_is_reached_first"
setting(NAME, INCONCLUSIVE, "limits.tightest", "nproc")
setting(NAME, INCONCLUSIVE, "limits.room", 1)
setting(NAME, INCONCLUSIVE, "limits.limits", [{"name": "nproc", "limit": 5, "usage": 0}] * 4)


@control(NAME, FAIL)
def pid_max_is_the_tightest(observations: World, parameters: World) -> None:
    limits = observations["limits"]
    for each in limits["limits"]:
        each["limit"] = 400 if each["name"] == "pid_max" else 10**6
        each["usage"] = 100
    limits.update(tightest="pid_max", room=300)


NAME = "enough_zombies_stop_fork_with_eagain"
setting(NAME, FAIL, "exhaustion.worlds.nproc.errno", None)
setting(NAME, FAIL, "exhaustion.worlds.pid_max.errno", "ENOMEM")
setting(NAME, FAIL, "exhaustion.worlds.threads_max.zombies", 0)
setting(NAME, FAIL, "exhaustion.worlds.pids_max.living", 5)
setting(NAME, INCONCLUSIVE, "exhaustion.worlds.pids_max.refused_again", 0)
setting(NAME, INCONCLUSIVE, "exhaustion.worlds", {})

NAME = "the_limit_that_bound_is_named"
setting(NAME, FAIL, "exhaustion.worlds.pids_max.at_refusal.pids_max.usage", 3)
setting(NAME, FAIL, "exhaustion.worlds.nproc.capabilities.sys_admin", True)
setting(NAME, FAIL, "exhaustion.worlds.pids_max.at_refusal.pids_max.refusals", 0)
setting(NAME, FAIL, "exhaustion.worlds.pid_max.at_refusal.pids_max.refusals", 7)
setting(NAME, INCONCLUSIVE, "exhaustion.worlds.nproc.at_refusal.threads_max.limit", 1)
setting(NAME, INCONCLUSIVE, "exhaustion.worlds.threads_max.forks", 3)


@control(NAME, FAIL)
def it_was_another_limit(observations: World, parameters: World) -> None:
    worlds = observations["exhaustion"]["worlds"]
    worlds["pid_max"] = worlds["threads_max"]


NAME = "the_kernel_says_so_on_the_console"
setting(NAME, INCONCLUSIVE, "exhaustion.console", None)
setting(NAME, FAIL, "exhaustion.console", "[ 1.0] cgroup: fork rejected by pids controller in /system.slice/ssh.service")
setting(NAME, FAIL, "exhaustion.guest_panicked", True)
setting(NAME, FAIL, "exhaustion.guest_status", "paused")

NAME = "forks_work_again_after_reaping"
setting(NAME, FAIL, "exhaustion.worlds.pid_max.recovery.worked", 3)
setting(NAME, FAIL, "exhaustion.worlds.pids_max.recovery.statuses", {})
setting(NAME, INCONCLUSIVE, "exhaustion.worlds.threads_max.restored", False)
setting(NAME, INCONCLUSIVE, "exhaustion.worlds.pids_max.after_reaping.pids_max.limit", -1)

NAME = "killing_the_parent_clears_its_zombies"
setting(NAME, FAIL, "orphans.left", 4)
setting(NAME, FAIL, "orphans.parent_killed", False)
setting(NAME, FAIL, "orphans.living_child.0.ppid", 77)
setting(NAME, FAIL, "orphans.clear_after_s", 60.0)
setting(NAME, FAIL, "orphans.living_child_left", 1)
setting(NAME, INCONCLUSIVE, "orphans.init.faults_of_the_zombies", 0)
setting(NAME, INCONCLUSIVE, "orphans.clear_after_s", None)


@control(NAME, FAIL)
def pid_1_did_not_wait_for_them(observations: World, parameters: World) -> None:
    init = observations["orphans"]["init"]
    init["faults_of_reaped_children_after"] = init["faults_of_reaped_children_before"]


NAME = "a_pid_1_that_does_not_reap_keeps_them"
setting(NAME, FAIL, "namespaces.abandoned.samples.1.zombies", 0)
setting(NAME, FAIL, "namespaces.never.zombies_at_end", 0)
setting(NAME, INCONCLUSIVE, "namespaces.never.pid_inside", 40)
setting(NAME, INCONCLUSIVE, "namespaces.never.adopted_alive", 0)


@control(NAME, FAIL)
def the_pid_1_reaps(observations: World, parameters: World) -> None:
    observations["namespaces"]["never"] = observations["namespaces"]["reaps"]


@control(NAME, INCONCLUSIVE)
def not_watched_for_long(observations: World, parameters: World) -> None:
    del observations["namespaces"]["never"]["samples"][3:]


NAME = "reaping_or_the_end_of_pid_1_clears_them"
setting(NAME, FAIL, "namespaces.never.left", 2)
setting(NAME, FAIL, "namespaces.abandoned.left", 2)
setting(NAME, FAIL, "namespaces.abandoned.init_alive", True)
setting(NAME, INCONCLUSIVE, "namespaces.never.init_alive", False)
setting(NAME, INCONCLUSIVE, "namespaces.never.clear_after_s", 99.0)
setting(NAME, INCONCLUSIVE, "namespaces.reaps.adopted_alive", 0)


@control(NAME, FAIL)
def no_pid_1_reaps(observations: World, parameters: World) -> None:
    observations["namespaces"]["reaps"]["samples"] = observations["namespaces"]["never"]["samples"]


@pytest.mark.parametrize(("check", "kind", "breakage"), [pytest.param(c, k, b, id=f"{c}-{n}") for c, n, k, b in CONTROLS])
def test_control(check: str, kind: VerdictKind, breakage: Breakage) -> None:
    observations, parameters = copy.deepcopy(SOUND["observations"]), dict(SOUND["parameters"])
    breakage(observations, parameters)
    assert alone(check, observations, parameters) is kind


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_every_check_is_seen_to_fail(check: Check) -> None:
    assert FAIL in {kind for name, _, kind, _ in CONTROLS if name == check.id}


# --- truncated and garbled observations ----------------------------------------------------------------------------------------------


class Traced(Evidence):
    """Evidence that notes which observations are read."""

    def __init__(self) -> None:
        super().__init__(SOUND["observations"], SOUND["parameters"])
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Record:
        self.read.add(name)
        return super().__getitem__(name)


def readers_of(name: str) -> set[str]:
    readers = set()
    for check in CHECKS:
        evidence = Traced()
        check.function(evidence)
        if name in evidence.read:
            readers.add(check.id)
    return readers


@pytest.mark.parametrize("name", SOUND["observations"])
def test_no_check_passes_without_its_observation(name: str) -> None:
    observations = {key: value for key, value in SOUND["observations"].items() if key != name}
    readers = readers_of(name)
    assert readers
    assert {verdicts(observations)[check] for check in readers} == {INCONCLUSIVE}


@pytest.mark.parametrize("name", SOUND["observations"])
def test_no_check_passes_on_an_emptied_observation(name: str) -> None:
    assert {verdicts({**SOUND["observations"], name: {}})[check] for check in readers_of(name)} == {INCONCLUSIVE}


def test_nothing_passes_without_evidence() -> None:
    assert set(verdicts({}).values()) == {INCONCLUSIVE}
    assert set(verdicts(dict.fromkeys(SOUND["observations"])).values()) == {INCONCLUSIVE}


def paths(value: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in the evidence; of a list the first member, the second and the last."""
    if isinstance(value, dict):
        members: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        members = [(i, value[i]) for i in sorted({0, 1, len(value) - 1}) if i < len(value)]
    else:
        return
    for key, member in members:
        yield (*prefix, key)
        yield from paths(member, (*prefix, key))


@pytest.mark.parametrize("garbage", ["missing", None, "garbage", -1, 1e308, []], ids=repr)
def test_garbage_anywhere_breaks_no_check(garbage: object) -> None:
    """A check that raises is an error of ours, whatever a guest may print."""
    for path in paths(SOUND["observations"]):
        if path[-2:-1] == ("files",) and path[-1] not in ("maps", "exe"):
            continue  # (Forty files alike.)
        observations = {**SOUND["observations"], path[0]: copy.deepcopy(SOUND["observations"][path[0]])}
        holder: Any = observations
        for part in path[:-1]:
            holder = holder[part]
        if garbage == "missing":
            del holder[path[-1]]
        else:
            holder[path[-1]] = garbage
        assert VerdictKind.ERROR not in verdicts(observations).values(), path


def test_a_system_without_ps_passes_too() -> None:
    observations = copy.deepcopy(SOUND["observations"])
    observations["anatomy"]["child"]["ps"] = None
    assert verdicts(observations)["a_zombie_is_shown_as_Z"] is PASS


def test_an_unsteady_machine_does_not_cost_a_point() -> None:
    """Under emulation on a busy host the forks come in bursts: then the line over time bends, and the count is still one a fork."""
    observations = copy.deepcopy(SOUND["observations"])
    for i, sample in enumerate(observations["accumulation"]["samples"]):
        sample["elapsed_s"] = 1.5**i
    assert verdicts(observations)["zombies_accumulate_one_a_fork"] is PASS
