"""The checks on the emulated host: each passes on what a real run recorded, and none does on the other world's evidence in its place.

The strongest controls need nothing forged: what was recorded with shadow page tables is given to the checks of nested paging, and the other
way round.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from vmlab import paths
from vmlab.lab.controls import FAIL, INCONCLUSIVE, NOT_OBSERVABLE, PASS, Control, Controls, World, put, take
from vmlab.lab.verdict import VerdictKind

from .sound import SOUND

CONTROLS = Controls(SOUND)
CHECKS = {name: check for name, check in SOUND.checks.items() if name.startswith(("nested_", "shadow_", "own_guest_"))}

# The checks D, E and H of the verdict table, in both worlds.
NESTED = ["nested_leaves_the_guest_alone", "nested_reads_the_guests_tables", "nested_shows_in_a_whole_guest"]
SHADOW = ["shadow_steps_in", "shadow_never_reads_the_guests_tables", "shadow_shows_in_a_whole_guest"]
# And check F.
NAMED, UNNAMED = "nested_names_each_fault", "shadow_names_none"
WORLD_OF = {name: "emulated_nested" if name.startswith("nested_") else "emulated_shadow" for name in CHECKS if not name.startswith("own_")}


@pytest.fixture
def worlds() -> World:
    """The evidence of the real run, to be broken."""
    return SOUND.world()


def verdict(name: str, worlds: World) -> VerdictKind:
    """The verdict of one check, whatever those that it rests on conclude."""
    return SOUND.verdict_in(worlds, name).kind


@pytest.mark.parametrize("name", WORLD_OF)
def test_each_check_passes_on_what_a_real_run_recorded(name: str, worlds: World) -> None:
    assert verdict(name, worlds) is PASS


def swap(worlds: World) -> None:
    """The module was loaded the wrong way each time."""
    worlds["emulated_nested"], worlds["emulated_shadow"] = worlds["emulated_shadow"], worlds["emulated_nested"]


for _name in [*NESTED, NAMED]:
    CONTROLS.fails(_name, take("emulated_nested", "emulated_shadow"), name="shadow evidence is no nested paging")
for _name in [*SHADOW, UNNAMED]:
    CONTROLS.fails(_name, take("emulated_shadow", "emulated_nested"), name="nested evidence is no shadow paging")
for _name in ("nested_claims", "shadow_is_the_same_host"):
    CONTROLS.fails(_name, swap, name="the wrong setting of the module")
for _name in ("nested_runs_on_the_processor", "shadow_runs_on_the_processor"):
    _compute = f"{WORLD_OF[_name]}.probe.phases.compute"
    CONTROLS.fails(
        _name,
        put(f"{_compute}.counts.insn_emulation", 2 * SOUND.world()[f"{_compute}.n"]),
        name="instructions that KVM decodes",
    )


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("name", WORLD_OF)
def test_every_check_has_a_world_in_which_it_fails(name: str) -> None:
    CONTROLS.prove(name)


@pytest.mark.parametrize("name", ["nested_runs_on_the_processor", "shadow_runs_on_the_processor"])
def test_what_comes_after_software_is_not_asked(name: str) -> None:
    (control,) = [each for each in CONTROLS if each.check == name]
    found = SOUND.verdicts(*control.changes)
    assert {found[each] for each in CHECKS if name in CHECKS[each].after} == {INCONCLUSIVE}


def test_control_a_claim_does_not_help(worlds: World) -> None:
    """A module that says npt=Y while its tables are shadow ones, or a student who writes that into the evidence."""
    worlds["emulated_shadow.probe.claim.nested_paging"] = "npt=Y"
    worlds["emulated_nested"] = worlds["emulated_shadow"]
    assert verdict("nested_claims", worlds) is PASS
    assert [verdict(name, worlds) for name in NESTED] == [FAIL] * 3


def test_control_two_hosts_are_no_control_of_each_other(worlds: World) -> None:
    worlds["emulated_shadow"]["module"]["boot_id"] = "another"
    assert verdict("shadow_is_the_same_host", worlds) is INCONCLUSIVE


# --- nothing, and what is nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLD_OF)
def test_nothing_is_inconclusive(name: str, worlds: World) -> None:
    SOUND.hold_without_evidence(name)
    nothings: list[Any] = ["npt=Y", 5, {"probe": {}, "module": {}, "nested": {}}]
    for nothing in nothings:
        worlds[WORLD_OF[name]] = nothing
        assert verdict(name, worlds) is INCONCLUSIVE


def test_counters_that_stand_still_prove_nothing(worlds: World) -> None:
    """The forger's easiest way: nothing moved, so everything is below the bound."""
    for loop in worlds["emulated_nested"]["nested"]["loops"].values():
        loop["after"] = loop["before"]
    for phase in worlds["emulated_nested"]["probe"]["phases"].values():
        phase["counts"] = {}
    assert [verdict(name, worlds) for name in NESTED] == [INCONCLUSIVE] * 3
    assert verdict("nested_runs_on_the_processor", worlds) is INCONCLUSIVE


def test_counters_that_were_never_moved_prove_nothing(worlds: World) -> None:
    for loop in worlds["emulated_nested"]["nested"]["loops"].values():
        loop["before"] = dict.fromkeys(loop["before"], 0)
        loop["after"] = {**loop["before"], "exits": 1}
    assert verdict("nested_shows_in_a_whole_guest", worlds) is INCONCLUSIVE


