"""The checks on the TLB: by the bit that a walk leaves behind, and by what a miss costs on a machine with KVM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vmlab.lab.controls import NOT_OBSERVABLE, PASS, Control, Controls, World, changed, drop, put

from .sound import KVM, SOUND, chased

CONTROLS = Controls(KVM)
KEPT, COSTS = "the_mmu_does_not_walk_each_time", "a_miss_costs_a_walk"

# --- the bit that a walk leaves behind ------------------------------------------------------------------------------------------------

ACCESSED, READS = 1 << 5, 10_000
ENTRY = 0x8000000012345047


def looks(*rows: dict[str, Any]) -> Callable[[World], None]:
    """So it was seen, look by look; of each is told what differs from one in which the translation was kept."""
    kept = {
        "before": ENTRY | ACCESSED,
        "reads": 10**6,
        "after": ENTRY,
        "switches": 0,
        "reads_after_flush": 9,
        "after_flush": ENTRY | ACCESSED,
    }
    tries = [
        {name: hex(value) if name in ("before", "after", "after_flush") else value for name, value in (kept | row).items()} for row in rows
    ]
    return put("kept.tries", tries)


LOST = {"after": ENTRY | ACCESSED}
SWITCHED = LOST | {"switches": 1}
TOO_FEW, NO_READ_AFTER, NEVER_SET = {"reads": READS - 1}, {"reads_after_flush": 0}, {"after_flush": ENTRY}

CONTROLS.fails(KEPT, looks(*[LOST] * 10), name="tables that are read for each access")
CONTROLS.fails(KEPT, looks(*[LOST] * 6, *[SWITCHED] * 4), name="the same, with another process in between at times")
CONTROLS.fails(KEPT, looks(*[LOST] * 3, *[SWITCHED] * 2), name="the same in five looks")
CONTROLS.passes(KEPT, looks(*[{}] * 6, *[LOST] * 4), name="most translations are kept")
CONTROLS.passes(KEPT, looks(*[{"switches": 3}] * 10), name="translations that outlive other processes")
CONTROLS.passes(KEPT, looks(*[{"reads": READS}] * 10), name="just enough reads")
CONTROLS.passes(KEPT, looks(*[{}] * 6, *[TOO_FEW] * 4), name="some looks that do not tell")
CONTROLS.passes(KEPT, looks(*[{"reads_after_flush": 1}] * 10), name="one read after the flush")
CONTROLS.is_inconclusive(KEPT, looks(*[{}] * 5, *[LOST] * 5), name="half of the translations are kept")
CONTROLS.is_inconclusive(KEPT, looks({}, *[LOST] * 9), name="one translation is kept")
CONTROLS.is_inconclusive(KEPT, looks(*[LOST] * 5, *[SWITCHED] * 5), name="a machine on which others run in between")
CONTROLS.is_inconclusive(KEPT, looks(*[LOST] * 5, *[TOO_FEW | LOST] * 5), name="a machine that stands still in half of the looks")
CONTROLS.is_inconclusive(KEPT, looks(*[TOO_FEW] * 10), name="a machine that stands still")
CONTROLS.is_inconclusive(KEPT, looks(*[{}] * 5, *[TOO_FEW] * 5), name="a machine that stands still half of the time")
CONTROLS.is_inconclusive(KEPT, looks(*[NO_READ_AFTER] * 10), name="nothing was read after the flush")
CONTROLS.is_inconclusive(KEPT, looks(*[NEVER_SET] * 10), name="a processor that never sets the bit")
CONTROLS.is_inconclusive(KEPT, looks(*[{}] * 4), name="four looks are too few")
CONTROLS.passes(KEPT, looks(*[{}] * 5), name="five looks are enough")
CONTROLS.passes(KEPT, looks(*[{"after": ENTRY | 1 << 6}] * 10), name="other marks of the processor's (dirty)")
for _name, _bits in (("another frame", 1 << 12), ("a page that is not present", 1), ("a page of another size", 1 << 7)):
    for _when in ("before", "after", "after_flush"):
        CONTROLS.is_inconclusive(KEPT, looks(*[{}] * 9, {_when: ENTRY ^ _bits}), name=f"{_name}, {_when}")
GONE = {"before": (ENTRY | ACCESSED) ^ 1, "after": ENTRY ^ 1, "after_flush": (ENTRY | ACCESSED) ^ 1}
CONTROLS.is_inconclusive(KEPT, looks(*[GONE] * 10), name="a page that is never present")
CONTROLS.passes(KEPT, looks(*[{}] * 9, {"reads": 0}), name="one look without a read")
CONTROLS.passes(KEPT, looks(*[{}] * 9, {"reads_after_flush": 0}), name="one look without a read after the flush")
CONTROLS.is_inconclusive(KEPT, looks(*[{"reads": -1}] * 10), name="fewer reads than none")
CONTROLS.is_inconclusive(KEPT, put("kept.tries[0].switches", -1), name="fewer switches than none")
CONTROLS.is_inconclusive(KEPT, put("kept.tries[0].reads_after_flush", -1), name="fewer reads than none after the flush")
CONTROLS.is_inconclusive(KEPT, put("kept.tries[0].reads", -1), name="fewer reads than none in one look")
CONTROLS.is_not_observable(KEPT, put("kept", {"refused": "Operation not permitted"}), name="memory of QEMU that may not be written")


def test_it_is_seen_where_the_processor_is_emulated() -> None:
    """The sound run had no KVM."""
    assert SOUND.verdict(KEPT).kind is PASS
    assert SOUND.verdict(COSTS).kind is NOT_OBSERVABLE


def test_the_text_counts() -> None:
    said = KVM.verdict(KEPT, looks(*[{}] * 7, {"reads": 20_000}, *[LOST] * 2))
    assert "in 10 looks: 8 times still clear after 20,000 reads or more, 10 times set after the flush" in said.measured


# --- what a miss costs ------------------------------------------------------------------------------------------------------------------


def backed(huge: int, resident: int = 1000) -> Callable[[World], None]:
    """So much of what QEMU has of the guest is in huge pages."""
    return put("chase.backed", {"resident_bytes": resident, "huge_bytes": huge})


def exactly(run: str, ratio: float) -> Callable[[World], None]:
    """Every turn gave the same ratio."""

    def change(world: World) -> None:
        times = world[f"chase.{run}.ns_per_step"]
        times["large"], times["small"] = [16.0] * 31, [16.0 * ratio] * 31

    return change


def noisy(share: float) -> Callable[[World], None]:
    """So much of the host's time others had."""
    return put("chase.guest.attempts[0].noise", share)


