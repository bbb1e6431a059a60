"""The checks on one byte's way: each passes on sound evidence, and fails where that is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import INCONCLUSIVE, NOT_OBSERVABLE, PASS, Control, Controls, World, changed, drop, put, take

from .sound import CHAIN, SOUND

CONTROLS = Controls(SOUND)
CHAINS = ("chain_small", "chain_large", "chain_other")


def test_every_check_passes_on_sound_evidence() -> None:
    assert {SOUND.verdict(name).kind for name in CHAIN} == {PASS}


# --- broken worlds: each is a change of the sound one, and the check that must see it -----------------------------------------------------


def plus(amount: int) -> Callable[[str], str]:
    """Add to a hexadecimal number."""
    return lambda text: hex(int(text, 16) + amount)


def flipped(bits: int) -> Callable[[str], str]:
    """Turn bits of a hexadecimal number over."""
    return lambda text: hex(int(text, 16) ^ bits)


def same_frame(world: World) -> None:
    for name in ("page.frame", "page.entry", "host_physical", "monitor_host_physical"):
        world[f"chain_other.host.{name}"] = world[f"chain_small.host.{name}"]


WRONG_ADDRESS = plus(1 << 12)
TABLES, FIRST_TOUCH = "the_tables_lead_to_the_frame", "untouched_memory_has_no_frame"
LEVELS, LARGE = "a_walk_has_four_levels_or_five", "a_large_page_ends_the_walk_earlier"
AT_ITS_ADDRESS, IN_QEMU, STORE = "the_byte_lies_at_its_address", "the_guests_memory_is_qemus", "a_store_by_the_host_reaches_the_guest"
FRAME = "the_hosts_tables_name_a_frame"
NOBODY, NAMES, ZERO = "nobody_else_has_it", "one_byte_has_four_names", "every_guest_begins_at_zero"

for _guest in ("main", "other"):
    CONTROLS.fails(ZERO, put(f"addresses.{_guest}.iomem[0].start", "0x10"), name=f"a kernel of {_guest} that begins elsewhere")
    CONTROLS.fails(ZERO, put(f"addresses.{_guest}.firmware_map[0].start", "0x1"), name=f"a firmware of {_guest} that begins elsewhere")
    CONTROLS.fails(ZERO, put(f"addresses.{_guest}.firmware_map[0].type", "Reserved"), name=f"a firmware without memory at 0 ({_guest})")
    CONTROLS.is_inconclusive(ZERO, put(f"addresses.{_guest}.iomem[0].end", "0x0"), name=f"addresses that are hidden ({_guest})")
CONTROLS.passes(ZERO, put("addresses.main.iomem[0].end", "0x1"), name="a range of two bytes")

for _chain in CHAINS:
    CONTROLS.fails(TABLES, changed(f"{_chain}.walk.steps[-1].entry", plus(1 << 21)), name=f"another frame in the last entry of {_chain}")
    CONTROLS.fails(TABLES, changed(f"{_chain}.walk.physical", WRONG_ADDRESS), name=f"a walk that ends elsewhere ({_chain})")
    CONTROLS.fails(TABLES, changed(f"{_chain}.registers.cr3", WRONG_ADDRESS), name=f"another CR3 ({_chain})")
    CONTROLS.fails(TABLES, changed(f"{_chain}.monitor_physical", WRONG_ADDRESS), name=f"a QEMU that says otherwise ({_chain})")
    CONTROLS.fails(TABLES, changed(f"{_chain}.ready.pagemap", plus(1)), name=f"a pagemap that says otherwise ({_chain})")
    CONTROLS.fails(TABLES, changed(f"{_chain}.registers.fs_base", plus(64)), name=f"another thread ({_chain})")
    CONTROLS.is_inconclusive(TABLES, put(f"{_chain}.registers.cpl", 0), name=f"a processor in the kernel ({_chain})")
    CONTROLS.is_inconclusive(TABLES, put(f"{_chain}.registers.cpu", 1), name=f"another processor ({_chain})")
    CONTROLS.is_inconclusive(TABLES, changed(f"{_chain}.registers.cr0", flipped(1 << 31)), name=f"a processor without paging ({_chain})")
    CONTROLS.is_inconclusive(TABLES, changed(f"{_chain}.registers.efer", flipped(1 << 10)), name=f"a processor with 32 bits ({_chain})")
CONTROLS.passes(TABLES, changed("chain_small.registers.cr3", plus(0x18)), name="a CR3 with a process's number in it")
CONTROLS.passes(TABLES, changed("chain_small.walk.steps[-1].entry", flipped(1 << 63)), name="a page that may not be executed")
CONTROLS.passes(TABLES, changed("chain_small.walk.steps[-1].entry", flipped(1 << 7)), name="a memory type (PAT, bit 7 of the last level)")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[1].entry", flipped(1)), name="a table that is not present, and the walk goes on")
CONTROLS.fails(TABLES, changed("chain_other.walk.steps[2].entry_address", WRONG_ADDRESS), name="a table that nobody pointed to")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[3].index", lambda index: (index + 7) % 512), name="another index")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[3].level", lambda level: level + 1), name="another level")
CONTROLS.fails(TABLES, changed("chain_small.ready.virtual", plus(1 << 21)), name="another virtual address")
CONTROLS.fails(TABLES, changed("chain_small.walk.virtual", plus(1)), name="a walk for another address")
CONTROLS.fails(TABLES, put("chain_small.walk.page_bytes", 2 << 20), name="a page of another size")
CONTROLS.fails(TABLES, put("chain_small.walk.steps[2].entry", "0x0"), name="an entry that is not present")
CONTROLS.fails(TABLES, put("chain_small.walk.steps[-1].entry", "0x0"), name="a last entry that is not present")
CONTROLS.fails(TABLES, put("chain_other.monitor_physical", None), name="a QEMU that finds nothing")
CONTROLS.fails(TABLES, put("chain_small.levels", 6), name="a walk of six levels")
CONTROLS.fails(TABLES, put("chain_small.levels", 4), name="more steps than levels")
CONTROLS.is_inconclusive(TABLES, put("chain_small.ready.pagemap", "0x8180000000000000"), name="a pagemap that hides its frame")
CONTROLS.is_inconclusive(TABLES, changed("chain_small.ready.pagemap", flipped(1 << 63)), name="a pagemap of a page that is swapped out")


def a_page_of_a_gibibyte(world: World) -> None:
    """As the world gigantic_page has it: the entry of level 3 maps it, and the offset has 30 bits."""
    chain = world["chain_large"]
    del chain["walk"]["steps"][3]
    chain["walk"]["steps"][2]["entry"] = hex(1 << 30 | 0xE7)
    physical = 1 << 30 | int(chain["ready"]["virtual"], 16) & (1 << 30) - 1
    chain["walk"] |= {"physical": hex(physical), "page_bytes": 1 << 30}
    chain["monitor_physical"] = hex(physical)
    chain["ready"]["pagemap"] = hex(1 << 63 | physical >> 12)


CONTROLS.passes(TABLES, a_page_of_a_gibibyte)


@CONTROLS.control(TABLES)
def a_walk_that_ends_early(world: World) -> None:
    del world["chain_small.walk.steps[4]"]


@CONTROLS.control(TABLES)
def a_walk_that_goes_on_after_its_page(world: World) -> None:
    steps = world["chain_large.walk.steps"]
    steps.append({**steps[-1], "level": 1})


@CONTROLS.control(TABLES)
def six_levels_that_hang_together(world: World) -> None:
    """The last entry says that one table more is to be read; no processor does so."""
    chain = world["chain_small"]
    chain["levels"] = 6
    root = {"level": 6, "index": int(chain["ready"]["virtual"], 16) >> 57 & 511, "entry": chain["registers"]["cr3"]}
    chain["registers"]["cr3"] = "0x5000"
    root |= {"entry_address": hex(0x5000 + 8 * root["index"]), "entry": hex(int(root["entry"], 16) | 0x67)}
    chain["walk"]["steps"].insert(0, root)


CONTROLS.passes(TABLES, changed("chain_small.walk.steps[0].entry", flipped(1 << 52)), name="a bit that the kernel keeps for itself")
CONTROLS.fails(TABLES, changed("chain_small.walk.steps[-1].entry", flipped(1 << 51)), name="a frame beyond the machine's memory")
CONTROLS.passes(TABLES, changed("chain_small.registers.cr3", plus(0x800)), name="a CR3 with the highest bit of a process's number")
CONTROLS.fails(TABLES, changed("chain_small.ready.pagemap", flipped(1 << 54)), name="the highest bit of a frame's number")

CONTROLS.fails(
    TABLES,
    changed("chain_small.ready.pagemap", plus(1)),
    changed("chain_small.monitor_physical", WRONG_ADDRESS),
    name="a pagemap and a QEMU that agree, and a walk that does not",
)

# Levels.


def no_la57(world: World) -> None:
    world["chain_small"] = {**world["chain_other"], "guest": "main"}
    world["addresses.main.la57"] = False


def of_48_bits(world: World) -> None:
    world["addresses.main.address_sizes"] = "46 bits physical, 48 bits virtual"


def five_in_both(world: World) -> None:
    world["chain_other"] = {**world["chain_small"], "guest": "other"}


CONTROLS.fails(LEVELS, put("chain_small.registers.cr4", "0x750ef0"), name="five levels without LA57")
CONTROLS.fails(LEVELS, put("chain_other.registers.cr4", "0x751ef0"), name="four levels with LA57")
CONTROLS.fails(LEVELS, five_in_both)
CONTROLS.fails(LEVELS, put("addresses.main.la57", False), name="a flag that contradicts five levels")
CONTROLS.fails(LEVELS, no_la57, put("addresses.main.la57", True), name="a flag that contradicts four levels")
CONTROLS.is_inconclusive(LEVELS, put("chain_other.guest", "main"), name="the same guest twice")
CONTROLS.is_inconclusive(LEVELS, put("chain_small.guest", "other"), name="the same guest twice, the other one")
CONTROLS.is_inconclusive(LEVELS, put("addresses.main.address_sizes", "wide"), name="a width that is no number")
CONTROLS.is_inconclusive(LEVELS, drop("chain_small.walk.steps[4]"), name="a walk that is cut off")
CONTROLS.is_not_observable(LEVELS, no_la57, name="a kernel without tables of five levels, on a processor that has them")
CONTROLS.is_not_observable(LEVELS, no_la57, of_48_bits, name="a processor without LA57")


def test_why_no_walk_has_five_levels() -> None:
    """/proc/cpuinfo's flag says what the kernel uses; the width beside it says what the processor has."""
    assert "built without" in SOUND.verdict(LEVELS, no_la57).rationale
    assert "48 bits" in SOUND.verdict(LEVELS, no_la57, of_48_bits).rationale


