"""Bounds of the checks on KVM's counters: whole numbers decide, and what other work adds between them does not.

Each control sets one count of a real run of the emulated host, in both of its worlds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from vmlab.lab.controls import Control, Controls, World, changed, drop, put

from .sound import SOUND

CONTROLS = Controls(SOUND)
ALONE, READS, WHOLE, NAMED = (
    "nested_leaves_the_guest_alone",
    "nested_reads_the_guests_tables",
    "nested_shows_in_a_whole_guest",
    "nested_names_each_fault",
)
STEPS_IN, NEVER, FOLLOWS, UNNAMED = (
    "shadow_steps_in",
    "shadow_never_reads_the_guests_tables",
    "shadow_shows_in_a_whole_guest",
    "shadow_names_none",
)
N, SWAPS = 2000, 32


def counted(world_of: str, phase: str, **counts: int) -> Callable[[World], None]:
    """In a phase of the probe these counters went so far, and no interrupt was among the exits; its one HLT is added."""

    def change(world: World) -> None:
        measured = world[f"emulated_{world_of}.probe.phases.{phase}"]
        runs = measured["runs"]
        kept = {name: value for name, value in measured["counts"].items() if name != "irq_exits"}
        measured["counts"] = kept | {"exits": runs} | {name: value + runs * (name == "exits") for name, value in counts.items()}

    return change


# Two thousand operations: 5 % are a hundred.
for _phase, _counter in (("remap", "exits"), ("reload_cr3", "exits"), ("page_fault", "exits"), ("page_fault", "pf_guest")):
    for _count, _expect in ((99, "passes"), (100, "is_inconclusive"), (1900, "is_inconclusive"), (1901, "fails"), (2 * N, "fails")):
        getattr(CONTROLS, _expect)(ALONE, counted("nested", _phase, **{_counter: _count}), name=f"{_phase}: {_count} {_counter} of {N}")


def of_page_faults(exits: int = 3 * N, handed_back: int = N) -> Callable[[World], None]:
    """What a guest's page faults cost with shadow page tables."""
    return counted("shadow", "page_fault", exits=exits, pf_guest=handed_back)


for _phase in ("remap", "reload_cr3"):
    for _count, _expect in ((1901, "passes"), (1900, "is_inconclusive"), (100, "is_inconclusive"), (99, "fails"), (0, "fails")):
        getattr(CONTROLS, _expect)(STEPS_IN, counted("shadow", _phase, exits=_count), name=f"{_phase}: {_count} exits of {N}")
for _count, _expect in ((1901, "passes"), (1900, "is_inconclusive"), (100, "is_inconclusive"), (99, "fails")):
    getattr(CONTROLS, _expect)(STEPS_IN, of_page_faults(exits=_count), name=f"page_fault: {_count} exits of {N}")
for _count, _expect in (
    (0, "fails"),
    (99, "fails"),
    (100, "is_inconclusive"),
    (1900, "is_inconclusive"),
    (1901, "passes"),
    (2099, "passes"),
    (2100, "is_inconclusive"),
    (3901, "fails"),
):
    getattr(CONTROLS, _expect)(STEPS_IN, of_page_faults(handed_back=_count), name=f"{_count} faults handed back of {N}")


def interrupted(world: World) -> None:
    """A busy host: its own interrupts are most of the exits, and are not the guest's."""
    counts = world["emulated_nested.probe.phases.remap.counts"]
    counts |= {"exits": counts["exits"] + 5000, "irq_exits": counts.get("irq_exits", 0) + 5000}


CONTROLS.passes(ALONE, interrupted)

