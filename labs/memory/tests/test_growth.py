"""The check on memory that grows as it is touched: each step counts; neither noise nor a host that swaps decides anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmlab.lab.controls import Control, Controls, World, drop, put

from .sound import SOUND

CONTROLS = Controls(SOUND)
GROWS = "memory_grows_as_it_is_touched"
PAGE = 4096
PAGES = 4096
STEP = 512


def grown(member: str, function: Callable[[int, int], int]) -> Callable[[World], None]:
    """Change a member of each step of growth by (step, value)."""

    def change(world: World) -> None:
        for number, sample in enumerate(world["growth.samples"]):
            if member in sample:
                sample[member] = function(number, sample[member])

    return change


def steps(growths: list[int], more: int = 0, unbacked: int = STEP) -> Callable[[World], None]:
    """QEMU's own memory grew by so many pages in each of the eight steps, of whose 512 pages so many had none; and by more at the end."""

    def change(world: World) -> None:
        own = world["growth.samples[0].own_bytes"]
        for sample, growth in zip(world["growth.samples"][1:], growths, strict=True):
            own += growth * PAGE
            sample |= {"own_bytes": own, "unbacked": unbacked}
        world["growth.again.own_bytes"] = own + more * PAGE

    return change


def total(over: int) -> list[int]:
    """As many pages as were needed, and so many over."""
    return [STEP + over, *[STEP] * 7]


# What is allowed over 4,096 pages without a frame: a quarter more and 64.
ALLOWED = PAGES // 4 + 64

CONTROLS.fails(GROWS, put("growth.samples[*].own_bytes", 40_000_000), name="memory that is there at once")
CONTROLS.fails(GROWS, grown("backed_after", lambda _, value: value - 1), name="pages without a frame after the touch")
CONTROLS.fails(GROWS, grown("frames", lambda _, value: value - 1), name="two pages in one frame")
CONTROLS.fails(GROWS, grown("present", lambda _, value: value - 1), name="pages that the guest's kernel does not have")
CONTROLS.fails(GROWS, put("growth.samples[3].frames", STEP - 1), name="two pages in one frame in one step")
CONTROLS.fails(GROWS, put("growth.again.unbacked", 1), name="frames that come at the second touch")
CONTROLS.fails(GROWS, steps([0] * 7 + [PAGES]), name="all frames in the last step")
CONTROLS.fails(GROWS, steps([PAGES] + [0] * 7), name="all frames in the first step")
CONTROLS.fails(GROWS, steps([*[STEP] * 4, STEP - 1, *[STEP] * 3]), name="one page too few in one step")
CONTROLS.passes(GROWS, steps([STEP] * 8), name="exactly as many as had no frame")
CONTROLS.passes(GROWS, steps(total(ALLOWED)), name="as much as others may touch")
CONTROLS.is_inconclusive(GROWS, steps(total(ALLOWED + 1)), name="a page more than others may touch")
CONTROLS.passes(GROWS, steps([STEP] * 8, more=PAGES // 10), name="as much as others may touch at the end")
CONTROLS.is_inconclusive(GROWS, steps([STEP] * 8, more=PAGES // 10 + 1), name="a page more than others may touch at the end")
CONTROLS.passes(GROWS, steps([STEP] * 8, more=-(PAGES // 10)), name="as much as may go at the end")
CONTROLS.is_inconclusive(GROWS, steps([STEP] * 8, more=-(PAGES // 10) - 1), name="a page more than may go at the end")
CONTROLS.passes(GROWS, steps([STEP // 2] * 8, unbacked=STEP // 2), name="half of the pages had a frame before")
CONTROLS.is_inconclusive(GROWS, steps([STEP // 2 - 1] * 8, unbacked=STEP // 2 - 1), name="most pages had a frame before")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[*].unbacked", 0), name="pages that had frames before")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[*].huge_bytes", 2 << 20), name="a host with huge pages")
CONTROLS.is_inconclusive(GROWS, put("growth.again.huge_bytes", 2 << 20), name="a host that makes huge pages at the end")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[2].touched", STEP), name="a step in which nothing was touched")

for _place in ("samples[2].unbacked", "samples[2].huge_bytes", "again.huge_bytes", "again.unbacked"):
    CONTROLS.is_inconclusive(GROWS, put(f"growth.{_place}", -1), name=f"less than nothing: {_place}")
for _place in ("samples[0].own_bytes", "samples[8].own_bytes", "again.own_bytes"):
    CONTROLS.is_inconclusive(GROWS, put(f"growth.{_place}", 0), name=f"no memory of QEMU's own: {_place}")
CONTROLS.is_inconclusive(GROWS, put("growth.again.swapped", -1), put("growth.again.unbacked", 1), name="less than nothing swapped")

# What was measured is what was asked for.
CONTROLS.is_inconclusive(GROWS, put("growth.mapped.present", 1), name="a guest that was mapped in advance")
CONTROLS.is_inconclusive(GROWS, put("growth.mapped.pages", PAGES - 1), name="a mapping of another size")
CONTROLS.is_inconclusive(GROWS, put("growth.pages", PAGES + 1), name="another number of pages")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[0].touched", 1), name="a page that was touched before")
CONTROLS.is_inconclusive(GROWS, put("growth.samples[-1].touched", PAGES + 1), name="a page more than was asked for")
CONTROLS.is_inconclusive(GROWS, put("parameters.pages", 2 * PAGES), name="half of what was asked for")
CONTROLS.is_inconclusive(GROWS, put("parameters.steps", 7), name="another number of steps")
CONTROLS.is_inconclusive(GROWS, put("parameters.pages", 0), name="no page")
CONTROLS.is_inconclusive(GROWS, drop("growth.samples[1].swapped"), put("growth.again.unbacked", 1), name="swapped pages that are not told")
CONTROLS.is_not_observable(GROWS, put("growth", {"refused": "QEMU names no address"}), name="a QEMU that tells nothing")


# A host that swaps QEMU's pages out meanwhile, as it would be recorded: some are not there after the touch, or the own part shrinks.
for _place in ("growth.samples[4].swapped", "growth.again.swapped", "growth.samples[1].swapped", "growth.samples[-1].swapped"):
    CONTROLS.is_inconclusive(GROWS, put(_place, 1), put("growth.samples[4].backed_after", STEP - 1), name=f"swapped pages ({_place})")
CONTROLS.is_inconclusive(
    GROWS, put("growth.samples[5].swapped", 9), steps([*[STEP] * 4, -STEP, *[STEP] * 3]), name="own memory that shrinks"
)
CONTROLS.is_inconclusive(GROWS, put("growth.again.swapped", 3), put("growth.again.unbacked", 3), name="swapped before the second touch")
CONTROLS.passes(GROWS, put("growth.samples[4].swapped", 100), name="pages that were swapped out long before")


@CONTROLS.control(GROWS)
def a_frame_less_in_each_step(world: World) -> None:
    steps([STEP - 1] * 8)(world)


def test_the_text_tells_the_step() -> None:
    said = SOUND.verdict(GROWS, put("growth.samples[3].frames", STEP - 1))
    assert "512 present after in 511 frames" in said.measured
    late = SOUND.verdict(GROWS, put("growth.again.unbacked", 7))
    assert "7 had no frame by then" in late.measured


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_control(control: Control) -> None:
    control.hold()


def test_it_was_seen_to_fail() -> None:
    CONTROLS.prove(GROWS)