# A large page.


def no_large_page(world: World) -> None:
    for name in ("walk", "registers", "ready", "levels"):
        world[f"chain_large.{name}"] = world[f"chain_small.{name}"]


def of_a_gibibyte(world: World) -> None:
    """The entry of level 3 maps the page."""
    del world["chain_large.walk.steps[3]"]
    step = world["chain_large.walk.steps[2]"]
    step["entry"] = hex(int(step["entry"], 16) | 1 << 7)


def a_level_too_many(world: World) -> None:
    """Five levels were there to be read, and four were, of which the last one maps a page of 2 MiB. Here it is one of three."""
    world["chain_large.levels"] = 4
    chain = world["chain_large"]
    del chain["walk"]["steps"][0]
    chain["registers"]["cr3"] = hex(int(chain["walk"]["steps"][0]["entry_address"], 16) & ~0xFFF)


CONTROLS.fails(LARGE, changed("chain_large.walk.steps[3].entry", flipped(1 << 7)), name="an entry of level 2 without PS")
CONTROLS.fails(LARGE, of_a_gibibyte)
CONTROLS.passes(LARGE, a_level_too_many, name="three levels of four")
CONTROLS.is_inconclusive(LARGE, no_large_page)

# The first touch.

for _chain in ("chain_small", "chain_other"):
    _before, _after, _touched = f"{_chain}.second_before", f"{_chain}.answer.second_after", f"{_chain}.answer.touched.second_pagemap"
    CONTROLS.fails(FIRST_TOUCH, put(f"{_chain}.ready.second_pagemap", "0x8000000000001234"), name=f"a frame before the touch ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, take(_before, _after), name=f"tables before the first touch ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, take(_after, _before), name=f"no frame after the touch ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, changed(_touched, plus(1)), name=f"another frame by the pagemap ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, changed(_touched, flipped(1 << 63)), name=f"a page that is not in memory ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, changed(f"{_before}.steps[0].index", lambda index: index + 1), name=f"another index before ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, changed(f"{_after}.steps[0].index", lambda index: index + 1), name=f"another index after ({_chain})")
    CONTROLS.fails(FIRST_TOUCH, put(f"{_after}.physical", None), name=f"tables that lead nowhere after the touch ({_chain})")
    CONTROLS.is_not_observable(FIRST_TOUCH, put(f"{_chain}.answer", {"refused": "not permitted"}), name=f"no way to tell it ({_chain})")


