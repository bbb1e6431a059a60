"""The guest's scripts, run on this machine: sound worlds and, with their control options, really broken ones.

They make a control group and read /proc/slabinfo, so they need root and a Linux with the pids controller; elsewhere these tests are
skipped, and the controls of `test_checks.py` remain. No limit of the whole system is touched here: that is for guests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vmlab.lab import Verdict
from vmlab.lab.controls import FAIL, INCONCLUSIVE, NOT_OBSERVABLE, PASS, Sound, put

from ..stalls import noise_of

LAB = Path(__file__).resolve().parents[1]
SOUND = Sound.of(__file__)


def can_make_a_cgroup() -> bool:
    roots = (Path("/sys/fs/cgroup/cgroup.procs"), Path("/sys/fs/cgroup/pids/cgroup.procs"))
    return sys.platform == "linux" and os.geteuid() == 0 and any(os.access(root, os.W_OK) for root in roots)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_a_cgroup(), reason="needs root and a writable cgroup with the pids controller"),
    pytest.mark.timeout(120),
]


def script(name: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(LAB / "guest" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, cwd=LAB / "guest")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def verdict(check: str, observation: str, value: Any, **parameters: Any) -> Verdict:
    """A check's verdict on the sound set with one observation replaced by what a script really printed."""
    return SOUND.verdict(check, put(observation, value), *(put(f"parameters.{name}", other) for name, other in parameters.items()))


def parent(kind: str, *more: str) -> dict[str, Any]:
    return script("accumulate.py", "--parent", kind, "--forks", "60", "--rate", "60", "--samples", "12", *more)[0]


def test_a_parent_that_never_waits() -> None:
    """On a busy machine the looks may be too few: inconclusive then, but never a failure."""
    seen = parent("never")
    assert verdict("zombies_accumulate_one_a_fork", "accumulation", seen, zombies=60, rate=60).kind in (PASS, INCONCLUSIVE)
    assert verdict("sigkill_removes_none", "accumulation", seen, zombies=60, rate=60).kind is PASS
    assert verdict("a_parent_that_reaps_has_none_left", "reaping", seen).kind is INCONCLUSIVE


def test_a_parent_that_never_waits_in_place_of_one_that_ignores_sigchld() -> None:
    seen = parent("never", "--called", "ignore")
    assert verdict("a_parent_that_ignores_sigchld_has_no_zombies", "ignored", seen, ignored=60, rate=60).kind is FAIL


def test_a_parent_that_reaps_sees_each_of_its_children_as_a_zombie() -> None:
    seen = parent("reap")
    assert (seen["after_reaping"]["zombies_met"], seen["at_end"]) == (60, 0)
    other = put("accumulation.forked", 60), put("accumulation.rate", 60)
    assert SOUND.verdict("a_parent_that_reaps_has_none_left", put("reaping", seen), *other).kind in (PASS, INCONCLUSIVE)


@pytest.mark.parametrize("kind", ["reap", "ignore"])
def test_a_parent_without_zombies_in_place_of_one_with(kind: str) -> None:
    seen = parent(kind)
    assert seen["at_end"] == 0
    assert verdict("zombies_accumulate_one_a_fork", "accumulation", seen, zombies=60, rate=60).kind is FAIL
    assert verdict("zombies_accumulate_one_a_fork", "accumulation", {**seen, "parent": "never"}, zombies=60, rate=60).kind is FAIL
    assert verdict("sigkill_removes_none", "accumulation", seen, zombies=60).kind is INCONCLUSIVE


def test_a_parent_that_ignores_sigchld() -> None:
    """This machine may have several CPUs, and another one may meet the zombie of some microseconds."""
    seen = {**parent("ignore"), "cpus": max(2, os.cpu_count() or 1)}
    assert verdict("a_parent_that_ignores_sigchld_has_no_zombies", "ignored", seen, ignored=60, rate=60).kind in (PASS, INCONCLUSIVE)


def test_the_noise_of_a_run_is_what_its_looks_lack() -> None:
    assert noise_of(parent("never")) <= 1
    assert noise_of({**parent("reap"), "samples": []}) == 1


def test_a_parent_that_reaps_in_bursts_counts_right() -> None:
    seen = script("accumulate.py", "--parent", "reap", "--forks", "300", "--rate", "3000", "--samples", "9")[0]
    assert seen["after_reaping"]["statuses"] == {"1792": 300}


ANATOMY = ["an_unwaited_child_is_a_zombie", "its_status_can_be_read_without_reaping", "a_zombie_has_no_user_memory_and_no_files"]


def test_the_anatomy_of_a_child() -> None:
    seen = script("anatomy.py")[0]
    for check in (*ANATOMY, "a_zombie_is_shown_as_Z", "not_every_Z_is_a_zombie"):
        assert verdict(check, "anatomy", seen).kind is PASS, check


def test_no_zombie_where_sigchld_is_ignored() -> None:
    seen = script("anatomy.py", "--sigchld", "ignore")[0]
    assert verdict(ANATOMY[0], "anatomy", seen).kind is FAIL
    assert {verdict(check, "anatomy", seen).kind for check in (*ANATOMY[1:], "a_zombie_is_shown_as_Z")} == {INCONCLUSIVE}