EQUAL = put("chase", chased(1.05))
CONTROLS.fails(COSTS, EQUAL, name="pages that cost the same")
CONTROLS.fails(COSTS, EQUAL, noisy(0.0999), name="pages that cost the same on a quiet machine")
CONTROLS.is_inconclusive(COSTS, EQUAL, noisy(0.1), name="pages that cost the same on a busy machine")
CONTROLS.passes(COSTS, noisy(0.9), name="pages that cost more on a busy machine")
CONTROLS.is_inconclusive(COSTS, put("chase", chased(1.2, wobble=0.3)), name="an interval over the bound")
CONTROLS.is_inconclusive(COSTS, exactly("guest", 1.2), name="a ratio at the bound")
CONTROLS.passes(COSTS, exactly("guest", 1.25), name="a ratio above the bound")
CONTROLS.fails(COSTS, exactly("guest", 1.1875), name="a ratio below the bound")
CONTROLS.passes(COSTS, exactly("native", 1.2), name="a machine at the bound")
CONTROLS.is_not_observable(COSTS, exactly("native", 1.1875), name="a machine below the bound")
CONTROLS.is_not_observable(COSTS, put("chase", chased(1.0, 1.0)), name="a machine without a TLB to see")
CONTROLS.is_not_observable(COSTS, put("chase", {"not_run": "its processor is emulated"}), name="an emulated processor")
# What large pages of the guest cost where the host has none for it says nothing.
CONTROLS.is_not_observable(COSTS, EQUAL, backed(899), name="a host that backs the guest with small pages")
CONTROLS.fails(COSTS, EQUAL, backed(900), name="a host that backs the guest with huge pages")
CONTROLS.is_not_observable(COSTS, exactly("guest", 1.2), backed(0), name="a ratio at the bound over small pages of the host")
CONTROLS.passes(COSTS, backed(0), name="a miss that costs all the same")
CONTROLS.is_inconclusive(COSTS, backed(0, resident=0), name="a guest without memory")
CONTROLS.is_inconclusive(COSTS, backed(-1), name="less than no huge page")
for _run in ("guest", "native"):
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.right", False))
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.large_bytes.large", (64 << 20) - 1))
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.large_bytes.small", 1))
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.large_bytes.small", -1))
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.ns_per_step.compute", [0.3, 0.6] * 15 + [0.3]))
    CONTROLS.passes(COSTS, put(f"chase.{_run}.ns_per_step.compute", [0.5, 0.75] * 15 + [0.5]), name=f"a loop just steady enough ({_run})")
    CONTROLS.passes(COSTS, put(f"chase.{_run}.ns_per_step.compute", [0.1] * 3 + [0.3] * 25 + [0.9] * 3), name=f"outliers ({_run})")
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.ns_per_step.compute", [0.1] * 4 + [0.3] * 27), name=f"many quick ones ({_run})")
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.ns_per_step.compute", [0.3] * 27 + [0.9] * 4), name=f"many slow ones ({_run})")
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.ns_per_step.large", [0.0] * 31), name=f"no time at all ({_run})")
    CONTROLS.is_inconclusive(COSTS, put(f"chase.{_run}.ns_per_step.large[3]", -1.0), name=f"less than no time ({_run})")
    for _loop in ("small", "large", "compute"):
        CONTROLS.is_inconclusive(COSTS, drop(f"chase.{_run}.ns_per_step.{_loop}[30]"), name=f"a sample fewer ({_run}, {_loop})")
    CONTROLS.is_inconclusive(COSTS, changed(f"chase.{_run}.steps", lambda steps: steps + 1), name=f"another number of steps ({_run})")
    CONTROLS.is_inconclusive(COSTS, changed(f"chase.{_run}.mapped_pages", lambda pages: pages - 1), name=f"less memory ({_run})")