@CONTROLS.control(FIRST_TOUCH)
def a_walk_that_goes_on_after_it_was_not_present(world: World) -> None:
    steps = world["chain_small.second_before.steps"]
    steps.append({**steps[-1], "level": steps[-1]["level"] - 1})


# --- where the bytes are ----------------------------------------------------------------------------------------------------------------

REFUSED = {"refused": "Operation not permitted"}
OTHER = "x" * 64

for _chain in CHAINS:
    CONTROLS.fails(AT_ITS_ADDRESS, put(f"{_chain}.physical_holds", OTHER), name=f"other bytes at the address ({_chain})")
    CONTROLS.fails(AT_ITS_ADDRESS, take(f"{_chain}.next_page_holds", f"{_chain}.marker"), name=f"the marker everywhere ({_chain})")
    CONTROLS.fails(IN_QEMU, put(f"{_chain}.host.holds", OTHER), name=f"other bytes in QEMU ({_chain})")
    CONTROLS.fails(IN_QEMU, take(f"{_chain}.host.next_page_holds", f"{_chain}.marker"), name=f"the marker everywhere in QEMU ({_chain})")
    CONTROLS.fails(STORE, put(f"{_chain}.answer.answered.answer", ""), name=f"a guest that sees nothing ({_chain})")
    CONTROLS.fails(NOBODY, take(f"{_chain}.stranger.physical_holds", f"{_chain}.marker"), name=f"the marker in the other guest ({_chain})")
    CONTROLS.fails(NOBODY, take(f"{_chain}.stranger.holds", f"{_chain}.marker"), name=f"the marker in the other QEMU ({_chain})")
    CONTROLS.fails(NAMES, put(f"{_chain}.host.frame_holds", OTHER), name=f"other bytes in the frame ({_chain})")
    CONTROLS.fails(NAMES, put(f"{_chain}.host.holds", OTHER), name=f"other bytes under the third name ({_chain})")
    CONTROLS.fails(NAMES, put(f"{_chain}.physical_holds", OTHER), name=f"other bytes under the second name ({_chain})")
    for _place in ("physical_holds", "next_page_holds"):
        CONTROLS.is_inconclusive(AT_ITS_ADDRESS, put(f"{_chain}.{_place}", ""), name=f"{_place} of {_chain}: nothing was read")
        CONTROLS.is_inconclusive(
            IN_QEMU, put(f"{_chain}.host.{_place.removeprefix('physical_')}", ""), name=f"nothing in QEMU: {_chain} {_place}"
        )
    CONTROLS.is_inconclusive(NOBODY, put(f"{_chain}.stranger.physical_holds", ""), name=f"a guest that was not looked at ({_chain})")
    CONTROLS.is_inconclusive(NOBODY, put(f"{_chain}.stranger.holds", ""), name=f"a QEMU that was not looked at ({_chain})")
    CONTROLS.is_inconclusive(NOBODY, put(f"{_chain}.stranger.holds", REFUSED), name=f"a QEMU that may not be looked at ({_chain})")
    CONTROLS.is_inconclusive(NOBODY, take(f"{_chain}.stranger.guest", f"{_chain}.guest"), name=f"a stranger that is itself ({_chain})")
    CONTROLS.is_inconclusive(
        NOBODY,
        take(f"{_chain}.stranger.host_virtual_of_physical", f"{_chain}.host_virtual"),
        name=f"two QEMUs with the same addresses ({_chain})",
    )
