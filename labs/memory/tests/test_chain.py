"""The checks on one byte's way: each passes on what a real run recorded, and fails in a world that is broken where it looks.

``chain.json`` holds a real run's observations, made as root on a machine without KVM.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vmlab.lab import Check, Evidence, VerdictKind, judge, read_lab

GARBAGE: tuple[Any, ...] = (None, "garbage", -1, 1 << 70, float("nan"), [], {}, "0x0")
LAB = Path(__file__).resolve().parents[1]
RECORDED = json.loads((LAB / "tests" / "chain.json").read_text())
HOSTS = json.loads((LAB / "tests" / "emulated_host.json").read_text())
CHECKS = {each.id: each for each in read_lab(LAB).load_checks()}
PASS, FAIL, INCONCLUSIVE, NOT_OBSERVABLE = VerdictKind.PASS, VerdictKind.FAIL, VerdictKind.INCONCLUSIVE, VerdictKind.NOT_OBSERVABLE

# Each check with the observations that it reads.
CHAINS = ("chain_small", "chain_large", "chain_other")
READS = {
    "every_guest_begins_at_zero": ("addresses",),
    "the_tables_lead_to_the_frame": CHAINS,
    "a_walk_has_four_levels_or_five": ("chain_small", "chain_other", "addresses"),
    "a_large_page_ends_the_walk_earlier": ("chain_large",),
    "untouched_memory_has_no_frame": ("chain_small",),
    "the_byte_lies_at_its_address": CHAINS,
    "the_guests_memory_is_qemus": CHAINS,
    "a_store_by_the_host_reaches_the_guest": CHAINS,
    "memory_grows_as_it_is_touched": ("growth",),
    "the_hosts_tables_name_a_frame": (*CHAINS, "machine"),
    "nobody_else_has_it": CHAINS,
    "one_byte_has_four_names": CHAINS,
}
World = dict[str, Any]


@pytest.fixture
def world() -> World:
    """The observations of the real run, to be broken."""
    return copy.deepcopy(RECORDED["observations"])


def verdict(name: str, observations: World) -> VerdictKind:
    """The verdict of one check, whatever those that it rests on conclude."""
    found = CHECKS[name]
    single = Check(found.id, found.title, found.points, found.claim, (), found.function)
    return judge([single], Evidence(observations, RECORDED["parameters"]))[0].verdict.kind


@pytest.mark.parametrize("name", READS)
def test_each_check_passes_on_what_a_real_run_recorded(name: str, world: World) -> None:
    assert verdict(name, world) is PASS


# --- broken worlds: each is a change of the sound one, and the check that must see it -----------------------------------------------------

Break = Callable[[World], None]


def put(*way: Any) -> Break:
    """Put the last word at the place that the others name."""

    def change(world: World) -> None:
        place: Any = world
        for key in way[:-2]:
            place = place[key]
        place[way[-2]] = way[-1]

    return change


def add(amount: int, *way: Any) -> Break:
    """Add to a hexadecimal number."""

    def change(world: World) -> None:
        place: Any = world
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] = hex(int(place[way[-1]], 16) + amount)

    return change


def marker_at(*way: Any) -> Break:
    """Put the chain's marker where it does not belong."""

    def change(world: World) -> None:
        put(*way, world[way[0]]["marker"])(world)

    return change


def grow(**changes: Callable[[int, int], int]) -> Break:
    """Change members of each step of growth by (step, value)."""

    def change(world: World) -> None:
        for number, sample in enumerate(world["growth"]["samples"]):
            for name, function in changes.items():
                if name in sample:
                    sample[name] = function(number, sample[name])

    return change


def same_frame(world: World) -> None:
    for name in ("frame", "entry"):
        world["chain_other"]["host"]["page"][name] = world["chain_small"]["host"]["page"][name]
    for name in ("host_physical", "monitor_host_physical"):
        world["chain_other"]["host"][name] = world["chain_small"]["host"][name]


