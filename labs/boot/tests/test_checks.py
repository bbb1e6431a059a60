"""Every check passes on a sound observation set, taken from a real run, and does not on a broken one.

The controls start from the sound set and break one thing in it: labels swapped, dependencies dropped, an arm that fell back to another
way of booting, times forged, observations cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from vmlab.lab.controls import INCONCLUSIVE, PASS, Control, Controls, World, put

from .recorded import LSB, NATIVE, SEQUENTIAL, SOUND, STARTPAR, Data, boots

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


# --- each place that a check of the disk, the arms and the files rests on -----------------------------------------------------------


def words_of(boot: Data, option: str, value: str) -> None:
    """Another word after an option of a boot's command."""
    boot["argv"][boot["argv"].index(option) + 1] = value


@CONTROLS.control(SAME)
def a_single_measured_boot_had_more_memory(world: World) -> None:
    words_of(boots(world, LSB)[2], "-m", "2048M")


@CONTROLS.control(SAME)
def a_control_had_more_processors(world: World) -> None:
    words_of(boots(world, NATIVE, "burners")[0], "-smp", "2")


@CONTROLS.control(SAME)
def all_boots_had_more_processors(world: World) -> None:
    for part in ("warm_up", "boots", "controls"):
        for boot in world[part]["boots"]:
            words_of(boot, "-smp", "4")


@CONTROLS.control(SAME)
def one_arm_had_two_command_lines(world: World) -> None:
    words_of(boots(world, LSB)[0], "-append", "quiet")


@CONTROLS.control(SAME)
def two_arms_are_one_in_all_measured_boots(world: World) -> None:
    line = next(boot["argv"][boot["argv"].index("-append") + 1] for boot in boots(world, LSB))
    for boot in boots(world, NATIVE):
        words_of(boot, "-append", line)


@CONTROLS.control(SAME)
def a_boot_without_a_command_line(world: World) -> None:
    boot = boots(world, STARTPAR)[0]
    boot["argv"] = boot["argv"][: boot["argv"].index("-append")] + boot["argv"][boot["argv"].index("-append") + 2 :]


@CONTROLS.control(SAME, kind=PASS)
def other_descriptors_and_another_generation(world: World) -> None:
    boot = boots(world, STARTPAR)[0]
    boot["argv"] = [word.replace("fd=15", "fd=99").replace("guid=", "guid=00") for word in boot["argv"]]


CONTROLS.is_inconclusive(SAME, put("boots.boots[0].argv", ["qemu"] * 9))
CONTROLS.fails(SAME, put("disk.sha256_before", "x" * 64), put("disk.sha256_after", "x" * 64), name="digests that are none")


@CONTROLS.control(SAME, ARM, kind=INCONCLUSIVE)
def an_arm_was_booted_once_and_not_measured(world: World) -> None:
    world["boots"]["boots"] = [boot for boot in world["boots"]["boots"] if boot["arm"] != LSB]
    world["warm_up"]["boots"] = [boot for boot in world["warm_up"]["boots"] if boot["arm"] != LSB]


def fact(name: str, value: str) -> Callable[[World], None]:
    """One fact of one boot is another."""

    def change(world: World) -> None:
        boots(world, NATIVE)[1]["facts"][name] = value

    return change


CMDLINE = "root=/dev/vda1 init=/lib/systemd/systemd bootlab.units=native"
CONTROLS.passes(ARM, fact("cmdline", CMDLINE), name="the least that the command line must say")
CONTROLS.fails(ARM, fact("cmdline", f"{CMDLINE} 3"), name="another runlevel")
CONTROLS.fails(ARM, fact("cmdline", f"{CMDLINE} concurrency=none"), name="a word of another arm")
CONTROLS.fails(ARM, fact("cmdline", CMDLINE.replace("bootlab.units=native", "")), name="without the arm's word")
CONTROLS.fails(ARM, fact("cmdline", CMDLINE.replace("init=", "i=")), name="without its init")
CONTROLS.fails(ARM, fact("cpus", "1"), name="another number of processors")
CONTROLS.passes(ARM, fact("pid1", "/lib/systemd/systemd"), name="a system whose /lib is no link")


@CONTROLS.control(ARM)
def the_control_was_of_the_default_runlevel(world: World) -> None:
    boot = boots(world, SEQUENTIAL, "chain")[0]
    boot["facts"]["cmdline"] = boot["facts"]["cmdline"].replace(" 3 ", " ")