CONTROLS.passes(NOBODY, put("chain_small.stranger.holds", OTHER), name="other bytes at that address of the other QEMU")
CONTROLS.is_inconclusive(AT_ITS_ADDRESS, put("chain_small.marker", "x"), name="a marker that anybody could guess")
CONTROLS.is_inconclusive(AT_ITS_ADDRESS, put("chain_small.marker", "x" * 65), name="a marker that is too long")


@pytest.mark.parametrize("check", [AT_ITS_ADDRESS, IN_QEMU])
@pytest.mark.parametrize("size", [63, 65])
def test_a_marker_of_another_length_is_none(check: str, size: int) -> None:
    """Even where as many bytes were read."""

    def other(world: World) -> None:
        for chain in (world[name] for name in CHAINS):
            for place in (chain, chain["host"]):
                place["next_page_holds"] = "y" * size
            chain["marker"] = chain["physical_holds"] = chain["host"]["holds"] = "x" * size

    assert SOUND.verdict(check, other).kind is INCONCLUSIVE


def test_the_texts_say_what_was_found_where() -> None:
    for check in (AT_ITS_ADDRESS, IN_QEMU):
        sound = SOUND.verdict(check).measured.split("; ")
        assert len(sound) == 3
        assert all("the marker" in each and each.endswith("other bytes a page further") for each in sound)
    nobody = SOUND.verdict(NOBODY).measured
    assert nobody.count("other bytes") == 3
    assert nobody.count("Bad address") == 3
    copied = SOUND.verdict(
        NOBODY, take("chain_small.stranger.physical_holds", "chain_small.marker"), put("chain_small.stranger.holds", OTHER)
    )
    assert copied.measured.endswith("the marker, in its QEMU other bytes")
    elsewhere = SOUND.verdict(NOBODY, take("chain_small.stranger.holds", "chain_small.marker"))
    assert elsewhere.measured.endswith("other bytes, in its QEMU the marker")
    lost = SOUND.verdict(AT_ITS_ADDRESS, put("chain_small.physical_holds", OTHER))
    assert lost.rationale == "The marker is not at its address."
    everywhere = SOUND.verdict(AT_ITS_ADDRESS, take("chain_small.next_page_holds", "chain_small.marker"))
    assert everywhere.rationale == "The marker is a page further, too."


