"""Controls of the checks that judge order and time: what overlaps, waits for nobody, takes too long, or was measured on a busy machine."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from vmlab.lab.controls import FAIL, INCONCLUSIVE, PASS, Control, Controls, World, put

from .recorded import LSB, NATIVE, SEQUENTIAL, SOUND, STARTPAR, boots, lasting, mark, noise, shift, stall, stretch

CONTROLS = Controls(SOUND)
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


# --- all four arms are held against their predictions -------------------------------------------------------------------------------

OTHERS, GAIN = "others_start_in_parallel_as_quickly", "parallel_is_quicker_by_the_graph"


def after(arm: str, seconds: float, graph: str = "services") -> Callable[[World], None]:
    """The services of an arm took so long."""

    def change(world: World) -> None:
        lasting(world, arm, seconds, graph)

    return change


# From a fifth below the prediction to a fifth above it. Above that it may still be what starting them costs on a slow machine: 0.2 s each.
for check, arm, predicted in ((SUM, SEQUENTIAL, 8.8), (PATH, NATIVE, 4.8), (OTHERS, STARTPAR, 4.8), (OTHERS, LSB, 4.8)):
    for factor, kind in ((0.799, FAIL), (0.801, PASS), (1.199, PASS), (1.201, INCONCLUSIVE)):
        CONTROLS.expect(kind, check, after(arm, factor * predicted), name=f"{arm} takes {factor} times as long as predicted")
    CONTROLS.is_inconclusive(check, after(arm, predicted + 2.59), name=f"{arm} on a machine that starts a service in 0.199 s")
    CONTROLS.fails(check, after(arm, predicted + 2.61), name=f"{arm} is slower than any machine")


@CONTROLS.control(OTHERS)
def both_other_arms_take_four_times_as_long(world: World) -> None:
    for arm in (STARTPAR, LSB):
        for boot in boots(world, arm):
            stretch(boot, 4)


@CONTROLS.control(OTHERS)
def what_startpar_would_take_was_written_down_wrongly(world: World) -> None:
    world[f"plan.predicted_s.services.{STARTPAR}"] = 99


CONTROLS.fails(OTHERS, put(f"plan.predicted_s.services.{LSB}", 99))
CONTROLS.passes(SUM, put(f"plan.predicted_s.services.{SEQUENTIAL}", 8.8099))
CONTROLS.fails(SUM, put(f"plan.predicted_s.services.{SEQUENTIAL}", 8.8101))
CONTROLS.fails(CHAIN, put(f"plan.predicted_s.chain.{SEQUENTIAL}", 9))
CONTROLS.fails(CPU, put(f"plan.predicted_s.burners.{NATIVE}", 9))


def both(slow_s: float, quick_s: float, graph: str) -> tuple[Callable[[World], None], ...]:
    return after(SEQUENTIAL, slow_s, graph), after(NATIVE, quick_s, graph)


# The graph predicts a gain of 8.8 / 4.8 = 1.83 times, and a fifth more or less is near enough.
for slow_s, quick_s, kind in (
    (8.8, 8.8 / 1.468, PASS),
    (8.8, 8.8 / 1.465, INCONCLUSIVE),
    (14.0, 14.0 / 1.468, PASS),
    (14.0, 14.0 / 1.465, FAIL),
    (11.39, 5.0, INCONCLUSIVE),
    (11.41, 5.0, FAIL),
    (14.0, 14.0 / 2.199, PASS),
    (14.0, 14.0 / 2.201, FAIL),
    (8.79, 3.9, FAIL),
):
    CONTROLS.expect(kind, GAIN, *both(slow_s, quick_s, "services"), name=f"{slow_s:.3f} s against {quick_s:.3f} s")


def as_scripts(graph: str) -> Callable[[World], None]:
    """systemd starts the services of a control as quickly as SysV init does."""

    def change(world: World) -> None:
        for boot, other in zip(boots(world, NATIVE, graph), boots(world, SEQUENTIAL, graph), strict=True):
            boot["marks"] = copy.deepcopy(other["marks"])

    return change


# Where nothing can be gained, up to 1.15 times is nothing. Both arms slow to start a service (0.2 s each) may differ by more.
for graph, check, predicted in (("chain", CHAIN, 1.8), ("burners", CPU, 3.0)):
    quick_s = predicted + 0.61
    CONTROLS.passes(check, *both(1.149 * quick_s, quick_s, graph), name="just nothing")
    CONTROLS.fails(check, *both(1.151 * quick_s, quick_s, graph), name="a little gained")
    CONTROLS.is_inconclusive(check, as_scripts(graph), after(SEQUENTIAL, predicted + 0.59, graph), name="a machine slow to start a script")
    CONTROLS.fails(check, as_scripts(graph), after(SEQUENTIAL, predicted + 0.61, graph), name="no machine is so slow")


# --- a machine that stalls, swaps, or is busy --------------------------------------------------------------------------------------


def stalls(arm: str, graph: str, places: tuple[str, ...]) -> Callable[[World], None]:
    """The machine stands still for four seconds once in each boot of an arm, in one service now and in another then."""

    def change(world: World) -> None:
        for boot, service in zip(boots(world, arm, graph), places, strict=True):
            stall(boot, service, 4.0)

    return change


ELSEWHERE = {SEQUENTIAL: ("backup", "mail", "shop"), STARTPAR: ("array", "database", "shop"), LSB: ("array", "database", "shop")}
ELSEWHERE[NATIVE] = ELSEWHERE[LSB]
for check, arm in ((SUM, SEQUENTIAL), (PATH, NATIVE), (OTHERS, STARTPAR), (OTHERS, LSB), (GAIN, NATIVE)):
    swaps, always = stalls(arm, "services", ELSEWHERE[arm]), stalls(arm, "services", ("shop",) * 3)
    CONTROLS.is_inconclusive(check, swaps, name=f"a host that swaps, in {arm}")
    CONTROLS.fails(check, always, name=f"the same service is slow in each boot of {arm}")
CONTROLS.is_inconclusive(CHAIN, stalls(SEQUENTIAL, "chain", ("first", "second", "third")), name="a host that swaps")
CONTROLS.fails(CHAIN, stalls(SEQUENTIAL, "chain", ("second",) * 3), name="the same service is slow each time")


def busy(share: float, member: str = "others_cpu_s") -> Callable[[World], None]:
    """The sequential services take twice as long, while others have so much of the host."""

    def change(world: World) -> None:
        lasting(world, SEQUENTIAL, 17.6)
        for boot in boots(world, SEQUENTIAL):
            boot["noise"][member] = share * boot["noise"]["wall_s"] * (1 if member == "waited_s" else boot["noise"]["cpus"])

    return change


for member, quiet in (("others_cpu_s", 0.099), ("steal_s", 0.099), ("waited_s", 0.199)):
    CONTROLS.fails(SUM, busy(quiet, member), name=f"slow on a quiet machine, by {member}")
    CONTROLS.is_inconclusive(SUM, busy(quiet + 0.002, member), name=f"slow on a busy machine, by {member}")


def sixty_four_cpus(loops: int) -> Callable[[World], None]:
    """The sequential services take twice as long on a host with 64 CPUs, some of which run busy loops."""

    def change(world: World) -> None:
        lasting(world, SEQUENTIAL, 17.6)
        for boot in boots(world, SEQUENTIAL):
            boot["noise"].update(cpus=64, others_cpu_s=loops * boot["noise"]["wall_s"])

    return change


CONTROLS.fails(SUM, sixty_four_cpus(4), name="four busy loops take nothing from a guest on 64 CPUs")
CONTROLS.is_inconclusive(SUM, sixty_four_cpus(8), name="eight busy loops may, on 64 CPUs")


def one_by_one(arm: str, *, noisy: tuple[int, ...]) -> Callable[[World], None]:
    """No two services run at once in two boots of an arm; the machine was busy in some."""

    def change(world: World) -> None:
        for number, (boot, serial) in enumerate(zip(boots(world, arm), boots(world, SEQUENTIAL), strict=True)):
            noise(boot, 0.5 if number in noisy else 0.0)
            if number > 0:
                boot["marks"] = copy.deepcopy(serial["marks"])

    return change


for check, arm in ((DEBIAN, STARTPAR), (KEPT, LSB), (KEPT, NATIVE)):
    CONTROLS.fails(check, one_by_one(arm, noisy=()), name=f"{arm} one by one")
    CONTROLS.fails(check, one_by_one(arm, noisy=(0, 1)), name=f"{arm} one by one, once on a quiet machine")
    CONTROLS.is_inconclusive(check, one_by_one(arm, noisy=(1, 2)), name=f"{arm} one by one, on a busy machine")


@CONTROLS.control(KEPT, kind=PASS)
def sysv_one_by_one_breaks_no_dependency(world: World) -> None:
    one_by_one(STARTPAR, noisy=())(world)


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
