"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: labels swapped, dependencies dropped, an arm that fell back to another
way of booting, times forged, observations cut.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, Sound, World, put

SOUND = Sound.of(__file__)
CONTROLS = Controls(SOUND)
SEQUENTIAL, STARTPAR, LSB, NATIVE = "sysv-sequential", "sysv-startpar", "systemd-lsb", "systemd-native"

Data = dict[str, Any]


def boots(world: World, arm: str, graph: str = "services", place: str = "") -> list[Data]:
    """The boots of an arm, to be changed in place."""
    if place:
        return [boot for boot in world[place]["boots"] if boot["arm"] == arm]
    return [
        boot for boot in world["boots" if graph == "services" else "controls"]["boots"] if boot["arm"] == arm and boot["graph"] == graph
    ]


def mark(boot: Data, event: str, service: str) -> Data:
    return next(each for each in boot["marks"] if each["event"] == event and each["service"] == service)


def shift(boot: Data, service: str, seconds: float, events: tuple[str, ...] = ("begin", "end")) -> None:
    for event in events:
        for clock in ("guest_s", "host_s"):
            mark(boot, event, service)[clock] += seconds


def stretch(boot: Data, factor: float) -> None:
    """As if everything from the first service on had taken so many times as long, by both clocks, on a quiet machine."""
    boot["noise"]["others_cpu_s"] = 0.0
    for clock in ("guest_s", "host_s"):
        zero = min(each[clock] for each in boot["marks"])
        for each in boot["marks"]:
            each[clock] = round(zero + (each[clock] - zero) * factor, 4)


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


ONE = "truly_sequential_is_one_at_a_time"


@CONTROLS.control(ONE)
def forged_overlap_by_both_clocks(world: World) -> None:
    shift(boots(world, SEQUENTIAL)[0], "mail", -0.5, ("begin",))


@CONTROLS.control(ONE)
def forged_overlap_by_the_hosts_clock(world: World) -> None:
    mark(boots(world, SEQUENTIAL)[2], "begin", "mail")["host_s"] -= 0.5