def test_counters_that_fall_prove_nothing(worlds: World) -> None:
    remap = worlds["emulated_nested"]["nested"]["loops"]["remap"]
    remap["after"]["pf_taken"] = remap["before"]["pf_taken"] - 1
    assert verdict("nested_shows_in_a_whole_guest", worlds) is INCONCLUSIVE


@pytest.mark.parametrize("loop", ["remap", "touch", "switch", "idle"])
def test_a_loop_that_did_something_else_proves_nothing(loop: str, worlds: World) -> None:
    worlds["emulated_nested"]["nested"]["loops"][loop]["operations"] -= 1
    assert verdict("nested_shows_in_a_whole_guest", worlds) is INCONCLUSIVE
    assert SOUND.verdict("nested_shows_in_a_whole_guest", put("parameters.rounds", 80)).kind is INCONCLUSIVE


@pytest.mark.parametrize("phase", ["remap", "reload_cr3", "page_fault", "swap_walk", "compute"])
def test_wrong_results_prove_nothing(phase: str, worlds: World) -> None:
    worlds["emulated_nested"]["probe"]["phases"][phase]["correct"] = False
    affected = {"compute": "nested_runs_on_the_processor", "swap_walk": NESTED[1]}.get(phase, NESTED[0])
    assert verdict(affected, worlds) is INCONCLUSIVE


@pytest.mark.parametrize("flags", [[], ["svm"], ["vmx", "hypervisor"]])
def test_a_processor_that_is_not_the_emulated_one(flags: list[str], worlds: World) -> None:
    worlds["emulated_nested"]["module"]["cpu_flags"] = flags
    assert verdict(NESTED[0], worlds) is INCONCLUSIVE


# --- the other emulated host: Intel's, by Bochs -----------------------------------------------------------------------------------------

BY_THE_PROBE = ["claims", "runs_on_the_processor", "leaves_the_guest_alone", "reads_the_guests_tables"]
IN_SHADOW = ["is_the_same_host", "runs_on_the_processor", "steps_in", "never_reads_the_guests_tables"]


@pytest.fixture
def bochs() -> World:
    """What two runs of the probe in Bochs recorded, as the experiment writes it down."""
    records = paths.data_dir("labs").parent / "tests" / "unit" / "kvm_records"
    names = {"emulated_nested": "ept-bochs-6.12", "emulated_shadow": "shadow-vmx-6.12"}
    skipped = {"not_run": "Bochs, which is slow, runs the probe alone"}
    found = SOUND.world()
    for world, name in names.items():
        found[world] = {
            "emulator": "Bochs 2.7",
            "module": {"cpu_flags": ["vmx", "ept"], "boot_id": "one"},
            "probe": json.loads((records / f"{name}.json").read_text()),
            "faults": skipped,
            "nested": skipped,
        }
    return found


def test_an_intel_host_is_judged_by_the_same_counts(bochs: World) -> None:
    assert [verdict(f"nested_{name}", bochs) for name in BY_THE_PROBE] == [PASS] * 4
    assert [verdict(f"shadow_{name}", bochs) for name in IN_SHADOW] == [PASS] * 4
    rest = ["nested_names_each_fault", "nested_shows_in_a_whole_guest", "shadow_names_none", "shadow_shows_in_a_whole_guest"]
    assert [verdict(name, bochs) for name in rest] == [NOT_OBSERVABLE] * 4


def test_control_the_intel_hosts_worlds_taken_for_each_other(bochs: World) -> None:
    bochs["emulated_nested"], bochs["emulated_shadow"] = bochs["emulated_shadow"], bochs["emulated_nested"]
    assert [verdict(f"nested_{name}", bochs) for name in BY_THE_PROBE if name != "runs_on_the_processor"] == [FAIL] * 3
    assert [verdict(f"shadow_{name}", bochs) for name in IN_SHADOW if name != "runs_on_the_processor"] == [FAIL] * 3


@pytest.mark.parametrize("emulator", ["QEMU TCG", "a machine of my own", ""])
def test_an_emulator_that_has_no_such_processor(emulator: str, bochs: World) -> None:
    bochs["emulated_nested"]["emulator"] = emulator
    assert verdict("nested_reads_the_guests_tables", bochs) is INCONCLUSIVE


# --- where it is not run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_what_was_not_run_is_not_observable(name: str, worlds: World) -> None:
    for world in ("emulated_nested", "emulated_shadow", "own_counters"):
        worlds[world] = {"not_run": "the run was asked for HOST=none"}
    assert verdict(name, worlds) is NOT_OBSERVABLE


def test_the_labs_own_guest_is_judged_by_the_same_counters(worlds: World) -> None:
    """Under a real KVM; here the two worlds' nested guests stand in for it."""
    for world, expected in (("emulated_nested", PASS), ("emulated_shadow", FAIL)):
        worlds["own_counters"] = {"loops": worlds[world]["nested"]["loops"]}
        assert verdict("own_guest_shows_nested_paging", worlds) is expected
    worlds["own_counters"] = {"loops": {}}
    assert verdict("own_guest_shows_nested_paging", worlds) is INCONCLUSIVE
