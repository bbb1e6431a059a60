"""What is broken in the worlds of the lab's controls fits its guests and its guest scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vmlab.lab import read_lab
from vmlab.lab.wording import contradictable, hintless

from ..worlds import SECOND_COPY_BYTES, WORLDS, World
from .sound import SOUND

LAB = Path(__file__).resolve().parents[1]


def test_every_world_but_the_sound_one_is_another() -> None:
    assert [name for name, world in WORLDS.items() if world == World()] == ["sound"]
    assert len({repr(world) for world in WORLDS.values()}) == len(WORLDS)


def test_a_guest_that_stands_in_is_there_in_its_world_alone() -> None:
    guests = read_lab(LAB).definition.guests
    for name, world in WORLDS.items():
        for role, stand_in in world.guests.items():
            assert role in ("main", "other")
            assert guests[stand_in].when == {"world": [name]}
            # What differs is what is broken: neither is the only one that has other images.
            assert guests[stand_in].images == guests[role].images


@pytest.mark.parametrize("script", ["marker.py", "touch.py", "keep.py", "chase.py"])
def test_the_scripts_know_what_they_are_told_in_a_broken_world(script: str) -> None:
    text = (LAB / "guest" / script).read_text()
    worlds = WORLDS.values()
    by_script = {
        "marker.py": {option for world in worlds for option in (*world.marker, *world.large)},
        "touch.py": {option for world in worlds for option in world.touch},
        "keep.py": {option for world in worlds for option in world.keep},
        "chase.py": {option for world in worlds for option in world.chase},
    }
    told = by_script[script]
    assert told == set(re.findall(r'"(--[a-z-]+)"', text))


def test_all_evidence_is_judged_or_kept_for_the_reader() -> None:
    kept = SOUND.lab.definition.kept_for_the_reader
    assert [place for place in SOUND.unread() if not any(each.covers(place) for each in kept)] == []


def test_each_failure_says_where_to_look() -> None:
    assert hintless(LAB) == []
    assert contradictable(LAB) == []


def test_the_second_copy_is_where_the_script_stores_it() -> None:
    found = re.search(r"(?m)^AGAIN_AT = MARKER_AT \+ (0x[0-9a-f]+)$", (LAB / "guest" / "marker.py").read_text())
    assert found is not None
    assert int(found[1], 16) == SECOND_COPY_BYTES