FAILS: dict[str, tuple[str, Break]] = {
    "a guest that begins elsewhere": ("every_guest_begins_at_zero", put("addresses", "other", "iomem", 0, "start", "0x1000")),
    "a firmware without memory at 0": ("every_guest_begins_at_zero", put("addresses", "main", "firmware_map", 0, "type", "Reserved")),
    "another frame in the last entry": ("the_tables_lead_to_the_frame", add(1 << 12, "chain_small", "walk", "steps", 4, "entry")),
    "a walk that ends elsewhere": ("the_tables_lead_to_the_frame", add(1 << 12, "chain_large", "walk", "physical")),
    "a table that nobody pointed to": ("the_tables_lead_to_the_frame", add(1 << 12, "chain_other", "walk", "steps", 2, "entry_address")),
    "another index": ("the_tables_lead_to_the_frame", put("chain_small", "walk", "steps", 3, "index", 7)),
    "another CR3": ("the_tables_lead_to_the_frame", add(1 << 12, "chain_small", "registers", "cr3")),
    "another virtual address": ("the_tables_lead_to_the_frame", add(1 << 21, "chain_small", "ready", "virtual")),
    "an entry that is not present": ("the_tables_lead_to_the_frame", put("chain_small", "walk", "steps", 2, "entry", "0x0")),
    "a pagemap that says otherwise": ("the_tables_lead_to_the_frame", add(1, "chain_large", "ready", "pagemap")),
    "a QEMU that says otherwise": ("the_tables_lead_to_the_frame", add(1 << 12, "chain_other", "monitor_physical")),
    "a QEMU that finds nothing": ("the_tables_lead_to_the_frame", put("chain_other", "monitor_physical", None)),
    "five levels without LA57": ("a_walk_has_four_levels_or_five", put("chain_small", "registers", "cr4", "0x750ef0")),
    "a small page for a large one": ("a_large_page_ends_the_walk_earlier", put("chain_large", "walk", "steps", 3, "entry", "0x7")),
    "a frame before the first touch": (
        "untouched_memory_has_no_frame",
        put("chain_small", "ready", "second_pagemap", "0x8000000000001234"),
    ),
    "tables before the first touch": (
        "untouched_memory_has_no_frame",
        lambda world: put("chain_small", "second_before", world["chain_small"]["answer"]["second_after"])(world),
    ),
    "no frame after the touch": (
        "untouched_memory_has_no_frame",
        lambda world: put("chain_small", "answer", "second_after", world["chain_small"]["second_before"])(world),
    ),
    "other bytes at the address": ("the_byte_lies_at_its_address", put("chain_small", "physical_holds", "x" * 64)),
    "the marker everywhere": ("the_byte_lies_at_its_address", marker_at("chain_other", "next_page_holds")),
    "other bytes in QEMU": ("the_guests_memory_is_qemus", put("chain_large", "host", "holds", "")),
    "the marker everywhere in QEMU": ("the_guests_memory_is_qemus", marker_at("chain_large", "host", "next_page_holds")),
    "a mapping that ends before": ("the_guests_memory_is_qemus", put("chain_small", "host", "mapping", "end", "0x1000")),
    "a mapping too small for a guest": ("the_guests_memory_is_qemus", put("chain_small", "memory_bytes", 1 << 40)),
    "a guest that sees nothing": ("a_store_by_the_host_reaches_the_guest", put("chain_small", "answer", "answered", "answer", "")),
    "memory that is there at once": ("memory_grows_as_it_is_touched", grow(own_bytes=lambda _, __: 40_000_000)),
    "pages without a frame after the touch": ("memory_grows_as_it_is_touched", grow(backed_after=lambda _, value: value - 1)),
    "two pages in one frame": ("memory_grows_as_it_is_touched", grow(frames=lambda _, value: value - 1)),
    "frames that come at the second touch": ("memory_grows_as_it_is_touched", put("growth", "again", "unbacked", 1)),
    "two addresses for one page": ("the_hosts_tables_name_a_frame", add(1 << 12, "chain_small", "host", "monitor_host_physical")),
    "a frame outside the RAM": ("the_hosts_tables_name_a_frame", put("machine", "ram", [{"start": "0x0", "end": "0xfff"}])),
    "one frame for two markers": ("the_hosts_tables_name_a_frame", same_frame),
    "the marker in the other guest": ("nobody_else_has_it", marker_at("chain_small", "stranger", "physical_holds")),
    "the marker in the other QEMU": ("nobody_else_has_it", marker_at("chain_other", "stranger", "holds")),
    "other bytes in the frame": ("one_byte_has_four_names", put("chain_small", "host", "frame_holds", "y" * 64)),
    "another offset": ("one_byte_has_four_names", add(1, "chain_small", "host", "host_physical")),
}


@pytest.mark.parametrize("what", FAILS)
def test_control_a_broken_world_fails(what: str, world: World) -> None:
    name, change = FAILS[what]
    change(world)
    assert verdict(name, world) is FAIL


def test_every_check_has_a_world_in_which_it_fails() -> None:
    assert {name for name, _ in FAILS.values()} == set(READS)


