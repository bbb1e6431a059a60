"""The checks on one byte's way and on this machine's own KVM: each passes on sound evidence, and fails where that is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vmlab.lab.controls import INCONCLUSIVE, NOT_OBSERVABLE, PASS, Control, Controls, World, changed, drop, put, take

from .sound import KVM, SOUND, chased, with_kvm

CONTROLS = Controls(KVM)
CHAINS = ("chain_small", "chain_large", "chain_other")
CHAIN = [
    "every_guest_begins_at_zero",
    "the_tables_lead_to_the_frame",
    "a_walk_has_four_levels_or_five",
    "a_large_page_ends_the_walk_earlier",
    "untouched_memory_has_no_frame",
    "the_byte_lies_at_its_address",
    "the_guests_memory_is_qemus",
    "a_store_by_the_host_reaches_the_guest",
    "memory_grows_as_it_is_touched",
    "the_hosts_tables_name_a_frame",
    "nobody_else_has_it",
    "one_byte_has_four_names",
]
CHASE, LAST = "the_mmu_does_not_walk_each_time", "own_memory_is_behind_nested_paging"
OWN = [name for name in SOUND.names if name.startswith("own_")]
JUDGED = [*CHAIN, CHASE, *OWN]


def test_every_check_passes_on_sound_evidence() -> None:
    assert {SOUND.verdict(name).kind for name in CHAIN} == {PASS}
    assert {KVM.verdict(name).kind for name in JUDGED} == {PASS}


# --- broken worlds: each is a change of the sound one, and the check that must see it -----------------------------------------------------


def plus(amount: int) -> Callable[[str], str]:
    """Add to a hexadecimal number."""
    return lambda text: hex(int(text, 16) + amount)


def grown(member: str, function: Callable[[int, int], int]) -> Callable[[World], None]:
    """Change a member of each step of growth by (step, value)."""

    def change(world: World) -> None:
        for number, sample in enumerate(world["growth.samples"]):
            if member in sample:
                sample[member] = function(number, sample[member])

    return change


def same_frame(world: World) -> None:
    for name in ("page.frame", "page.entry", "host_physical", "monitor_host_physical"):
        world[f"chain_other.host.{name}"] = world[f"chain_small.host.{name}"]


WRONG_ADDRESS = plus(1 << 12)
TABLES, FIRST_TOUCH = "the_tables_lead_to_the_frame", "untouched_memory_has_no_frame"
LEVELS, LARGE = "a_walk_has_four_levels_or_five", "a_large_page_ends_the_walk_earlier"
AT_ITS_ADDRESS, IN_QEMU, STORE = "the_byte_lies_at_its_address", "the_guests_memory_is_qemus", "a_store_by_the_host_reaches_the_guest"
GROWS, FRAME = "memory_grows_as_it_is_touched", "the_hosts_tables_name_a_frame"
NOBODY, NAMES, ZERO = "nobody_else_has_it", "one_byte_has_four_names", "every_guest_begins_at_zero"

CONTROLS.fails(ZERO, put("addresses.other.iomem[0].start", "0x1000"), name="a guest that begins elsewhere")
CONTROLS.fails(ZERO, put("addresses.main.firmware_map[0].type", "Reserved"), name="a firmware without memory at 0")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[4].entry", WRONG_ADDRESS), name="another frame in the last entry")
CONTROLS.fails(TABLES, changed("chain_large.walk.physical", WRONG_ADDRESS), name="a walk that ends elsewhere")
CONTROLS.fails(TABLES, changed("chain_other.walk.steps[2].entry_address", WRONG_ADDRESS), name="a table that nobody pointed to")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[3].index", lambda index: (index + 7) % 512), name="another index")
CONTROLS.fails(TABLES, changed("chain_small.registers.cr3", WRONG_ADDRESS), name="another CR3")
CONTROLS.fails(TABLES, changed("chain_small.ready.virtual", plus(1 << 21)), name="another virtual address")
CONTROLS.fails(TABLES, put("chain_small.walk.steps[2].entry", "0x0"), name="an entry that is not present")
CONTROLS.fails(TABLES, changed("chain_large.ready.pagemap", plus(1)), name="a pagemap that says otherwise")
CONTROLS.fails(TABLES, changed("chain_other.monitor_physical", WRONG_ADDRESS), name="a QEMU that says otherwise")
CONTROLS.fails(TABLES, put("chain_other.monitor_physical", None), name="a QEMU that finds nothing")
CONTROLS.fails(LEVELS, put("chain_small.registers.cr4", "0x750ef0"), name="five levels without LA57")
CONTROLS.fails(LARGE, put("chain_large.walk.steps[3].entry", "0x7"), name="a small page for a large one")
CONTROLS.fails(FIRST_TOUCH, put("chain_small.ready.second_pagemap", "0x8000000000001234"), name="a frame before the first touch")
CONTROLS.fails(FIRST_TOUCH, take("chain_small.second_before", "chain_small.answer.second_after"), name="tables before the first touch")
CONTROLS.fails(FIRST_TOUCH, take("chain_small.answer.second_after", "chain_small.second_before"), name="no frame after the touch")
CONTROLS.fails(AT_ITS_ADDRESS, put("chain_small.physical_holds", "x" * 64), name="other bytes at the address")
CONTROLS.fails(AT_ITS_ADDRESS, take("chain_other.next_page_holds", "chain_other.marker"), name="the marker everywhere")
CONTROLS.fails(IN_QEMU, put("chain_large.host.holds", ""), name="other bytes in QEMU")
CONTROLS.fails(IN_QEMU, take("chain_large.host.next_page_holds", "chain_large.marker"), name="the marker everywhere in QEMU")
CONTROLS.fails(IN_QEMU, put("chain_small.host.mapping.end", "0x1000"), name="a mapping that ends before")
CONTROLS.fails(IN_QEMU, put("chain_small.memory_bytes", 1 << 40), name="a mapping too small for a guest")
CONTROLS.fails(STORE, put("chain_small.answer.answered.answer", ""), name="a guest that sees nothing")
CONTROLS.fails(GROWS, put("growth.samples[*].own_bytes", 40_000_000), name="memory that is there at once")
CONTROLS.fails(GROWS, grown("backed_after", lambda _, value: value - 1), name="pages without a frame after the touch")
CONTROLS.fails(GROWS, grown("frames", lambda _, value: value - 1), name="two pages in one frame")
CONTROLS.fails(GROWS, put("growth.again.unbacked", 1), name="frames that come at the second touch")
CONTROLS.fails(FRAME, changed("chain_small.host.monitor_host_physical", WRONG_ADDRESS), name="two addresses for one page")
CONTROLS.fails(FRAME, put("machine.ram", [{"start": "0x0", "end": "0xfff"}]), name="a frame outside the RAM")
CONTROLS.fails(FRAME, same_frame, name="one frame for two markers")
CONTROLS.fails(NOBODY, take("chain_small.stranger.physical_holds", "chain_small.marker"), name="the marker in the other guest")
CONTROLS.fails(NOBODY, take("chain_other.stranger.holds", "chain_other.marker"), name="the marker in the other QEMU")
CONTROLS.fails(NAMES, put("chain_small.host.frame_holds", "y" * 64), name="other bytes in the frame")
CONTROLS.fails(NAMES, changed("chain_small.host.host_physical", plus(1)), name="another offset")

# --- what decides nothing, and what this host hides -----------------------------------------------------------------------------------


def no_large_page(world: World) -> None:
    for name in ("walk", "registers", "ready"):
        world[f"chain_large.{name}"] = world[f"chain_small.{name}"]


def no_la57(world: World) -> None:
    world["chain_small"] = {**world["chain_other"], "guest": "main"}
    world["addresses.main.la57"] = False


def others_move_memory(world: World) -> None:
    """In every attempt, so that the quietest is no use either."""
    grown("own_bytes", lambda step, value: value + step * 4_000_000)(world)
    world["growth.attempts[*].noise"] = 2.0


REFUSED = {"refused": "Operation not permitted"}
CONTROLS.is_inconclusive(LARGE, no_large_page)
CONTROLS.is_inconclusive(GROWS, put("growth.samples[*].huge_bytes", 2 << 20), name="a host with huge pages")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[*].unbacked", 0), name="pages that had frames before")
CONTROLS.is_inconclusive(GROWS, others_move_memory)
CONTROLS.is_inconclusive(GROWS, put("growth.mapped.present", 4096), name="a guest that was mapped in advance")
CONTROLS.is_inconclusive(AT_ITS_ADDRESS, put("chain_small.marker", "x"), name="a marker that anybody could guess")
CONTROLS.is_inconclusive(STORE, put("chain_small.answer.sent", ""), name="an answer that anybody could guess")
CONTROLS.is_inconclusive(NOBODY, put("chain_small.stranger.guest", "main"), name="a stranger that is the guest itself")
CONTROLS.is_inconclusive(
    NOBODY,
    take("chain_small.stranger.host_virtual_of_physical", "chain_small.host_virtual"),
    name="two QEMUs with the same addresses",
)
CONTROLS.is_inconclusive(FRAME, put("machine.ram", []), name="a host that hides where its RAM is")
CONTROLS.is_inconclusive(LEVELS, put("chain_other.guest", "main"), name="the same guest twice")
CONTROLS.is_inconclusive(TABLES, put("chain_small.ready.pagemap", "0x8180000000000000"), name="a pagemap that hides its frame")

CONTROLS.is_not_observable(IN_QEMU, put("chain_small.host.holds", REFUSED), name="memory of QEMU that may not be read")
CONTROLS.is_not_observable(STORE, put("chain_large.answer", REFUSED), name="memory of QEMU that may not be written")
CONTROLS.is_not_observable(FIRST_TOUCH, put("chain_small.answer", REFUSED), name="a page that could not be touched")
CONTROLS.is_not_observable(FRAME, put("chain_small.host.page.frame", None), name="frames that are hidden")
CONTROLS.is_not_observable(FRAME, put("chain_other.host.page", REFUSED), name="a pagemap that may not be read")
CONTROLS.is_not_observable(LEVELS, no_la57, name="a processor without LA57")


def test_hidden_frames_hide_the_fourth_name() -> None:
    """Not root: what rests on the frames is not observable either, and everything else still passes."""
    found = SOUND.verdicts(*(put(f"{chain}.host.page.frame", None) for chain in CHAINS))
    hidden = {FRAME, NAMES}
    assert {name for name in CHAIN if found[name] is NOT_OBSERVABLE} == hidden
    assert {found[name] for name in CHAIN if name not in hidden} == {PASS}


# --- what a miss costs ------------------------------------------------------------------------------------------------------------------

CONTROLS.fails(CHASE, put("chase", chased(1.05)), name="pages that cost the same")
CONTROLS.is_inconclusive(CHASE, put("chase", chased(1.2, wobble=0.3)), name="an interval over the bound")
for _run in ("guest", "native"):
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.right", False))
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.large_bytes.large", 0))
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.large_bytes.small", 2 << 20))
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.ns_per_step.compute", [0.3, 0.6] * 10))
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.ns_per_step.small", [20.0]))
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.ns_per_step.large", [0.0] * 31), name=f"no time at all ({_run})")
    CONTROLS.is_inconclusive(CHASE, put(f"chase.{_run}.ns_per_step.large", [20.0] * 30), name=f"a sample fewer ({_run})")
CONTROLS.is_not_observable(CHASE, put("chase", chased(1.0, 1.0)), name="a machine without a TLB to see")
CONTROLS.is_not_observable(CHASE, put("chase", {"not_run": "its processor is emulated"}))

# --- this machine's own KVM ---------------------------------------------------------------------------------------------------------------

SHADOWED = ("own_kvm_claims", "own_kvm_leaves_the_guest_alone", "own_kvm_reads_the_guests_tables", "own_guest_shows_nested_paging", LAST)
for _name in SHADOWED:
    CONTROLS.fails(_name, with_kvm("emulated_shadow"), name="shadow paging")


@CONTROLS.control("own_kvm_runs_on_the_processor", LAST)
def a_software_kvm(world: World) -> None:
    compute = world["own_probe.phases.compute"]
    compute["counts"]["insn_emulation"] = 2 * compute["n"]


CONTROLS.fails(LAST, put("own_probe.claim.nested_paging", "npt=N"), name="a module that contradicts the counts")
CONTROLS.fails(LAST, with_kvm("emulated_shadow"), put("own_probe.claim.nested_paging", "npt=Y"), name="a claim that the counts contradict")
CONTROLS.fails(LAST, take("own_probe", "emulated_shadow.probe"), name="the probe's counts are those of shadow paging")
CONTROLS.fails(LAST, take("own_counters.loops", "emulated_shadow.nested.loops"), name="the guest's counts are those of shadow paging")
for _part in ("own_probe", "own_counters"):
    CONTROLS.is_inconclusive(LAST, drop(_part))


@pytest.mark.parametrize("name", OWN)
def test_without_kvm_nothing_of_it_is_observable(name: str) -> None:
    assert SOUND.verdict(name).kind is NOT_OBSERVABLE


def test_whether_it_is_kvm_is_known_from_the_run_alone() -> None:
    """Whatever the observations say: a report whose host was none with KVM shows nothing of it."""
    assert KVM.verdict(LAST, put("run.accelerator", "tcg")).kind is NOT_OBSERVABLE
    assert KVM.verdict(LAST, drop("run.accelerator")).kind is INCONCLUSIVE


# --- the table, nothing, and garbage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", JUDGED)
def test_every_check_has_a_world_in_which_it_fails(check: str) -> None:
    CONTROLS.prove(check)


@pytest.mark.parametrize("check", JUDGED)
def test_nothing_is_inconclusive(check: str) -> None:
    KVM.hold_without_evidence(check)


@pytest.mark.parametrize("nothing", ["0x1", {"walk": {}, "ready": {}, "host": {}, "answer": {}}], ids=repr)
@pytest.mark.parametrize("name", CHAIN)
def test_nothing_in_the_shape_of_something_is_inconclusive(name: str, nothing: Any) -> None:
    read = next(each for each in SOUND.world().observations if each in SOUND.reads(name).places)
    assert SOUND.verdict(name, put(read, nothing)).kind is INCONCLUSIVE


@pytest.mark.parametrize("check", SOUND.names)
def test_no_garbage_breaks_a_check(check: str) -> None:
    KVM.hold_on_garbage(check)