@pytest.mark.skipif(not os.access("/proc/slabinfo", os.R_OK), reason="needs /proc/slabinfo")
def test_reaped_children_cost_nothing() -> None:
    seen = script("cost.py", "--batches", "6", "--batch", "100", "--reap")[0]
    assert verdict("a_zombie_costs_kernel_memory", "cost", seen, batches=6, batch=100).kind is FAIL


@pytest.mark.skipif(not os.access("/proc/slabinfo", os.R_OK), reason="needs /proc/slabinfo")
def test_zombies_cost_something() -> None:
    """On a machine with other work the memory of the kernel is anybody's: inconclusive then, but never a failure."""
    seen = script("cost.py", "--batches", "6", "--batch", "100")[0]
    asked = {"batches": 6, "batch": 100}
    assert verdict("a_zombie_costs_kernel_memory", "cost", seen, **asked).kind in (PASS, INCONCLUSIVE)
    assert verdict("its_kernel_stack_is_freed_at_death", "cost", seen, **asked).kind in (PASS, INCONCLUSIVE, NOT_OBSERVABLE)


def test_a_spared_parent_keeps_its_zombies() -> None:
    seen = script("orphans.py", "--zombies", "10", "--spare-the-parent", "--patience", "0.5")[0]
    assert seen["left"] == 10
    assert verdict("killing_the_parent_clears_its_zombies", "orphans", seen, orphans=10).kind is FAIL
    killed = {**seen, "parent_killed": True}
    assert verdict("killing_the_parent_clears_its_zombies", "orphans", killed, orphans=10, patience_s=0.4).kind is FAIL
    assert verdict("killing_the_parent_clears_its_zombies", "orphans", killed, orphans=10, patience_s=1).kind is INCONCLUSIVE


def test_pid_namespaces() -> None:
    seen = script("namespaces.py", "--orphans", "4", "--patience", "1")[0]
    for check in ("a_pid_1_that_does_not_reap_keeps_them", "reaping_or_the_end_of_pid_1_clears_them"):
        assert verdict(check, "namespaces", seen, adopted=4, patience_s=1).kind is PASS, check
    swapped = {**seen, "never": seen["reaps"]}
    assert verdict("a_pid_1_that_does_not_reap_keeps_them", "namespaces", swapped, adopted=4, patience_s=1).kind is FAIL


def test_however_long_the_forks_take_all_orphans_are_adopted_before_they_exit() -> None:
    seen = script("namespaces.py", "--orphans", "300", "--patience", "1")[0]
    assert {kind: world["adopted_alive"] for kind, world in seen.items()} == dict.fromkeys(("never", "abandoned", "reaps"), 300)


def test_a_killed_pid_1_counts_as_gone_only_when_it_was_reaped_too() -> None:
    """Its zombies are gone some time before it is; here for half a second, because its parent is stopped meanwhile."""
    program = """
import json, os, signal, threading
import namespaces
gate, gate_in = os.pipe()
with namespaces.Namespace("abandoned", 3, gate, gate_in) as world:
    namespaces.wait_until(lambda: world.has_adopted(3))
    os.close(gate_in)
    namespaces.wait_until(lambda: world.count() == (4, 0))
    os.kill(world.helper, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (world.helper, signal.SIGCONT)).start()
    print(json.dumps(namespaces.bring_to_an_end(world)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=LAB / "guest")
    seen = json.loads(done.stdout)
    assert (seen["zombies_at_end"], seen["left"], seen["init_alive"]) == (4, 0, False)


def exhaustion(*options: str) -> dict[str, Any]:
    """The two worlds that can be made anywhere, among the sound set's other two."""
    sound = SOUND.world()["exhaustion"]
    worlds = {world["world"]: world for world in script("exhaust.py", "--worlds", "pids_max", "nproc", "--room", "40", *options)}
    return {**sound, "worlds": {**sound["worlds"], **worlds}}


def test_two_limits_reached() -> None:
    seen = exhaustion()
    for check in ("enough_zombies_stop_fork_with_eagain", "the_limit_that_bound_is_named", "forks_work_again_after_reaping"):
        assert verdict(check, "exhaustion", seen).kind is PASS, check


@pytest.mark.parametrize("option", ["--no-limit", "--reap"])
def test_a_world_without_exhaustion(option: str) -> None:
    seen = exhaustion(option)
    assert seen["worlds"]["pids_max"]["errno"] is None
    assert verdict("enough_zombies_stop_fork_with_eagain", "exhaustion", seen).kind is FAIL
    assert verdict("the_limit_that_bound_is_named", "exhaustion", seen).kind is FAIL
    assert verdict("the_kernel_says_so_on_the_console", "exhaustion", {**seen, "console": None}).kind is INCONCLUSIVE


def test_the_limits_of_this_system() -> None:
    seen = script("limits.py")[0]
    assert seen["tightest"] in {each["name"] for each in seen["limits"]}
    assert verdict("numbers_are_limited_and_threads_use_them", "limits", seen).kind in (PASS, INCONCLUSIVE)