UNDECIDED: dict[str, tuple[str, Break]] = {
    "no large page was given": (
        "a_large_page_ends_the_walk_earlier",
        lambda world: world.update(
            chain_large={**world["chain_large"], **{k: world["chain_small"][k] for k in ("walk", "registers", "ready")}}
        ),
    ),
    "a host with huge pages": ("memory_grows_as_it_is_touched", grow(huge_bytes=lambda _, __: 2 << 20)),
    "pages that had frames before": ("memory_grows_as_it_is_touched", grow(unbacked=lambda _, __: 0)),
    "a guest that is busy elsewhere": ("memory_grows_as_it_is_touched", grow(own_bytes=lambda step, value: value + step * 4_000_000)),
    "a guest that was mapped in advance": ("memory_grows_as_it_is_touched", put("growth", "mapped", "present", 4096)),
    "a marker that anybody could guess": ("the_byte_lies_at_its_address", put("chain_small", "marker", "x")),
    "an answer that anybody could guess": ("a_store_by_the_host_reaches_the_guest", put("chain_small", "answer", "sent", "")),
    "a stranger that is the guest itself": ("nobody_else_has_it", put("chain_small", "stranger", "guest", "main")),
    "two QEMUs with the same addresses": (
        "nobody_else_has_it",
        lambda world: put("chain_small", "stranger", "host_virtual_of_physical", world["chain_small"]["host_virtual"])(world),
    ),
    "a host that hides where its RAM is": ("the_hosts_tables_name_a_frame", put("machine", "ram", [])),
    "the same guest twice": ("a_walk_has_four_levels_or_five", put("chain_other", "guest", "main")),
    "a pagemap that hides its frame": ("the_tables_lead_to_the_frame", put("chain_small", "ready", "pagemap", "0x8180000000000000")),
}


@pytest.mark.parametrize("what", UNDECIDED)
def test_what_decides_nothing_is_inconclusive(what: str, world: World) -> None:
    name, change = UNDECIDED[what]
    change(world)
    assert verdict(name, world) is INCONCLUSIVE


REFUSED = {"refused": "Operation not permitted"}
HIDDEN: dict[str, tuple[str, Break]] = {
    "memory of QEMU that may not be read": ("the_guests_memory_is_qemus", put("chain_small", "host", "holds", REFUSED)),
    "memory of QEMU that may not be written": ("a_store_by_the_host_reaches_the_guest", put("chain_large", "answer", REFUSED)),
    "a page that could not be touched": ("untouched_memory_has_no_frame", put("chain_small", "answer", REFUSED)),
    "frames that are hidden": ("the_hosts_tables_name_a_frame", put("chain_small", "host", "page", "frame", None)),
    "a pagemap that may not be read": ("the_hosts_tables_name_a_frame", put("chain_other", "host", "page", REFUSED)),
    "a processor without LA57": (
        "a_walk_has_four_levels_or_five",
        lambda world: world.update(chain_small={**world["chain_other"], "guest": "main"}, addresses={"main": {"la57": False}}),
    ),
}


@pytest.mark.parametrize("what", HIDDEN)
def test_what_this_host_hides_is_not_observable(what: str, world: World) -> None:
    name, change = HIDDEN[what]
    change(world)
    assert verdict(name, world) is NOT_OBSERVABLE


def test_hidden_frames_hide_the_fourth_name(world: World) -> None:
    """Not root: what rests on the frames is not observable either, and everything else still passes."""
    for chain in CHAINS:
        world[chain]["host"]["page"]["frame"] = None
    found = {each.check.id: each.verdict.kind for each in judge([CHECKS[name] for name in READS], Evidence(world, RECORDED["parameters"]))}
    hidden = {"the_hosts_tables_name_a_frame", "one_byte_has_four_names"}
    assert {name for name, kind in found.items() if kind is NOT_OBSERVABLE} == hidden
    assert {kind for name, kind in found.items() if name not in hidden} == {PASS}


# --- nothing, and garbage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [{}, [], None, 5, "0x1", {"walk": {}, "ready": {}, "host": {}, "answer": {}}], ids=repr)
@pytest.mark.parametrize("name", READS)
def test_nothing_is_inconclusive(name: str, nothing: Any, world: World) -> None:
    world[READS[name][0]] = nothing
    assert verdict(name, world) is INCONCLUSIVE


