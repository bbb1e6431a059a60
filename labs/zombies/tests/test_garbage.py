"""Nothing, and garbage, at every place that a check reads: no check decides on nothing, and none breaks on anything."""

from __future__ import annotations

import pytest

from vmlab.lab.controls import INCONCLUSIVE, Sound, drop, put

SOUND = Sound.of(__file__)


@pytest.mark.parametrize("check", SOUND.names)
def test_no_check_decides_anything_on_nothing(check: str) -> None:
    SOUND.hold_without_evidence(check)


@pytest.mark.parametrize("check", SOUND.names)
def test_garbage_anywhere_breaks_no_check(check: str) -> None:
    SOUND.hold_on_garbage(check)


def test_nothing_passes_without_evidence() -> None:
    empty = [drop(name) for name in SOUND.world().observations]
    null = [put(name, None) for name in SOUND.world().observations]
    assert set(SOUND.verdicts(*empty).values()) == set(SOUND.verdicts(*null).values()) == {INCONCLUSIVE}


def test_what_no_check_reads_is_kept_for_a_reader() -> None:
    kept = SOUND.lab.definition.kept_for_the_reader
    assert [place for place in SOUND.unread() if not any(each.covers(place) for each in kept)] == []