@CONTROLS.control(ONE, "dependencies_are_kept")
def services_that_do_nothing(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        for name in ("mail", "print"):
            mark(boot, "end", name).update(guest_s=mark(boot, "begin", name)["guest_s"], host_s=mark(boot, "begin", name)["host_s"])


@CONTROLS.control(ONE)
def burners_that_slept(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        mark(boot, "end", "index")["cpu_s"] = 0.01


@CONTROLS.control(ONE, SUM := "sequential_time_adds_up", kind=INCONCLUSIVE)
def a_service_is_missing(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        boot["marks"] = [each for each in boot["marks"] if each["service"] != "mail"]


@CONTROLS.control(ONE, kind=INCONCLUSIVE)
def a_service_without_an_end(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        boot["marks"] = [each for each in boot["marks"] if (each["event"], each["service"]) != ("end", "mail")]


@CONTROLS.control(ONE, kind=INCONCLUSIVE)
def a_boot_is_missing(world: World) -> None:
    world["boots"]["boots"].remove(boots(world, SEQUENTIAL)[0])


DEBIAN = "debian_starts_in_parallel_by_default"


@CONTROLS.control(DEBIAN)
def more_at_once_than_startpar_allows(world: World) -> None:
    for boot in boots(world, STARTPAR):
        for each in boot["marks"]:
            if each["event"] == "begin":
                each["guest_s"] = min(other["guest_s"] for other in boot["marks"])


@CONTROLS.control(DEBIAN)
def no_depend_files(world: World) -> None:
    world["sysv"]["depend_bytes"][".depend.start"] = 0


@CONTROLS.control(DEBIAN)
def legacy_boot_ordering(world: World) -> None:
    world["sysv"]["legacy_bootordering"] = True


KEPT = "dependencies_are_kept"


@CONTROLS.control(KEPT)
def dependencies_dropped_in_the_guest(world: World) -> None:
    """The services were installed without the graph's arrows: all begin at once."""
    for boot in boots(world, NATIVE):
        first = min(each["guest_s"] for each in boot["marks"])
        for each in list(boot["marks"]):
            if each["event"] == "begin":
                shift(boot, each["service"], first - each["guest_s"])


@CONTROLS.control(KEPT)
def systemd_started_them_one_by_one(world: World) -> None:
    for boot, serial in zip(boots(world, NATIVE), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])


@CONTROLS.control(KEPT, kind=INCONCLUSIVE)
def a_graph_without_arrows(world: World) -> None:
    for each in world["plan"]["graphs"]["services"]["services"].values():
        each.pop("after", None)


PATH = "systemd_takes_the_critical_path"


@CONTROLS.control(PATH)
def arrows_dropped_from_the_plan_alone(world: World) -> None:
    """Then the longest chain is 1.6 s, and neither what was written down nor what was measured fits."""
    for each in world["plan"]["graphs"]["services"]["services"].values():
        each.pop("after", None)


@CONTROLS.control(PATH)
def the_same_with_a_prediction_to_fit(world: World) -> None:
    arrows_dropped_from_the_plan_alone(world)
    world["plan"]["predicted_s"]["services"][NATIVE] = 1.6


@CONTROLS.control(PATH, "parallel_is_quicker_by_the_graph")
def systemd_takes_twice_as_long(world: World) -> None:
    for boot in boots(world, NATIVE):
        stretch(boot, 2)


@CONTROLS.control(SUM)
def sequential_takes_half_as_long_again(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        stretch(boot, 1.5)


@CONTROLS.control(SUM, PATH)
def predicted_afterwards(world: World) -> None:
    for arm in (SEQUENTIAL, NATIVE):
        world["plan"]["predicted_s"]["services"][arm] += 0.5


@CONTROLS.control(SUM, kind=INCONCLUSIVE)
def half_of_the_boots_took_twice_as_long(world: World) -> None:
    stretch(boots(world, SEQUENTIAL)[0], 2)


@CONTROLS.control(SUM, kind=INCONCLUSIVE)
def a_machine_too_slow_for_services_so_short(world: World) -> None:
    """Each costs 0.17 s to start: more than a fifth of what they take, and no sign of anything wrong."""
    for boot in boots(world, SEQUENTIAL):
        stretch(boot, 1.13)


@CONTROLS.control(SUM, PATH, kind=INCONCLUSIVE)
def slow_on_a_busy_machine(world: World) -> None:
    for arm in (SEQUENTIAL, NATIVE):
        for boot in boots(world, arm):
            stretch(boot, 2)
            boot["noise"]["others_cpu_s"] = 0.4 * boot["noise"]["wall_s"] * boot["noise"]["cpus"]


@CONTROLS.control(SUM, kind=INCONCLUSIVE)
def the_clocks_disagree(world: World) -> None:
    """As a guest whose clock runs at another pace, or whose student set its times: the host's stamps do not follow."""
    for boot in boots(world, SEQUENTIAL):
        zero = min(each["guest_s"] for each in boot["marks"])
        for each in boot["marks"]:
            each["guest_s"] = zero + (each["guest_s"] - zero) * 0.8


@CONTROLS.control(SUM, kind=INCONCLUSIVE)
def two_boots_only(world: World) -> None:
    world["plan"]["repeats"] = 2
    world["boots"]["boots"] = [boot for boot in world["boots"]["boots"] if boot["turn"] <= 2]


@CONTROLS.control("parallel_is_quicker_by_the_graph")
def nothing_is_gained(world: World) -> None:
    for boot, serial in zip(boots(world, NATIVE), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])


CHAIN, CPU = "control_a_chain_gains_nothing", "control_one_cpu_gains_nothing"


@CONTROLS.control(CHAIN)
def the_chain_gained(world: World) -> None:
    gain(world, "chain")


@CONTROLS.control(CPU)
def one_processor_gained(world: World) -> None:
    gain(world, "burners")


def gain(world: World, graph: str) -> None:
    """As if one after another took twice as long, on a machine that did nothing else."""
    for boot in boots(world, SEQUENTIAL, graph):
        stretch(boot, 2)
    for boot in boots(world, NATIVE, graph):
        stretch(boot, 1)


@CONTROLS.control(CPU)
def burners_that_burned_nothing(world: World) -> None:
    for boot in boots(world, NATIVE, "burners"):
        mark(boot, "end", "burn1")["cpu_s"] = 0.0


@CONTROLS.control(CPU, kind=INCONCLUSIVE)
def two_processors_in_the_control(world: World) -> None:
    world["plan"]["graphs"]["burners"]["cpus"] = 2


@CONTROLS.control(CHAIN)
def a_link_of_the_chain_did_not_wait_on_a_busy_machine(world: World) -> None:
    """The time says nothing there, and the order all."""
    for boot in boots(world, NATIVE, "chain"):
        boot["noise"]["others_cpu_s"] = 0.9 * boot["noise"]["wall_s"] * boot["noise"]["cpus"]
        shift(boot, "second", mark(boot, "begin", "first")["guest_s"] - mark(boot, "begin", "second")["guest_s"])


@CONTROLS.control(CHAIN, kind=INCONCLUSIVE)
def a_chain_that_is_none(world: World) -> None:
    world["plan"]["graphs"]["chain"]["services"]["third"].pop("after")


@CONTROLS.control(CHAIN, CPU, kind=INCONCLUSIVE)
def controls_asked_for_and_not_there(world: World) -> None:
    world["controls"]["boots"] = []


UNIT = "the_pages_unit_file_runs"
RESTART = "it_restarts_on_failure_only"
AFTER = "after_orders_and_starts_nothing"


CONTROLS.fails(UNIT, put("page_unit.alone.service.SubState", "dead"))
CONTROLS.fails(UNIT, put("page_unit.alone.service.Restart", "no"))
CONTROLS.fails(UNIT, put("page_unit.alone.service.FragmentPath", "/run/systemd/generator.late/my-service.service"))
CONTROLS.fails(UNIT, put("page_unit.unit", "#!/bin/sh\n/usr/bin/my-service &\n"))
CONTROLS.fails(UNIT, put("page_unit.alone.service.LoadState", "bad-setting"))
CONTROLS.fails(UNIT, put("page_unit.enabled", False))
CONTROLS.is_inconclusive(UNIT, put("page_unit.alone", {}))
CONTROLS.fails(RESTART, put("page_unit.killed.SubState", "failed"))
CONTROLS.fails(RESTART, put("page_unit.killed.NRestarts", "0"))
CONTROLS.fails(RESTART, put("page_unit.ended_later.ActiveState", "active"))
CONTROLS.fails(RESTART, put("page_unit.failing.ActiveState", "activating"))
CONTROLS.is_inconclusive(RESTART, put("page_unit.failing", {}))
CONTROLS.fails(AFTER, put("page_unit.alone.service.SubState", "dead"))
CONTROLS.fails(AFTER, put("page_unit.alone.service.Wants", "network.target"))
CONTROLS.fails(AFTER, put("page_unit.alone.service.After", "basic.target"))
CONTROLS.fails(AFTER, put("page_unit.together.service.ExecMainStartTimestampMonotonic", "1"))
CONTROLS.is_not_observable(AFTER, put("page_unit.alone.network.ActiveState", "active"))


@CONTROLS.control(AFTER)
def the_service_brought_the_network_along(world: World) -> None:
    alone = world["page_unit"]["alone"]
    alone["service"]["Wants"], alone["network"]["ActiveState"] = "network.target", "active"


CONTROLS.is_inconclusive(AFTER, put("page_unit.together.network.ActiveEnterTimestampMonotonic", "0"))


@CONTROLS.control(RESTART)
def the_same_process_as_before(world: World) -> None:
    world["page_unit"]["killed"]["MainPID"] = world["page_unit"]["alone"]["service"]["MainPID"]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", SOUND.names)
def test_each_check_has_been_seen_to_fail(check: str) -> None:
    CONTROLS.prove(check)