@pytest.mark.parametrize("name", READS)
def test_no_observation_is_inconclusive(name: str) -> None:
    assert verdict(name, {}) is INCONCLUSIVE


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each single value."""
    if isinstance(value, dict | list):
        for key, within in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(within, (*way, key))
    else:
        yield way


@pytest.mark.parametrize("name", READS)
def test_no_garbage_breaks_a_check(name: str, world: World) -> None:
    for observation in READS[name]:
        for way in list(leaves(world[observation])):
            holder: Any = world[observation]
            for key in way[:-1]:
                holder = holder[key]
            kept = holder[way[-1]]
            for garbage in GARBAGE:
                holder[way[-1]] = garbage
                assert verdict(name, world) is not VerdictKind.ERROR, (observation, *way, garbage)
            holder[way[-1]] = kept


# --- what a miss costs ------------------------------------------------------------------------------------------------------------------

CHASE = "the_mmu_does_not_walk_each_time"


def chased(ratio: float = 2.0, own: float = 1.8, *, wobble: float = 0.02) -> World:
    """A chase in a guest of a machine with KVM, as it would be recorded."""

    def run(factor: float) -> World:
        samples = [1 + wobble * ((7 * i) % 11 - 5) / 5 for i in range(31)]
        times = {"small": [20 * factor * s for s in samples], "large": [20 * s for s in samples[::-1]], "compute": [0.3] * 31}
        return {"pages": 16384, "steps": 1000, "right": True, "large_bytes": {"small": 0, "large": 64 << 20}, "ns_per_step": times}

    return {"chase": {"guest": run(ratio), "native": run(own)}}


def test_a_miss_that_costs_passes() -> None:
    assert verdict(CHASE, chased()) is PASS


def test_control_pages_that_cost_the_same_fail() -> None:
    assert verdict(CHASE, chased(1.05)) is FAIL


def test_an_interval_over_the_bound_is_inconclusive() -> None:
    assert verdict(CHASE, chased(1.2, wobble=0.3)) is INCONCLUSIVE


@pytest.mark.parametrize("run", ["guest", "native"])
def test_times_that_compare_nothing_are_inconclusive(run: str) -> None:
    for way, value in (
        (("right",), False),
        (("large_bytes", "large"), 0),
        (("large_bytes", "small"), 2 << 20),
        (("ns_per_step", "compute"), [0.3, 0.6] * 10),
        (("ns_per_step", "small"), [20.0]),
        (("ns_per_step", "large"), [0.0] * 31),
    ):
        seen = chased()
        put("chase", run, *way, value)(seen)
        assert verdict(CHASE, seen) is INCONCLUSIVE, way


def test_without_a_tlb_to_see_or_a_processor_of_its_own_it_is_not_observable() -> None:
    assert verdict(CHASE, chased(1.0, 1.0)) is NOT_OBSERVABLE
    assert verdict(CHASE, {"chase": {"not_run": "its processor is emulated"}}) is NOT_OBSERVABLE
    assert verdict(CHASE, {}) is INCONCLUSIVE


# --- this machine's own KVM ---------------------------------------------------------------------------------------------------------------

OWN = [name for name in CHECKS if name.startswith("own_")]
COUNTED = ["own_kvm_leaves_the_guest_alone", "own_kvm_reads_the_guests_tables", "own_guest_shows_nested_paging"]
LAST = "own_memory_is_behind_nested_paging"


def machine(world: str) -> World:
    """A machine with KVM: what was counted on the emulated host stands for it."""
    seen = HOSTS["observations"][world]
    return copy.deepcopy(
        {"machine": {"accelerator": "kvm"}, "own_probe": seen["probe"], "own_counters": {"loops": seen["nested"]["loops"]}}
    )


@pytest.mark.parametrize("name", OWN)
def test_nested_paging_passes(name: str) -> None:
    assert verdict(name, machine("emulated_nested")) is PASS


@pytest.mark.parametrize("name", ["own_kvm_claims", *COUNTED, LAST])
def test_control_shadow_paging_fails(name: str) -> None:
    assert verdict(name, machine("emulated_shadow")) is FAIL


def test_control_a_software_kvm_fails() -> None:
    seen = machine("emulated_nested")
    compute = seen["own_probe"]["phases"]["compute"]
    compute["counts"]["insn_emulation"] = 2 * compute["n"]
    assert verdict("own_kvm_runs_on_the_processor", seen) is FAIL
    assert verdict(LAST, seen) is FAIL


@pytest.mark.parametrize(("world", "claim"), [("emulated_nested", "npt=N"), ("emulated_shadow", "npt=Y")])
def test_control_a_module_that_contradicts_the_counts_fails(world: str, claim: str) -> None:
    seen = machine(world)
    seen["own_probe"]["claim"]["nested_paging"] = claim
    assert verdict(LAST, seen) is FAIL


def test_each_count_is_needed() -> None:
    for part in ("own_probe", "own_counters"):
        seen = machine("emulated_nested")
        seen[part] = machine("emulated_shadow")[part]
        assert verdict(LAST, seen) is FAIL
        del seen[part]
        assert verdict(LAST, seen) is INCONCLUSIVE


@pytest.mark.parametrize("name", OWN)
def test_without_kvm_nothing_of_it_is_observable(name: str) -> None:
    skipped = {"not_run": "KVM runs no guest on this machine"}
    seen = {"machine": {"accelerator": "tcg"}, "own_probe": skipped, "own_counters": skipped}
    assert verdict(name, seen) is NOT_OBSERVABLE
