"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: labels swapped, dependencies dropped, an arm that fell back to another
way of booting, times forged, observations cut.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmlab.lab import Check, Evidence, Verdict, VerdictKind, judge, read_lab

LAB = Path(__file__).resolve().parents[1]
DEFINED = read_lab(LAB)
CHECKS = DEFINED.load_checks()
FAIL, INCONCLUSIVE, PASS, NOT_OBSERVABLE = VerdictKind.FAIL, VerdictKind.INCONCLUSIVE, VerdictKind.PASS, VerdictKind.NOT_OBSERVABLE
SEQUENTIAL, STARTPAR, LSB, NATIVE = "sysv-sequential", "sysv-startpar", "systemd-lsb", "systemd-native"

World = dict[str, Any]


def sound() -> World:
    """The recorded run. What is the same in each boot of an arm is kept once in the file, with its first boot."""
    world: World = json.loads((LAB / "tests" / "sound.json").read_text())
    first: dict[tuple[str, str], World] = {}
    for name in ("boots", "controls"):
        for boot in world["observations"][name]["boots"]:
            whole = first.setdefault((boot["arm"], boot["graph"]), boot)
            for part in ("units", "console", "facts"):
                boot.setdefault(part, copy.deepcopy(whole[part]))
    return world


SOUND = sound()


def verdicts(observations: World, parameters: World | None = None) -> dict[str, Verdict]:
    evidence = Evidence(observations, SOUND["parameters"] if parameters is None else parameters)
    return {judgement.check.id: judgement.verdict for judgement in judge(CHECKS, evidence)}


def alone(name: str, observations: World) -> Verdict:
    """The verdict of one check, whatever those it rests on conclude."""
    found = next(check for check in CHECKS if check.id == name)
    single = Check(found.id, found.title, found.points, found.claim, (), found.function)
    return judge([single], Evidence(observations, SOUND["parameters"]))[0].verdict


def boots(world: World, arm: str, graph: str = "services", place: str = "") -> list[World]:
    """The boots of an arm, to be changed in place."""
    if place:
        return [boot for boot in world[place]["boots"] if boot["arm"] == arm]
    return [
        boot for boot in world["boots" if graph == "services" else "controls"]["boots"] if boot["arm"] == arm and boot["graph"] == graph
    ]


def mark(boot: World, event: str, service: str) -> World:
    return next(each for each in boot["marks"] if each["event"] == event and each["service"] == service)


def shift(boot: World, service: str, seconds: float, events: tuple[str, ...] = ("begin", "end")) -> None:
    for event in events:
        for clock in ("guest_s", "host_s"):
            mark(boot, event, service)[clock] += seconds


def stretch(boot: World, factor: float) -> None:
    """As if everything from the first service on had taken so many times as long, by both clocks, on a quiet machine."""
    boot["noise"]["others_cpu_s"] = 0.0
    for clock in ("guest_s", "host_s"):
        zero = min(each[clock] for each in boot["marks"])
        for each in boot["marks"]:
            each[clock] = round(zero + (each[clock] - zero) * factor, 4)


def test_every_check_passes_on_the_sound_set() -> None:
    found = verdicts(SOUND["observations"])
    assert {name: verdict for name, verdict in found.items() if verdict.kind is not PASS} == {}


def test_all_claims_are_covered_and_the_points_are_twenty() -> None:
    assert {check.claim for check in CHECKS} == set(DEFINED.definition.claims) == {*(f"S{i}" for i in range(1, 7)), "D1", "D2", "D3", "D8"}
    assert sum(check.points for check in CHECKS) == 20


# --- controls: one broken thing each -----------------------------------------------------------------------------------------------

Breakage = Callable[[World], None]
CONTROLS: list[tuple[str, str, VerdictKind, Breakage]] = []


def control(*checks: str, kind: VerdictKind = FAIL) -> Callable[[Breakage], Breakage]:
    def add(breakage: Breakage) -> Breakage:
        CONTROLS.extend((check, breakage.__name__, kind, breakage) for check in checks)
        return breakage

    return add


