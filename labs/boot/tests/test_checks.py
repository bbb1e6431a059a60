"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: labels swapped, dependencies dropped, an arm that fell back to another
way of booting, times forged, observations cut.
"""

from __future__ import annotations

import copy

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, World

from .recorded import LSB, NATIVE, SEQUENTIAL, SOUND, STARTPAR, boots

CONTROLS = Controls(SOUND)


def test_every_check_passes_on_the_sound_set() -> None:
    assert set(SOUND.verdicts().values()) == {PASS}


def test_all_claims_are_covered_and_the_points_are_twenty() -> None:
    checks = SOUND.checks.values()
    claims = {*(f"S{i}" for i in range(1, 7)), "D1", "D2", "D3", "D8"}
    assert {check.claim for check in checks} == set(SOUND.lab.definition.claims) == claims
    assert sum(check.points for check in checks) == 20


# --- controls: one broken thing each -----------------------------------------------------------------------------------------------

SAME = "only_the_command_line_differs"
ARM = "each_arm_is_what_it_says"


@CONTROLS.control(SAME)
def one_arm_had_another_machine(world: World) -> None:
    argv = boots(world, NATIVE, place="warm_up")[0]["argv"]
    argv[argv.index("-smp") + 1] = "4"


@CONTROLS.control(SAME)
def somebody_wrote_to_the_disk(world: World) -> None:
    world["disk"]["sha256_after"] = "0" * 64


@CONTROLS.control(SAME)
def two_arms_are_one(world: World) -> None:
    argv, other = (boots(world, arm, place="warm_up")[0]["argv"] for arm in (NATIVE, LSB))
    argv[argv.index("-append") + 1] = other[other.index("-append") + 1]


@CONTROLS.control(SAME, kind=INCONCLUSIVE)
def an_arm_was_not_booted(world: World) -> None:
    world["warm_up"]["boots"].pop()


def swap(world: World, one: str, other: str) -> None:
    names = {one: other, other: one}
    for boot in world["boots"]["boots"]:
        boot["arm"] = names.get(boot["arm"], boot["arm"])


@CONTROLS.control(ARM)
def labels_of_the_two_sysv_arms_swapped(world: World) -> None:
    swap(world, SEQUENTIAL, STARTPAR)


@CONTROLS.control(ARM)
def labels_of_the_two_systemd_arms_swapped(world: World) -> None:
    swap(world, LSB, NATIVE)


@CONTROLS.control(ARM, "truly_sequential_is_one_at_a_time", "sequential_time_adds_up", "systemd_takes_the_critical_path")
def labels_of_sysv_and_systemd_swapped(world: World) -> None:
    swap(world, SEQUENTIAL, NATIVE)


@CONTROLS.control(ARM, "debian_starts_in_parallel_by_default")
def startpar_fell_back_to_serial(world: World) -> None:
    """A missing .depend file does that, and says nothing but that the line on the console is not there."""
    for boot, serial in zip(boots(world, STARTPAR), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])
        boot["console"] = [line for line in boot["console"] if "makefile-style concurrent boot in runlevel 2" not in line["text"]]


@CONTROLS.control(ARM)
def startpar_fell_back_in_a_single_boot(world: World) -> None:
    boot = boots(world, STARTPAR)[1]
    boot["console"] = [line for line in boot["console"] if "in runlevel 2" not in line["text"]]


@CONTROLS.control(ARM)
def native_units_fell_back_to_scripts(world: World) -> None:
    for boot, other in zip(boots(world, NATIVE), boots(world, LSB), strict=True):
        boot["units"] = copy.deepcopy(other["units"])


@CONTROLS.control(ARM)
def systemd_does_not_know_a_service(world: World) -> None:
    for boot in boots(world, LSB):
        boot["units"] = [unit for unit in boot["units"] if unit["Id"] != "lab-shop.service"]


@CONTROLS.control(ARM)
def the_other_init_was_pid_1(world: World) -> None:
    boots(world, STARTPAR)[0]["facts"]["pid1"] = "/usr/lib/systemd/systemd"


@CONTROLS.control(ARM, kind=INCONCLUSIVE)
def an_arm_that_nobody_knows(world: World) -> None:
    world["boots"]["boots"][0]["arm"] = "upstart"


@CONTROLS.control(ARM, kind=INCONCLUSIVE)
def boots_without_facts(world: World) -> None:
    for boot in world["boots"]["boots"]:
        boot["facts"] = {}


INITTAB = "sysv_init_reads_inittab"


@CONTROLS.control(INITTAB)
def the_line_was_not_run(world: World) -> None:
    for boot in world["warm_up"]["boots"]:
        boot["marks"] = [each for each in boot["marks"] if each["event"] != "inittab"]


@CONTROLS.control(INITTAB)
def systemd_ran_it_too(world: World) -> None:
    line = next(each for each in boots(world, STARTPAR, place="warm_up")[0]["marks"] if each["event"] == "inittab")
    boots(world, LSB, place="warm_up")[0]["marks"].append(line)


@CONTROLS.control(INITTAB)
def another_default_runlevel(world: World) -> None:
    world["sysv"]["inittab"] = [line.replace("id:2:", "id:3:") for line in world["sysv"]["inittab"]]


LEVELS = "runlevels_2_to_5_are_alike"


@CONTROLS.control(LEVELS)
def runlevel_3_starts_more(world: World) -> None:
    world["sysv"]["links"]["3"].append({"name": "S09nfs", "target": "../init.d/nfs"})


@CONTROLS.control(LEVELS)
def halting_stops_nothing(world: World) -> None:
    world["sysv"]["links"]["0"] = []


@CONTROLS.control(LEVELS, kind=INCONCLUSIVE)
def no_links(world: World) -> None:
    world["sysv"]["links"] = {level: [] for level in world["sysv"]["links"]}


S_LINKS = "s_links_start_by_number"


@CONTROLS.control(S_LINKS)
def one_boot_in_another_order(world: World) -> None:
    names = {"clock": "mail", "mail": "clock"}
    for each in boots(world, SEQUENTIAL)[1]["marks"]:
        each["service"] = names.get(each["service"], each["service"])


@CONTROLS.control(S_LINKS)
def another_number(world: World) -> None:
    link = next(each for each in world["sysv"]["links"]["2"] if each["name"].endswith("lab-keys"))
    link["name"] = "S09lab-keys"


@CONTROLS.control(S_LINKS)
def a_link_to_something_else(world: World) -> None:
    link = next(each for each in world["sysv"]["links"]["2"] if each["name"].endswith("lab-keys"))
    link["target"] = "/bin/true"


K_LINKS = "k_links_stop_by_number"


@CONTROLS.control(K_LINKS)
def killed_without_being_told(world: World) -> None:
    boot = boots(world, SEQUENTIAL, place="warm_up")[0]
    boot["marks"] = [each for each in boot["marks"] if each["event"] != "stop"]


@CONTROLS.control(K_LINKS)
def stopped_in_the_order_of_the_start(world: World) -> None:
    boot = boots(world, SEQUENTIAL, place="warm_up")[0]
    boot["marks"] = [each for each in boot["marks"] if each["event"] != "stop"] + [
        each for each in reversed(boot["marks"]) if each["event"] == "stop"
    ]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
