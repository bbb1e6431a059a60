"""Places in the evidence, and those that lab.yaml keeps for the reader. (What stands at one: tests/report/test_predictions.py.)"""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vmlab.lab.kept import Kept
from vmlab.lab.places import covers, leads_somewhere


@pytest.mark.parametrize(
    ("kept", "place", "covered"),
    [
        ("a", "a", True),
        ("a", "a.b[0].c", True),
        ("a.b", "a.b.c", True),
        ("a.b", "a", False),
        ("a.b", "a.bc", False),
        ("a.*.c", "a.b.c[3]", True),
        ("a.*.c", "a.b.d", False),
        ("a.*", "a[0]", False),
        ("a[*].c", "a[12].c", True),
        ("a[*].c", "a[-1].c", True),
        ("a[*].c", "a.b.c", False),
        ("a[*].c", "a[12]", False),
        ("a[0]", "a[0].x", True),
        ("a[0]", "a[1].x", False),
        ("a[-1]", "a[2]", False),
        ("a.b", "a..b", False),
        ("", "a", False),
        ("a", "", False),
    ],
)
def test_a_place_covers_what_lies_below_it(kept: str, place: str, covered: bool) -> None:
    assert covers(kept, place) is covered


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("a.n", True),
        ("a.null", True),
        ("a.rows[*].x", True),
        ("a.rows[1].x", True),
        ("a.rows[-1].x", True),
        ("a.rows[2].x", False),
        ("a.rows[*].y", False),
        ("a.*[*].x", True),
        ("a.*.x", False),
        ("a.n[*]", False),
        ("b", False),
        ("a..n", False),
    ],
)
def test_a_place_with_a_star_leads_somewhere(place: str, found: bool) -> None:
    assert leads_somewhere({"a": {"n": 1, "null": None, "rows": [{"x": 1}, {"x": 2}]}}, place) is found


def test_what_is_kept_for_the_reader() -> None:
    kept = Kept(places=["anatomy.*.maps", "limits", "anatomy.alive.stat[*]"], because="To look at.")
    assert kept.covers("limits.pid_max")
    assert kept.covers("anatomy.zombie.maps[3]")
    assert not kept.covers("anatomy.zombie.status")
    assert kept.of("anatomy") == ["anatomy.*.maps", "anatomy.alive.stat[*]"]
    assert kept.of("cost") == []


@pytest.mark.parametrize("place", ["", ".a", "a.", "a..b", "a[", "a[x]", "*", "*.b", "[*]", "[0].a", "a]b"])
def test_control_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="expected a place"):
        Kept(places=[place], because="b")


@pytest.mark.parametrize(
    "wrong", [{"places": [], "because": "b"}, {"places": ["a"]}, {"places": ["a"], "because": ""}, {"places": "a", "because": "b"}]
)
def test_control_places_without_a_reason_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Kept.model_validate(wrong)