# 32 reads: 5 % are less than two.
for _check, _world, _wanted in (
    (READS, "nested", {"swap_data": 1, "swap_table": 1, "swap_walk": 5}),
    (NEVER, "shadow", {"swap_data": 1, "swap_table": 0, "swap_walk": 1}),
):
    for _phase, _each in _wanted.items():
        for _off, _expect in ((1, "passes"), (2, "is_inconclusive"), (30, "is_inconclusive"), (31, "fails"), (32, "fails")):
            _faults = _each * SWAPS + _off
            getattr(CONTROLS, _expect)(
                _check, counted(_world, _phase, pf_taken=_faults), name=f"{_phase}: {_faults} faults of {SWAPS} reads"
            )
            if _off <= _each * SWAPS:
                _fewer = _each * SWAPS - _off
                getattr(CONTROLS, _expect)(_check, counted(_world, _phase, pf_taken=_fewer), name=f"{_phase}: {_fewer} faults")

CONTROLS.fails(
    READS, counted("nested", "swap_data", pf_taken=SWAPS // 2), counted("nested", "swap_walk", pf_taken=0), name="noise and none"
)

# A computing loop of a million iterations.
for _world in ("nested", "shadow"):
    _name, _n = f"{_world}_runs_on_the_processor", SOUND.world()[f"emulated_{_world}.probe.phases.compute.n"]
    _runs = SOUND.world()[f"emulated_{_world}.probe.phases.compute.runs"]
    _compute = f"emulated_{_world}.probe.phases.compute"
    CONTROLS.passes(_name, counted(_world, "compute", insn_emulation=_n // 100 + _runs - 1), name="less than one in a hundred")
    CONTROLS.fails(_name, counted(_world, "compute", insn_emulation=_n // 100 + _runs), name="one in a hundred")
    CONTROLS.is_inconclusive(_name, put(f"{_compute}.runs", 0), name="no run")
    CONTROLS.is_inconclusive(_name, put(f"{_compute}.n", 0), name="no iteration")
    CONTROLS.is_inconclusive(_name, put(f"{_compute}.correct", False), name="wrong results")
    CONTROLS.is_inconclusive(_name, put(f"{_compute}.counts.exits", _runs - 1), name="an end that was not counted")
    CONTROLS.is_inconclusive(_name, put(f"{_compute}.counts.insn_emulation", -1), name="a count below nothing")

for _check, _said, _others in (
    ("nested_claims", ("ept=Y", "npt=Y", "npt=1"), ("ept=N", "npt=N", "npt=0", "", "npt=Yes")),
    ("shadow_is_the_same_host", ("ept=N", "npt=N", "npt=0"), ("ept=Y", "npt=Y", "npt=1", "")),
):
    _place = f"emulated_{_check.split('_', maxsplit=1)[0]}.probe.claim.nested_paging"
    for _text in (each for each in _said if each != SOUND.world()[_place]):
        CONTROLS.passes(_check, put(_place, _text), name=f"{_text} is such a claim")
    for _text in _others:
        CONTROLS.fails(_check, put(_place, _text), name=f"{_text or 'nothing'} is another claim")

# --- a whole guest ----------------------------------------------------------------------------------------------------------------------

OPERATIONS = {"remap": 32768, "touch": 4096, "switch": 1000}
COUNTERS = [("remap", "pf_taken"), ("remap", "pf_fixed"), ("remap", "pf_guest"), ("touch", "pf_guest"), ("switch", "tlb_flush")]


def rose(world_of: str, loop: str, counter: str, by: int) -> Callable[[World], None]:
    """Around a loop a counter rose by so much."""

    def change(world: World) -> None:
        measured = world[f"emulated_{world_of}.nested.loops.{loop}"]
        measured["after"][counter] = measured["before"][counter] + by

    return change


for _loop, _counter in COUNTERS:
    _n = OPERATIONS[_loop]
    _low, _high = -(-_n * 5 // 100), _n * 95 // 100  # The least that is no stray any more; the most that is not each time.
    bounds = {_low - 1: "passes", _low: "is_inconclusive", _high: "is_inconclusive", _high + 1: "fails", _n + 1: "fails"}
    for _by, _expect in bounds.items():
        getattr(CONTROLS, _expect)(WHOLE, rose("nested", _loop, _counter, _by), name=f"{_loop}: {_counter} rose by {_by} of {_n}")
        if (_loop, _counter) != ("remap", "pf_guest"):  # (The guest maps sixteen pages at one fault.)
            _expect = {"passes": "fails", "fails": "passes"}.get(_expect, _expect)
            getattr(CONTROLS, _expect)(FOLLOWS, rose("shadow", _loop, _counter, _by), name=f"{_loop}: {_counter} rose by {_by} of {_n}")

REMAPPED = 1_000_000
CONTROLS.passes(
    FOLLOWS, rose("shadow", "remap", "pf_taken", REMAPPED), rose("shadow", "idle", "pf_taken", REMAPPED // 20), name="a host that rests"
)
CONTROLS.is_inconclusive(
    FOLLOWS, rose("shadow", "remap", "pf_taken", REMAPPED), rose("shadow", "idle", "pf_taken", REMAPPED // 20 + 1), name="a restless host"
)
CONTROLS.fails(FOLLOWS, rose("shadow", "remap", "pf_taken", 0), rose("shadow", "idle", "pf_taken", 1), name="no fault but one at rest")
for _check, _world in ((WHOLE, "nested"), (FOLLOWS, "shadow")):
    for _loop in ("idle", "remap", "touch", "switch"):
        _place = f"emulated_{_world}.nested.loops.{_loop}"
        CONTROLS.is_inconclusive(_check, changed(f"{_place}.operations", lambda n: n + 1), name=f"{_loop} did something else")
        CONTROLS.is_inconclusive(_check, put(f"{_place}.before.pf_taken", 0), name=f"{_loop}: counters that were never moved")
        CONTROLS.is_inconclusive(_check, rose(_world, _loop, "exits", 0), name=f"{_loop}: no exit was counted")
        CONTROLS.passes(_check, rose(_world, _loop, "exits", 1), name=f"{_loop}: one exit was counted")
        CONTROLS.is_inconclusive(_check, rose(_world, _loop, "exits", -1), name=f"{_loop}: exits that fall")
    for _name in ("pages", "rounds", "switches"):
        CONTROLS.is_inconclusive(_check, changed(f"parameters.{_name}", lambda n: n + 1), name=f"other {_name} than were asked for")
        CONTROLS.is_inconclusive(_check, put(f"parameters.{_name}", 0), name=f"no {_name}")
    CONTROLS.is_inconclusive(_check, put(f"emulated_{_world}.nested.loops.remap.before.pf_fixed", -1), name="a counter below nothing")


def first_fault_only(world: World) -> None:
    """The fewest faults that a guest can have had before."""
    for loop in world["emulated_nested.nested.loops"].values():
        loop["after"]["pf_taken"] -= loop["before"]["pf_taken"] - 1
        loop["before"]["pf_taken"] = 1


CONTROLS.passes(WHOLE, first_fault_only)

# --- the trace of the probe's faults ----------------------------------------------------------------------------------------------------

NESTED_TRACE, SHADOW_TRACE = "emulated_nested.faults.last", "emulated_shadow.faults.last"


def every(place: str, number: int, reads: int, **fault: str) -> Callable[[World], None]:
    """In each of so many of the last reads another fault in the place of one."""

    def change(world: World) -> None:
        faults = world[place]
        of_a_read = 5 if place == NESTED_TRACE else 1
        for read in range(1, reads + 1):
            faults[len(faults) - of_a_read * read + number] |= fault

    return change


NO_BIT, BOTH, ELSEWHERE = {"error_code": "0x4"}, {"error_code": "0x300000004"}, {"address": "0x7000"}
PAGE_FIRST, SAME_PLACE = {"error_code": "0x100000004"}, {"address": "0x600000"}
for _what, _fault in (
    ("no bit", NO_BIT),
    ("both bits", BOTH),
    ("elsewhere", ELSEWHERE),
    ("the page", PAGE_FIRST),
    ("the page's", SAME_PLACE),
):
    for _number in (0, 3):
        CONTROLS.is_inconclusive(NAMED, every(NESTED_TRACE, _number, 1, **_fault), name=f"one read: fault {_number} {_what}")
        CONTROLS.is_inconclusive(NAMED, every(NESTED_TRACE, _number, 15, **_fault), name=f"fifteen reads: fault {_number} {_what}")
        if _fault is not ELSEWHERE:
            CONTROLS.fails(NAMED, every(NESTED_TRACE, _number, 16, **_fault), name=f"sixteen reads: fault {_number} {_what}")
            CONTROLS.fails(NAMED, every(NESTED_TRACE, _number, 32, **_fault), name=f"each read: fault {_number} {_what}")
CONTROLS.fails(NAMED, every(NESTED_TRACE, 4, 32, error_code="0x200000004"), name="no fault at the page")


@CONTROLS.control(NAMED)
def faults_at_as_many_addresses_as_there_are(world: World) -> None:
    for number, fault in enumerate(world[NESTED_TRACE]):
        fault["address"] = hex(0x1000 * (number + 1))


def one_more(world: World) -> None:
    """A fault of other work, in the middle of a walk."""
    faults = world[NESTED_TRACE]
    faults.insert(80, copy.deepcopy(faults[80]))
    del faults[0]


def longer(world: World) -> None:
    """More was kept than is needed."""
    faults = world[NESTED_TRACE]
    faults[:0] = [{"address": "0x1000", "error_code": "0x4"}] * 5


CONTROLS.is_inconclusive(NAMED, one_more)
CONTROLS.passes(NAMED, longer)
CONTROLS.passes(UNNAMED, every(SHADOW_TRACE, 0, 32, error_code="0x4"), name="codes of another kind of access")
CONTROLS.is_inconclusive(NAMED, drop(f"{NESTED_TRACE}[0]"), name="a trace that is too short")
CONTROLS.is_inconclusive(UNNAMED, put(SHADOW_TRACE, [{"address": "0x200000", "error_code": "0x0"}] * 31), name="a trace that is too short")
for _check, _place in ((NAMED, NESTED_TRACE), (UNNAMED, SHADOW_TRACE)):
    _error = {"step": "after swap_data", "errno": "", "text": "not done after 190 s"}
    CONTROLS.is_inconclusive(_check, put(_place.replace("last", "probe_error"), _error), name="a probe that did not come to its end")
    CONTROLS.is_inconclusive(_check, put(_place.replace("faults.last", "probe.phases.swap_walk.n"), 0), name="no read")
for _what, _code in (("a table", "0x200000004"), ("the page", "0x100000004"), ("both", "0x300000000")):
    CONTROLS.is_inconclusive(UNNAMED, every(SHADOW_TRACE, 0, 1, error_code=_code), name=f"one fault that names {_what}")
    CONTROLS.is_inconclusive(UNNAMED, every(SHADOW_TRACE, 0, 15, error_code=_code), name=f"fifteen faults that name {_what}")
    CONTROLS.fails(UNNAMED, every(SHADOW_TRACE, 0, 16, error_code=_code), name=f"sixteen faults that name {_what}")
CONTROLS.is_inconclusive(UNNAMED, every(SHADOW_TRACE, 0, 1, address="0x60000"), name="one fault elsewhere")
CONTROLS.is_inconclusive(UNNAMED, every(SHADOW_TRACE, 0, 15, address="0x60000"), name="fifteen faults elsewhere")
CONTROLS.fails(UNNAMED, every(SHADOW_TRACE, 0, 16, address="0x60000"), name="sixteen faults elsewhere")


def test_the_text_shows_the_last_walk() -> None:
    assert "the last: 0x60000 (a table), 0x70000 (a table), 0x80000 (a table), 0xa0000 (a table), 0x600000 (the page)" in (
        SOUND.verdict(NAMED).measured
    )
    assert "the last: 0x200000 (no such bit)" in SOUND.verdict(UNNAMED).measured
    two = SOUND.verdict(UNNAMED, every(SHADOW_TRACE, 0, 15, address="0x60000"))
    assert "0 with such a bit, at 2 addresses" in two.measured


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()