SAME = "only_the_command_line_differs"
ARM = "each_arm_is_what_it_says"


@control(SAME)
def one_arm_had_another_machine(world: World) -> None:
    argv = boots(world, NATIVE, place="warm_up")[0]["argv"]
    argv[argv.index("-smp") + 1] = "4"


@control(SAME)
def somebody_wrote_to_the_disk(world: World) -> None:
    world["disk"]["sha256_after"] = "0" * 64


@control(SAME)
def two_arms_are_one(world: World) -> None:
    argv, other = (boots(world, arm, place="warm_up")[0]["argv"] for arm in (NATIVE, LSB))
    argv[argv.index("-append") + 1] = other[other.index("-append") + 1]


@control(SAME, kind=INCONCLUSIVE)
def an_arm_was_not_booted(world: World) -> None:
    world["warm_up"]["boots"].pop()


def swap(world: World, one: str, other: str) -> None:
    names = {one: other, other: one}
    for boot in world["boots"]["boots"]:
        boot["arm"] = names.get(boot["arm"], boot["arm"])


@control(ARM)
def labels_of_the_two_sysv_arms_swapped(world: World) -> None:
    swap(world, SEQUENTIAL, STARTPAR)


@control(ARM)
def labels_of_the_two_systemd_arms_swapped(world: World) -> None:
    swap(world, LSB, NATIVE)


@control(ARM, "truly_sequential_is_one_at_a_time", "sequential_time_adds_up", "systemd_takes_the_critical_path")
def labels_of_sysv_and_systemd_swapped(world: World) -> None:
    swap(world, SEQUENTIAL, NATIVE)


@control(ARM, "debian_starts_in_parallel_by_default")
def startpar_fell_back_to_serial(world: World) -> None:
    """A missing .depend file does that, and says nothing but that the line on the console is not there."""
    for boot, serial in zip(boots(world, STARTPAR), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])
        boot["console"] = [line for line in boot["console"] if "makefile-style concurrent boot in runlevel 2" not in line["text"]]


@control(ARM)
def startpar_fell_back_in_a_single_boot(world: World) -> None:
    boot = boots(world, STARTPAR)[1]
    boot["console"] = [line for line in boot["console"] if "in runlevel 2" not in line["text"]]


@control(ARM)
def native_units_fell_back_to_scripts(world: World) -> None:
    for boot, other in zip(boots(world, NATIVE), boots(world, LSB), strict=True):
        boot["units"] = copy.deepcopy(other["units"])


@control(ARM)
def systemd_does_not_know_a_service(world: World) -> None:
    for boot in boots(world, LSB):
        boot["units"] = [unit for unit in boot["units"] if unit["Id"] != "lab-shop.service"]


@control(ARM)
def the_other_init_was_pid_1(world: World) -> None:
    boots(world, STARTPAR)[0]["facts"]["pid1"] = "/usr/lib/systemd/systemd"


@control(ARM, kind=INCONCLUSIVE)
def an_arm_that_nobody_knows(world: World) -> None:
    world["boots"]["boots"][0]["arm"] = "upstart"


@control(ARM, kind=INCONCLUSIVE)
def boots_without_facts(world: World) -> None:
    for boot in world["boots"]["boots"]:
        boot["facts"] = {}


INITTAB = "sysv_init_reads_inittab"


@control(INITTAB)
def the_line_was_not_run(world: World) -> None:
    for boot in world["warm_up"]["boots"]:
        boot["marks"] = [each for each in boot["marks"] if each["event"] != "inittab"]


@control(INITTAB)
def systemd_ran_it_too(world: World) -> None:
    line = next(each for each in boots(world, STARTPAR, place="warm_up")[0]["marks"] if each["event"] == "inittab")
    boots(world, LSB, place="warm_up")[0]["marks"].append(line)