for _name in ("samples", "chase_steps", "chase_mib"):
    CONTROLS.is_inconclusive(
        COSTS, changed(f"parameters.{_name}", lambda value: value + 1), name=f"another chase than was asked for: {_name}"
    )


def few(samples: int) -> Callable[[World], None]:
    """A run with so few samples."""

    def change(world: World) -> None:
        world["parameters.samples"] = samples
        for run in ("guest", "native"):
            times = world[f"chase.{run}.ns_per_step"]
            times |= {name: of[:samples] for name, of in times.items()}

    return change


CONTROLS.passes(COSTS, few(10), name="ten samples are enough")
CONTROLS.is_inconclusive(COSTS, few(9), name="nine samples are too few")


def test_the_text_compares_with_the_machine_itself() -> None:
    def slower(world: World) -> None:
        times = world["chase.guest.ns_per_step"]
        times["small"] = [2 * each for each in times["small"]]
        times["large"] = [2 * each for each in times["large"]]

    assert "guest over machine: 2.22 for a step over small pages, 1.00 without memory" in KVM.verdict(COSTS, slower).measured


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


@pytest.mark.parametrize("check", [KEPT, COSTS])
def test_every_check_has_a_world_in_which_it_fails(check: str) -> None:
    CONTROLS.prove(check)
