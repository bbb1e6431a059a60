"""What the checks make of nothing, of garbage, and of a run that was asked for less: none decides what it was not shown."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from vmlab.lab.controls import INCONCLUSIVE, NOT_OBSERVABLE, PASS, Sound, World, drop, put

SOUND = Sound.of(__file__)
ARMS = SEQUENTIAL, STARTPAR, LSB, NATIVE = ("sysv-sequential", "sysv-startpar", "systemd-lsb", "systemd-native")
OTHERS = "others_start_in_parallel_as_quickly"
INITTAB, S_LINKS, K_LINKS = "sysv_init_reads_inittab", "s_links_start_by_number", "k_links_stop_by_number"
ONE, SUM, DEBIAN = "truly_sequential_is_one_at_a_time", "sequential_time_adds_up", "debian_starts_in_parallel_by_default"
KEPT, PATH = "dependencies_are_kept", "systemd_takes_the_critical_path"
CHAIN, CPU = "control_a_chain_gains_nothing", "control_one_cpu_gains_nothing"


@pytest.mark.parametrize("check", SOUND.names)
def test_no_check_decides_anything_on_nothing(check: str) -> None:
    SOUND.hold_without_evidence(check)


@pytest.mark.parametrize("check", SOUND.names)
def test_no_garbage_breaks_a_check(check: str) -> None:
    SOUND.hold_on_garbage(check, alike=2)


def test_every_observation_is_read_but_the_pictures() -> None:
    assert [place for place in SOUND.unread() if "." not in place] == ["charts"]


@pytest.mark.parametrize("name", sorted(SOUND.world().observations))
@pytest.mark.parametrize("value", [None, {"boots": []}])
def test_no_check_passes_without_what_it_reads(name: str, value: Any) -> None:
    """Taken away or without boots: whoever read it does not pass; the others do as before."""
    change = drop(name) if value is None else put(name, value)
    found = {check: SOUND.verdict(check, change).kind for check in SOUND.names}
    assert not set(found.values()) - {PASS, INCONCLUSIVE, NOT_OBSERVABLE}
    readers = {check for check, kind in found.items() if kind is not PASS}
    assert readers or name == "charts"


@pytest.mark.parametrize("junk", [0, "x", [], {"marks": 3}, {"marks": [{"event": "begin"}]}, {"marks": [None]}])
def test_a_boot_that_is_garbage_decides_nothing(junk: Any) -> None:

    def spoilt(world: World) -> None:
        if isinstance(junk, dict):
            for boot in world["boots.boots"]:
                boot.update(junk)
        else:
            world["boots.boots"] = [junk] * len(world["boots.boots"])

    kinds = {check: SOUND.verdict(check, spoilt).kind for check in SOUND.names}
    assert not set(kinds.values()) - {PASS, INCONCLUSIVE, NOT_OBSERVABLE}
    assert kinds[ONE] is kinds[SUM] is kinds[KEPT] is INCONCLUSIVE


def only(world: World, *arms: str, controls: int = 0) -> None:
    """As if the run had been asked for these arms, and for the controls or not."""
    world.parameters.update(arms=",".join(arms), controls=controls)
    world["plan"].update(arms=list(arms), controls=controls)
    for name in ("boots", "warm_up"):
        world[name]["boots"] = [boot for boot in world[name]["boots"] if boot["arm"] in arms]
    if not controls:
        world["controls"]["boots"] = []


def test_a_quick_run_decides_what_it_can_and_says_what_it_left_out() -> None:
    def quick(world: World) -> None:
        only(world, SEQUENTIAL, NATIVE)
        world.parameters.update(arms="all", controls=3, repeats=50, quick=True)

    found = SOUND.verdicts(quick)
    left_out = {name for name, kind in found.items() if kind is NOT_OBSERVABLE}
    assert left_out == {DEBIAN, OTHERS, CHAIN, CPU}
    assert {name for name, kind in found.items() if kind is PASS} == set(SOUND.names) - left_out


def test_without_any_sysv_arm_nothing_is_said_of_sysv() -> None:
    found = SOUND.verdicts(lambda world: only(world, LSB, NATIVE))
    assert {INITTAB, S_LINKS, K_LINKS, ONE, SUM, DEBIAN, OTHERS} <= {name for name, kind in found.items() if kind is NOT_OBSERVABLE}
    assert found[KEPT] is found[PATH] is PASS


SOME = [arms for many in range(1, len(ARMS) + 1) for arms in itertools.combinations(ARMS, many)]


@pytest.mark.parametrize("controls", [0, 3])
@pytest.mark.parametrize("arms", SOME, ids=",".join)
def test_whatever_arms_a_run_is_asked_for_it_passes_or_says_what_it_left_out(arms: tuple[str, ...], controls: int) -> None:
    found = SOUND.verdicts(lambda world: only(world, *arms, controls=controls))
    assert set(found.values()) <= {PASS, NOT_OBSERVABLE}, found
    assert (found[CHAIN] is PASS) == (found[CPU] is PASS) == bool(controls)
    assert (found[SUM] is PASS) == (SEQUENTIAL in arms)
    assert (found[OTHERS] is PASS) == ({STARTPAR, LSB} <= set(arms))