@control(INITTAB)
def another_default_runlevel(world: World) -> None:
    world["sysv"]["inittab"] = [line.replace("id:2:", "id:3:") for line in world["sysv"]["inittab"]]


LEVELS = "runlevels_2_to_5_are_alike"


@control(LEVELS)
def runlevel_3_starts_more(world: World) -> None:
    world["sysv"]["links"]["3"].append({"name": "S09nfs", "target": "../init.d/nfs"})


@control(LEVELS)
def halting_stops_nothing(world: World) -> None:
    world["sysv"]["links"]["0"] = []


@control(LEVELS, kind=INCONCLUSIVE)
def no_links(world: World) -> None:
    world["sysv"]["links"] = {level: [] for level in world["sysv"]["links"]}


S_LINKS = "s_links_start_by_number"


@control(S_LINKS)
def one_boot_in_another_order(world: World) -> None:
    names = {"clock": "mail", "mail": "clock"}
    for each in boots(world, SEQUENTIAL)[1]["marks"]:
        each["service"] = names.get(each["service"], each["service"])


@control(S_LINKS)
def another_number(world: World) -> None:
    link = next(each for each in world["sysv"]["links"]["2"] if each["name"].endswith("lab-keys"))
    link["name"] = "S09lab-keys"


@control(S_LINKS)
def a_link_to_something_else(world: World) -> None:
    link = next(each for each in world["sysv"]["links"]["2"] if each["name"].endswith("lab-keys"))
    link["target"] = "/bin/true"


K_LINKS = "k_links_stop_by_number"


@control(K_LINKS)
def killed_without_being_told(world: World) -> None:
    boot = boots(world, SEQUENTIAL, place="warm_up")[0]
    boot["marks"] = [each for each in boot["marks"] if each["event"] != "stop"]


@control(K_LINKS)
def stopped_in_the_order_of_the_start(world: World) -> None:
    boot = boots(world, SEQUENTIAL, place="warm_up")[0]
    boot["marks"] = [each for each in boot["marks"] if each["event"] != "stop"] + [
        each for each in reversed(boot["marks"]) if each["event"] == "stop"
    ]


ONE = "truly_sequential_is_one_at_a_time"


@control(ONE)
def forged_overlap_by_both_clocks(world: World) -> None:
    shift(boots(world, SEQUENTIAL)[0], "mail", -0.5, ("begin",))


@control(ONE)
def forged_overlap_by_the_hosts_clock(world: World) -> None:
    mark(boots(world, SEQUENTIAL)[2], "begin", "mail")["host_s"] -= 0.5