def mapping_around(before: int, after: int) -> Callable[[World], None]:
    """QEMU's mapping begins and ends so far from the byte; the guest's memory is as large."""

    def change(world: World) -> None:
        place = int(world["chain_small.host_virtual"], 16)
        world["chain_small.host.mapping"] |= {"start": hex(place - before), "end": hex(place + after)}
        world["chain_small.memory_bytes"] = before + after

    return change


CONTROLS.passes(IN_QEMU, mapping_around(0, 1 << 30), name="a byte that is the first of its mapping")
CONTROLS.passes(IN_QEMU, mapping_around(1 << 30, 1), name="a byte that is the last of its mapping")
CONTROLS.fails(IN_QEMU, mapping_around(-1, 1 << 30), name="a byte before the mapping")
CONTROLS.fails(IN_QEMU, mapping_around(1 << 30, 0), name="a byte behind the mapping")
CONTROLS.fails(IN_QEMU, mapping_around(4096, 4096), put("chain_small.memory_bytes", 8193), name="a mapping too small for the guest")
CONTROLS.is_inconclusive(IN_QEMU, put("chain_small.memory_bytes", 0), name="a guest without memory")
CONTROLS.is_not_observable(IN_QEMU, put("chain_small.host.holds", REFUSED), name="memory of QEMU that may not be read")
CONTROLS.is_not_observable(IN_QEMU, put("chain_large.host.next_page_holds", REFUSED), name="a next page that may not be read")


def answer_of(characters: int) -> Callable[[World], None]:
    """What the host sent and the guest saw."""

    def change(world: World) -> None:
        world["chain_large.answer.sent"] = world["chain_large.answer.answered.answer"] = "7" * characters

    return change


