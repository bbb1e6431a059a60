"""The checks on this machine's own KVM, which the sound run did not have: the emulated host's counts stand in for it.

And what machines would record whose kernel or QEMU is too old for a count: there it is not observable, and nobody's fault.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import FAIL, INCONCLUSIVE, NOT_OBSERVABLE, PASS, Control, Controls, World, drop, put, take

from .sound import KVM, SOUND, with_kvm

CONTROLS = Controls(KVM)
CLAIMS, RUNS, ALONE, READS = (
    "own_kvm_claims",
    "own_kvm_runs_on_the_processor",
    "own_kvm_leaves_the_guest_alone",
    "own_kvm_reads_the_guests_tables",
)
GUEST, LAST = "own_guest_shows_nested_paging", "own_memory_is_behind_nested_paging"
OWN = [name for name in SOUND.names if name.startswith("own_")]


def test_every_check_passes_on_nested_paging() -> None:
    assert {KVM.verdict(name).kind for name in OWN} == {PASS}


for _name in (CLAIMS, ALONE, READS, GUEST, LAST):
    CONTROLS.fails(_name, with_kvm("emulated_shadow"), name="shadow paging")


@CONTROLS.control(RUNS, LAST)
def a_software_kvm(world: World) -> None:
    compute = world["own_probe.phases.compute"]
    compute["counts"]["insn_emulation"] = 2 * compute["n"]


CONTROLS.fails(LAST, put("own_probe.claim.nested_paging", "npt=N"), name="a module that contradicts the counts")
CONTROLS.passes(LAST, put("own_probe.claim.nested_paging", ""), name="a module that says nothing contradicts nothing")
CONTROLS.fails(LAST, with_kvm("emulated_shadow"), put("own_probe.claim.nested_paging", "npt=Y"), name="a claim that the counts contradict")
CONTROLS.fails(LAST, take("own_probe", "emulated_shadow.probe"), name="the probe's counts are those of shadow paging")
CONTROLS.fails(LAST, take("own_counters.loops", "emulated_shadow.nested.loops"), name="the guest's counts are those of shadow paging")
for _part in ("own_probe", "own_counters"):
    CONTROLS.is_inconclusive(LAST, drop(_part))

# --- noise ------------------------------------------------------------------------------------------------------------------------------


def stray(world: World) -> None:
    """The host put other memory behind the guest while it was counted, a quarter of the time."""
    phase = world["own_probe.phases.swap_data"]
    phase["counts"]["pf_taken"] += phase["n"] // 4


CONTROLS.is_inconclusive(READS, stray)
CONTROLS.is_inconclusive(LAST, stray, name="all but one count are those of nested paging, and that one decides nothing")
CONTROLS.fails(LAST, stray, take("own_counters.loops", "emulated_shadow.nested.loops"), name="one count is noise and another contradicts")

# --- old kernels, and an old QEMU -------------------------------------------------------------------------------------------------------


def no_pf_taken(world: World) -> None:
    """Linux 5.15: KVM counts the faults that it fixed (pf_fixed) and not those that it took."""
    for phase in world["own_probe.phases"].values():
        phase["counts"].pop("pf_taken", None)
    for loop in world["own_counters.loops"].values():
        for when in ("before", "after"):
            del loop[when]["pf_taken"]


def no_counters(world: World) -> None:
    """Linux 5.10: KVM_GET_STATS_FD is not there."""
    world["own_probe.has_counters"] = False
    for phase in world["own_probe.phases"].values():
        phase["counts"] = {}
    world["own_counters"] = {"not_run": "this machine's kernel does not tell what KVM counts, which it does from Linux 5.14 on"}


def no_query_stats(world: World) -> None:
    """QEMU 6.2 on a newer kernel."""
    world["own_counters"] = {"not_run": "QEMU does not tell what KVM counts, which it does from version 7.1 on"}


@pytest.mark.parametrize(
    ("change", "seen"),
    [(no_pf_taken, {CLAIMS, RUNS, ALONE}), (no_counters, {CLAIMS}), (no_query_stats, {CLAIMS, RUNS, ALONE, READS})],
)
def test_what_an_old_machine_does_not_count_is_not_observable(change: Callable[[World], None], seen: set[str]) -> None:
    """As such a machine would record it; there was none to run it on."""
    found = {name: KVM.verdict(name, change).kind for name in OWN}
    assert found == {name: PASS if name in seen else NOT_OBSERVABLE for name in OWN}


def test_control_a_count_that_stood_still_is_no_old_kernel() -> None:
    """A guest that took no fault where it must, on a kernel that counts them: in another phase the counter moved."""
    assert KVM.verdict(READS, drop("own_probe.phases.swap_walk.counts.pf_taken")).kind is FAIL
    assert KVM.verdict(READS, no_pf_taken, drop("own_probe.phases.touch_fresh.counts.pf_fixed")).kind is FAIL
    fresh = KVM.world()["own_probe.phases.touch_fresh.n"]
    assert KVM.verdict(READS, no_pf_taken, put("own_probe.phases.touch_fresh.counts.pf_fixed", fresh - 1)).kind is FAIL
    assert KVM.verdict(READS, no_pf_taken, put("own_probe.phases.touch_fresh.counts.pf_fixed", fresh)).kind is NOT_OBSERVABLE
    assert KVM.verdict(READS, no_pf_taken, put("own_probe.phases.touch_fresh.n", 0)).kind is INCONCLUSIVE


def test_control_a_guest_whose_counters_are_garbage_is_no_old_kernel() -> None:
    assert KVM.verdict(GUEST, no_pf_taken, put("own_counters.loops.idle.before.pf_fixed", 0)).kind is INCONCLUSIVE
    assert KVM.verdict(GUEST, no_pf_taken, put("own_counters.loops.idle.before.pf_fixed", 1)).kind is NOT_OBSERVABLE
    assert KVM.verdict(GUEST, drop("own_counters.loops.remap.before.pf_taken")).kind is INCONCLUSIVE


def test_the_text_says_what_is_too_old() -> None:
    assert "Linux 5.19" in KVM.verdict(READS, no_pf_taken).rationale
    assert "Linux 5.14" in KVM.verdict(READS, no_counters).rationale
    last = KVM.verdict(LAST, no_query_stats)
    assert "Not to be seen on this machine: the lab's guest" in last.rationale


# --- without KVM ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_without_kvm_nothing_of_it_is_observable(name: str) -> None:
    assert SOUND.verdict(name).kind is NOT_OBSERVABLE


def test_whether_it_is_kvm_is_known_from_the_run_alone() -> None:
    """Whatever the observations say: a report whose host was none with KVM shows nothing of it."""
    assert KVM.verdict(LAST, put("run.accelerator", "tcg")).kind is NOT_OBSERVABLE
    assert KVM.verdict(LAST, drop("run.accelerator")).kind is INCONCLUSIVE


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", OWN)
def test_every_check_has_a_world_in_which_it_fails(check: str) -> None:
    CONTROLS.prove(check)