@control(ONE, "dependencies_are_kept")
def services_that_do_nothing(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        for name in ("mail", "print"):
            mark(boot, "end", name).update(guest_s=mark(boot, "begin", name)["guest_s"], host_s=mark(boot, "begin", name)["host_s"])


@control(ONE)
def burners_that_slept(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        mark(boot, "end", "index")["cpu_s"] = 0.01


@control(ONE, SUM := "sequential_time_adds_up", kind=INCONCLUSIVE)
def a_service_is_missing(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        boot["marks"] = [each for each in boot["marks"] if each["service"] != "mail"]


@control(ONE, kind=INCONCLUSIVE)
def a_service_without_an_end(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        boot["marks"] = [each for each in boot["marks"] if (each["event"], each["service"]) != ("end", "mail")]


@control(ONE, kind=INCONCLUSIVE)
def a_boot_is_missing(world: World) -> None:
    world["boots"]["boots"].remove(boots(world, SEQUENTIAL)[0])


DEBIAN = "debian_starts_in_parallel_by_default"


@control(DEBIAN)
def more_at_once_than_startpar_allows(world: World) -> None:
    for boot in boots(world, STARTPAR):
        for each in boot["marks"]:
            if each["event"] == "begin":
                each["guest_s"] = min(other["guest_s"] for other in boot["marks"])


@control(DEBIAN)
def no_depend_files(world: World) -> None:
    world["sysv"]["depend_bytes"][".depend.start"] = 0


@control(DEBIAN)
def legacy_boot_ordering(world: World) -> None:
    world["sysv"]["legacy_bootordering"] = True


KEPT = "dependencies_are_kept"


@control(KEPT)
def dependencies_dropped_in_the_guest(world: World) -> None:
    """The services were installed without the graph's arrows: all begin at once."""
    for boot in boots(world, NATIVE):
        first = min(each["guest_s"] for each in boot["marks"])
        for each in list(boot["marks"]):
            if each["event"] == "begin":
                shift(boot, each["service"], first - each["guest_s"])


@control(KEPT)
def systemd_started_them_one_by_one(world: World) -> None:
    for boot, serial in zip(boots(world, NATIVE), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])


@control(KEPT, kind=INCONCLUSIVE)
def a_graph_without_arrows(world: World) -> None:
    for each in world["plan"]["graphs"]["services"]["services"].values():
        each.pop("after", None)


PATH = "systemd_takes_the_critical_path"


@control(PATH)
def arrows_dropped_from_the_plan_alone(world: World) -> None:
    """Then the longest chain is 1.6 s, and neither what was written down nor what was measured fits."""
    for each in world["plan"]["graphs"]["services"]["services"].values():
        each.pop("after", None)


@control(PATH)
def the_same_with_a_prediction_to_fit(world: World) -> None:
    arrows_dropped_from_the_plan_alone(world)
    world["plan"]["predicted_s"]["services"][NATIVE] = 1.6


@control(PATH, "parallel_is_quicker_by_the_graph")
def systemd_takes_twice_as_long(world: World) -> None:
    for boot in boots(world, NATIVE):
        stretch(boot, 2)


@control(SUM)
def sequential_takes_half_as_long_again(world: World) -> None:
    for boot in boots(world, SEQUENTIAL):
        stretch(boot, 1.5)


@control(SUM, PATH)
def predicted_afterwards(world: World) -> None:
    for arm in (SEQUENTIAL, NATIVE):
        world["plan"]["predicted_s"]["services"][arm] += 0.5


@control(SUM, kind=INCONCLUSIVE)
def half_of_the_boots_took_twice_as_long(world: World) -> None:
    stretch(boots(world, SEQUENTIAL)[0], 2)


@control(SUM, kind=INCONCLUSIVE)
def a_machine_too_slow_for_services_so_short(world: World) -> None:
    """Each costs 0.17 s to start: more than a fifth of what they take, and no sign of anything wrong."""
    for boot in boots(world, SEQUENTIAL):
        stretch(boot, 1.13)


@control(SUM, PATH, kind=INCONCLUSIVE)
def slow_on_a_busy_machine(world: World) -> None:
    for arm in (SEQUENTIAL, NATIVE):
        for boot in boots(world, arm):
            stretch(boot, 2)
            boot["noise"]["others_cpu_s"] = 0.4 * boot["noise"]["wall_s"] * boot["noise"]["cpus"]


@control(SUM, kind=INCONCLUSIVE)
def the_clocks_disagree(world: World) -> None:
    """As a guest whose clock runs at another pace, or whose student set its times: the host's stamps do not follow."""
    for boot in boots(world, SEQUENTIAL):
        zero = min(each["guest_s"] for each in boot["marks"])
        for each in boot["marks"]:
            each["guest_s"] = zero + (each["guest_s"] - zero) * 0.8


@control(SUM, kind=INCONCLUSIVE)
def two_boots_only(world: World) -> None:
    world["plan"]["repeats"] = 2
    world["boots"]["boots"] = [boot for boot in world["boots"]["boots"] if boot["turn"] <= 2]


@control("parallel_is_quicker_by_the_graph")
def nothing_is_gained(world: World) -> None:
    for boot, serial in zip(boots(world, NATIVE), boots(world, SEQUENTIAL), strict=True):
        boot["marks"] = copy.deepcopy(serial["marks"])


CHAIN, CPU = "control_a_chain_gains_nothing", "control_one_cpu_gains_nothing"


@control(CHAIN)
def the_chain_gained(world: World) -> None:
    gain(world, "chain")


@control(CPU)
def one_processor_gained(world: World) -> None:
    gain(world, "burners")


def gain(world: World, graph: str) -> None:
    """As if one after another took twice as long, on a machine that did nothing else."""
    for boot in boots(world, SEQUENTIAL, graph):
        stretch(boot, 2)
    for boot in boots(world, NATIVE, graph):
        stretch(boot, 1)


@control(CPU)
def burners_that_burned_nothing(world: World) -> None:
    for boot in boots(world, NATIVE, "burners"):
        mark(boot, "end", "burn1")["cpu_s"] = 0.0


@control(CPU, kind=INCONCLUSIVE)
def two_processors_in_the_control(world: World) -> None:
    world["plan"]["graphs"]["burners"]["cpus"] = 2


@control(CHAIN)
def a_link_of_the_chain_did_not_wait_on_a_busy_machine(world: World) -> None:
    """The time says nothing there, and the order all."""
    for boot in boots(world, NATIVE, "chain"):
        boot["noise"]["others_cpu_s"] = 0.9 * boot["noise"]["wall_s"] * boot["noise"]["cpus"]
        shift(boot, "second", mark(boot, "begin", "first")["guest_s"] - mark(boot, "begin", "second")["guest_s"])


@control(CHAIN, kind=INCONCLUSIVE)
def a_chain_that_is_none(world: World) -> None:
    world["plan"]["graphs"]["chain"]["services"]["third"].pop("after")


@control(CHAIN, CPU, kind=INCONCLUSIVE)
def controls_asked_for_and_not_there(world: World) -> None:
    world["controls"]["boots"] = []


UNIT = "the_pages_unit_file_runs"
RESTART = "it_restarts_on_failure_only"
AFTER = "after_orders_and_starts_nothing"


def setting(check: str, kind: VerdictKind, path: str, value: Any) -> None:
    """A control that sets one value of the page's unit: for what needs no explanation."""

    def breakage(world: World) -> None:
        *holders, key = path.split(".")
        place = world["page_unit"]
        for part in holders:
            place = place[part]
        place[key] = value

    CONTROLS.append((check, f"{path} = {value!r}"[:50], kind, breakage))


setting(UNIT, FAIL, "alone.service.SubState", "dead")
setting(UNIT, FAIL, "alone.service.Restart", "no")
setting(UNIT, FAIL, "alone.service.FragmentPath", "/run/systemd/generator.late/my-service.service")
setting(UNIT, FAIL, "unit", "#!/bin/sh\n/usr/bin/my-service &\n")
setting(UNIT, FAIL, "alone.service.LoadState", "bad-setting")
setting(UNIT, FAIL, "enabled", False)
setting(UNIT, INCONCLUSIVE, "alone", {})
setting(RESTART, FAIL, "killed.SubState", "failed")
setting(RESTART, FAIL, "killed.NRestarts", "0")
setting(RESTART, FAIL, "ended_later.ActiveState", "active")
setting(RESTART, FAIL, "failing.ActiveState", "activating")
setting(RESTART, INCONCLUSIVE, "failing", {})
setting(AFTER, FAIL, "alone.service.SubState", "dead")
setting(AFTER, FAIL, "alone.service.Wants", "network.target")
setting(AFTER, FAIL, "alone.service.After", "basic.target")
setting(AFTER, FAIL, "together.service.ExecMainStartTimestampMonotonic", "1")
setting(AFTER, NOT_OBSERVABLE, "alone.network.ActiveState", "active")


@control(AFTER)
def the_service_brought_the_network_along(world: World) -> None:
    alone = world["page_unit"]["alone"]
    alone["service"]["Wants"], alone["network"]["ActiveState"] = "network.target", "active"


setting(AFTER, INCONCLUSIVE, "together.network.ActiveEnterTimestampMonotonic", "0")


@control(RESTART)
def the_same_process_as_before(world: World) -> None:
    world["page_unit"]["killed"]["MainPID"] = world["page_unit"]["alone"]["service"]["MainPID"]


@pytest.mark.parametrize(("check", "name", "kind", "breakage"), CONTROLS, ids=[f"{check}-{name}" for check, name, _, _ in CONTROLS])
def test_control(check: str, name: str, kind: VerdictKind, breakage: Breakage) -> None:
    world = copy.deepcopy(SOUND["observations"])
    breakage(world)
    found = alone(check, world)
    assert found.kind is kind, f"{name}: {found}"
    assert found.rationale


@pytest.mark.parametrize("check", [check.id for check in CHECKS])
def test_each_check_has_been_seen_to_fail(check: str) -> None:
    assert any(name == check and kind is FAIL for name, _, kind, _ in CONTROLS)


# --- nothing, garbage, and what a run leaves out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SOUND["observations"]))
@pytest.mark.parametrize("value", [None, {}, {"boots": []}])
def test_no_check_passes_without_what_it_reads(name: str, value: Any) -> None:
    """Taken away or emptied: whoever read it does not pass; the others do as before."""
    world = copy.deepcopy(SOUND["observations"])
    if value is None:
        del world[name]
    else:
        world[name] = value
    found = {check.id: alone(check.id, world).kind for check in CHECKS}
    assert not set(found.values()) & {FAIL, VerdictKind.ERROR}
    readers = {check for check, kind in found.items() if kind is not PASS}
    assert readers or name == "charts"


@pytest.mark.parametrize("junk", [0, "x", [], {"marks": 3}, {"marks": [{"event": "begin"}]}, {"marks": [None]}])
def test_a_boot_that_is_garbage_decides_nothing(junk: Any) -> None:
    world = copy.deepcopy(SOUND["observations"])
    if isinstance(junk, dict):
        for boot in world["boots"]["boots"]:
            boot.update(junk)
    else:
        world["boots"]["boots"] = [junk] * len(world["boots"]["boots"])
    kinds = {check.id: alone(check.id, world).kind for check in CHECKS}
    assert not set(kinds.values()) & {FAIL, VerdictKind.ERROR}
    assert kinds[ONE] is kinds[SUM] is kinds[KEPT] is INCONCLUSIVE


def test_a_quick_run_decides_what_it_can_and_says_what_it_left_out() -> None:
    world = copy.deepcopy(SOUND["observations"])
    world["plan"].update(arms=[SEQUENTIAL, NATIVE], controls=0)
    for name in ("boots", "warm_up"):
        world[name]["boots"] = [boot for boot in world[name]["boots"] if boot["arm"] in (SEQUENTIAL, NATIVE)]
    world["controls"]["boots"] = []
    left_out = {name for name, verdict in verdicts(world).items() if verdict.kind is NOT_OBSERVABLE}
    assert left_out == {DEBIAN, CHAIN, CPU}
    assert {name for name, verdict in verdicts(world).items() if verdict.kind is PASS} == {check.id for check in CHECKS} - left_out


def test_without_any_sysv_arm_nothing_is_said_of_sysv() -> None:
    world = copy.deepcopy(SOUND["observations"])
    world["plan"].update(arms=[LSB, NATIVE], controls=0)
    for name in ("boots", "warm_up"):
        world[name]["boots"] = [boot for boot in world[name]["boots"] if boot["arm"] in (LSB, NATIVE)]
    world["controls"]["boots"] = []
    found = {name: verdict.kind for name, verdict in verdicts(world).items()}
    assert {INITTAB, S_LINKS, K_LINKS, ONE, SUM, DEBIAN} <= {name for name, kind in found.items() if kind is NOT_OBSERVABLE}
    assert found[KEPT] is found[PATH] is PASS
