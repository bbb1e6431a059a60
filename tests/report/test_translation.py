"""Pictures of address translations: what they show, and that no evidence can break them."""

from __future__ import annotations

import copy
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from vmlab.lab.pictures import Translation
from vmlab.report.translation import Picture, draw

DEFINITION = Translation.model_validate(
    {
        "id": "chain",
        "title": "One byte & four names",
        "walk": "seen.walk",
        "marker": "seen.marker",
        "stages": [
            {"name": "guest-physical", "address": "seen.walk.physical", "holds": "seen.physical_holds"},
            {"name": "host-virtual", "address": "seen.host_virtual", "holds": "seen.host_holds"},
            {"name": "host-physical", "address": "seen.host_physical", "holds": "seen.frame_holds"},
        ],
        "shows": "Nine bits a level.",
    }
)
SEEN: dict[str, Any] = {
    "marker": "ab12",
    "walk": {
        "virtual": "0x7f8b9d600340",
        "steps": [
            {"level": 4, "index": 255, "entry_address": "0x3a337f8", "entry": "0x25ad067"},
            {"level": 3, "index": 46, "entry_address": "0x25ad170", "entry": "0x3a34067"},
            {"level": 2, "index": 235, "entry_address": "0x3a34758", "entry": "0x1c65067"},
            {"level": 1, "index": 0, "entry_address": "0x1c65000", "entry": "0x8000000004d8b867"},
        ],
        "physical": "0x4d8b340",
        "page_bytes": 4096,
    },
    "physical_holds": "ab12",
    "host_virtual": "0x7ff754d8a340",
    "host_holds": "zz",
}


def drawn(**changes: Any) -> Picture:
    return draw(DEFINITION, {"seen": {**copy.deepcopy(SEEN), **changes}}, "t1")


def texts(picture: Picture) -> list[str]:
    return [element.text or "" for element in ET.fromstring(picture.svg).iter("text")]


def walk(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SEEN["walk"]), **changes}


def test_every_value_stands_in_the_picture() -> None:
    shown = texts(drawn())
    for value in ("0x7f8b9d600340", "255", "46", "235", "0x340", "[0x3a33000 + 8 * 255]", "0x8000000004d8b867", "P W U A D NX"):
        assert value in shown
    assert "0x4d8b340" in shown
    assert "0x7ff754d8a340" in shown


def test_each_stage_says_what_was_read_there() -> None:
    picture = drawn()
    assert [stage.holding for stage in picture.stages] == ["holds the marker", "holds something else", "not read"]
    assert "not shown here" in texts(picture)
    assert "✓ holds the marker" in texts(picture)


def test_control_without_a_marker_nothing_holds_it() -> None:
    assert next(stage.holding for stage in drawn(marker="").stages) == "holds something else"
    assert next(stage.holding for stage in drawn(marker=None, physical_holds=None).stages) == "not read"


def test_a_large_page_has_a_longer_offset() -> None:
    steps = [*SEEN["walk"]["steps"][:2], {"level": 2, "index": 235, "entry_address": "0x3a34758", "entry": "0x80000000044008e7"}]
    shown = texts(drawn(walk=walk(steps=steps, page_bytes=1 << 21, physical="0x4400340")))
    assert "0x340" in shown
    assert "20:0" in shown
    assert "P W U A D PS NX" in shown
    assert "level 1" not in shown


def test_five_levels() -> None:
    five = [{"level": 5, "index": 0, "entry_address": "0x260c000", "entry": "0x3a33067"}, *SEEN["walk"]["steps"]]
    assert "56:48" in texts(drawn(walk=walk(steps=five)))


def test_a_walk_that_ends_early_says_so_and_has_no_stages() -> None:
    shown = texts(drawn(walk=walk(steps=SEEN["walk"]["steps"][:2], page_bytes=0, physical=None)))
    assert any("not present" in each for each in shown)
    assert "guest-physical" not in shown


def test_the_picture_in_words() -> None:
    root = ET.fromstring(drawn().svg)
    description = root.find("desc")
    assert description is not None
    assert description.text is not None
    assert "4 levels" in description.text
    assert "host-physical: not shown on this host, not read." in description.text
    assert description.text.endswith("Nine bits a level.")
    assert root.attrib["aria-labelledby"] == "t1-title"


STEP = SEEN["walk"]["steps"][0]


@pytest.mark.parametrize(
    "changed",
    [
        None,
        [],
        "x",
        walk(steps=None),
        walk(steps=[]),
        walk(steps=["x"]),
        walk(steps=[STEP] * 2),
        walk(steps=[STEP] * 900),
        walk(steps=[{**STEP, "level": True}]),
        walk(steps=[{**STEP, "level": 6}]),
        walk(steps=[{**STEP, "index": 512}]),
        walk(steps=[{**STEP, "index": -1}]),
        walk(steps=[{**STEP, "entry": 7}]),
        walk(steps=[{**STEP, "entry": "0x" + "f" * 4000}]),
        walk(steps=[{**STEP, "entry_address": "<script>"}]),
        walk(virtual="1"),
        walk(page_bytes=5),
        walk(page_bytes=None),
        walk(page_bytes=[]),
    ],
)
def test_what_is_no_translation_is_a_note(changed: Any) -> None:
    picture = drawn(walk=changed)
    assert picture.svg == ""
    assert picture.note.startswith("No data")


def test_nothing_recorded_is_a_note() -> None:
    assert draw(DEFINITION, {}, "t1").note


def test_hostile_text_stays_text() -> None:
    picture = drawn(marker="</svg><script>", physical_holds="\x1b[31m</svg>", host_virtual="0x1<b>")
    assert "<script" not in picture.svg
    assert "<b>" not in picture.svg
    assert "not shown here" in texts(picture)


def test_hostile_names_stay_text() -> None:
    nasty = "</text><script>'\"&\x1b[31m\x00" + "y" * 200
    stages = [stage.model_copy(update={"name": nasty}) for stage in DEFINITION.stages]
    picture = draw(DEFINITION.model_copy(update={"title": nasty, "stages": stages}), {"seen": SEEN}, "t1")
    assert "<script" not in picture.svg
    assert ET.fromstring(picture.svg).findtext("title") == nasty.replace("\x1b[31m\x00", "\N{REPLACEMENT CHARACTER}")
    assert any(text.startswith("</text><script>'\"&") and text.endswith("more characters are in report.json]") for text in texts(picture))


def test_what_is_drawn_stays_in_the_picture() -> None:
    for changes in ({}, {"walk": walk(steps=SEEN["walk"]["steps"][:2], page_bytes=0)}, {"walk": walk(steps=[STEP], page_bytes=1 << 30)}):
        root = ET.fromstring(drawn(**changes).svg)
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        boxes = [{name: float(box.attrib[name]) for name in ("x", "y", "width", "height")} for box in root.iter("rect")]
        assert all(left < box["x"] and box["x"] + box["width"] < left + width for box in boxes), changes
        assert all(top < box["y"] and box["y"] + box["height"] < top + height for box in boxes), changes
        assert max(float(text.attrib["y"]) for text in root.iter("text")) < top + height
