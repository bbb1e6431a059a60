"""What was read of the evidence: the places that a check looked at, so that its verdict can say on what it rests."""

from __future__ import annotations

import re
from collections.abc import Sequence

_INDEX = re.compile(r"\[\d+\]")
_LAST_STEP = re.compile(r"(?:\.[^.\[\]]*|\[[^\]]*\])$")
_MOST = 60
_LONGEST = 200


class Reads:
    """The places that were looked at, in order (``growth.samples[3].count``), and the objects whose members were gone through."""

    def __init__(self) -> None:
        self.places: dict[str, None] = {}
        self.members: set[str] = set()

    def rests_on(self) -> list[str]:
        """The same for people: ``[*]`` for any index, and without what only leads to another place. A few dozen places at most.

        Of more than that it names what they lie in.
        """
        places = list(dict.fromkeys(_INDEX.sub("[*]", place) for place in self.places))
        while len(found := _innermost(places)) > _MOST:
            places = _shallower(found)
        return [place[:_LONGEST] for place in found]


def _innermost(places: Sequence[str]) -> list[str]:
    """Those of the places that no other lies in."""
    outer = {place[: match.start()] for place in places if (match := _LAST_STEP.search(place))}
    return [place for place in places if place not in outer]


def _shallower(places: Sequence[str]) -> list[str]:
    """The places with the deepest of them one step less deep; where none is deep any more, the first of them."""
    steps = {place: place.count(".") + place.count("[") for place in places}
    deepest = max(steps.values())
    if deepest == 0:
        return list(places[:_MOST])
    return list(dict.fromkeys(_LAST_STEP.sub("", place) if steps[place] == deepest else place for place in places))