@CONTROLS.control(ARM)
def a_unit_was_not_started(world: World) -> None:
    boots(world, NATIVE)[0]["units"][0]["ActiveState"] = "failed"


@CONTROLS.control(ARM)
def the_sequential_arm_says_that_it_is_concurrent(world: World) -> None:
    boots(world, SEQUENTIAL)[0]["console"].append({"at_s": 8.0, "text": "Using makefile-style concurrent boot in runlevel 2."})


STALLS = (
    "[   31.2] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[   31.2] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [startpar:311]",
    "[   31.2] INFO: task startpar:311 blocked for more than 120 seconds.",
    "[   31.2] clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
    "[   31.2] hrtimer: interrupt took 4321987 ns",
)


def broken_line(arm: str, words: str, *, by: str) -> Callable[[World], None]:
    """A line of init's is not on the console of one boot; one of the kernel's is."""

    def change(world: World) -> None:
        console = boots(world, arm)[1]["console"]
        console[:] = [line for line in console if words not in line["text"]] + [{"at_s": 9.0, "text": by}]

    return change


for line in STALLS:
    CONTROLS.is_inconclusive(ARM, broken_line(STARTPAR, "in runlevel 2", by=line), name=f"a machine that stood still: {line[9:30]}")
CONTROLS.fails(ARM, broken_line(STARTPAR, "in runlevel 2", by="[ 31.2] EXT4-fs: mounted"), name="no line, and no reason for it")
CONTROLS.passes(ARM, broken_line(SEQUENTIAL, "nothing", by=STALLS[0]), name="a machine that stood still and broke no line")
CONTROLS.is_inconclusive(INITTAB, broken_line(STARTPAR, "Entering runlevel", by=STALLS[0]), name="a machine that stood still")
CONTROLS.fails(INITTAB, broken_line(STARTPAR, "Entering runlevel", by="login:"), name="it entered no runlevel")
CONTROLS.fails(INITTAB, broken_line(SEQUENTIAL, "Entering runlevel", by="INIT: Entering runlevel: 3"), name="it entered another")


def without_line(start: str) -> Callable[[World], None]:
    """/etc/inittab lacks a line."""

    def change(world: World) -> None:
        world["sysv"]["inittab"] = [line for line in world["sysv"]["inittab"] if not line.startswith(start)]

    return change


CONTROLS.fails(INITTAB, without_line("lab:"))
CONTROLS.fails(INITTAB, without_line("l2:"), name="nothing is run in runlevel 2")
CONTROLS.fails(INITTAB, without_line("id:"), name="no runlevel is named")
CONTROLS.is_inconclusive(INITTAB, put("sysv.inittab", ["id:2:initdefault:", "lab:2:once:x"]))


# What the run was asked for, and what it says that it did.
for place, value in (("repeats", 4), ("controls", 2), ("scale", 2), ("arms", "sysv-sequential"), ("quick", True)):
    CONTROLS.is_inconclusive(ARM, put(f"parameters.{place}", value))


@CONTROLS.control(S_LINKS, kind=INCONCLUSIVE)
def one_boot_counts_twice(world: World) -> None:
    first, second, _ = boots(world, SEQUENTIAL)
    second["turn"] = first["turn"]


@CONTROLS.control(SAME, kind=PASS)
def the_shortest_command(world: World) -> None:
    for part in ("warm_up", "boots", "controls"):
        for boot in world[part]["boots"]:
            smp, line = (boot["argv"][boot["argv"].index(option) + 1] for option in ("-smp", "-append"))
            boot["argv"] = ["qemu", "-m", "1", "-smp", smp, "-append", line, "-a", "-b", "-c"]


@CONTROLS.control(SAME)
def two_arms_share_two_command_lines(world: World) -> None:
    """As many lines as arms, and yet each arm was booted with both."""
    first, second = (boots(world, arm)[0]["argv"] for arm in (LSB, NATIVE))
    lines = [words[words.index("-append") + 1] for words in (first, second)]
    for arm in (LSB, NATIVE):
        for boot, line in zip(boots(world, arm), (*lines, lines[0]), strict=True):
            words_of(boot, "-append", line)


CONTROLS.passes(INITTAB, put("sysv.inittab", ["id:2:initdefault:", "l2:2:wait:/etc/init.d/rc 2", "lab:2:once:x"]), name="the least inittab")


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