CONTROLS.passes(STORE, answer_of(17), name="a longer answer")
CONTROLS.is_inconclusive(STORE, answer_of(15), name="an answer that anybody could guess")
CONTROLS.is_not_observable(STORE, put("chain_large.answer", REFUSED), name="memory of QEMU that may not be written")

# --- the fourth name ---------------------------------------------------------------------------------------------------------------------


def ram_from_to(before: int, after: int) -> Callable[[World], None]:
    """The host's RAM begins and ends so far from the first marker's frame; the others' lie in a range of their own."""

    def change(world: World) -> None:
        place = int(world["chain_small.host.host_physical"], 16)
        others = [int(world[f"{chain}.host.host_physical"], 16) for chain in CHAINS[1:]]
        ranges = [(place - before, place + after), *((each, each + 1) for each in others)]
        world["machine.ram"] = [{"start": hex(start), "end": hex(end)} for start, end in ranges]

    return change


for _chain in CHAINS:
    CONTROLS.fails(FRAME, changed(f"{_chain}.host.monitor_host_physical", WRONG_ADDRESS), name=f"two addresses for one page ({_chain})")
    CONTROLS.is_inconclusive(FRAME, put(f"{_chain}.host.page.present", False), name=f"a page that is not there ({_chain})")
    CONTROLS.is_inconclusive(FRAME, changed(f"{_chain}.host.page.frame", plus(1)), name=f"an address of another frame ({_chain})")
    CONTROLS.is_not_observable(FRAME, put(f"{_chain}.host.page.frame", None), name=f"frames that are hidden ({_chain})")
    CONTROLS.is_not_observable(FRAME, put(f"{_chain}.host.page", REFUSED), name=f"a pagemap that may not be read ({_chain})")
    CONTROLS.fails(NAMES, changed(f"{_chain}.host.host_physical", plus(1)), name=f"another offset ({_chain})")
CONTROLS.fails(FRAME, put("chain_small.host.monitor_host_physical", None), name="a QEMU that finds no frame")
CONTROLS.passes(FRAME, ram_from_to(0, 1), name="a frame at the beginning of the RAM")
CONTROLS.passes(FRAME, ram_from_to(1, 0), name="a frame at the end of the RAM")
CONTROLS.fails(FRAME, ram_from_to(-1, 2), name="a frame before the RAM")
CONTROLS.fails(FRAME, ram_from_to(2, -1), name="a frame behind the RAM")
CONTROLS.fails(FRAME, same_frame, name="one frame for two markers")
CONTROLS.is_inconclusive(FRAME, put("machine.ram", []), name="a host that hides where its RAM is")


def test_hidden_frames_hide_the_fourth_name() -> None:
    """Not root: what rests on the frames is not observable either, and everything else still passes."""
    found = SOUND.verdicts(*(put(f"{chain}.host.page.frame", None) for chain in CHAINS))
    hidden = {FRAME, NAMES}
    assert {name for name in CHAIN if found[name] is NOT_OBSERVABLE} == hidden
    assert {found[name] for name in CHAIN if name not in hidden} == {PASS}


def read_in_the_frame(world: World) -> None:
    for chain in CHAINS:
        world[f"{chain}.host.frame_holds"] = world[f"{chain}.marker"]


@pytest.mark.parametrize("chain", CHAINS)
def test_the_fourth_name_is_said_to_be_read_only_where_it_was(chain: str) -> None:
    """A host with /proc/kcore, which the one of the sound run did not have."""
    everywhere = SOUND.verdict(NAMES, read_in_the_frame)
    assert everywhere.kind is PASS
    assert "read under the other three" in everywhere.rationale
    refused = {"refused": "/proc/kcore cannot be read: Operation not permitted"}
    hidden = SOUND.verdict(NAMES, read_in_the_frame, put(f"{chain}.host.frame_holds", refused))
    assert hidden.kind is PASS
    assert "named, not read: /proc/kcore" in hidden.rationale


# --- the table, nothing, and garbage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


GROWS = "memory_grows_as_it_is_touched"  # (test_growth.py has its controls.)


@pytest.mark.parametrize("check", [name for name in CHAIN if name != GROWS])
def test_every_check_has_a_world_in_which_it_fails(check: str) -> None:
    CONTROLS.prove(check)
