"""Long lists of evidence, kept within reason: only as many members as leave every verdict as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from vmlab.lab.checks import Check, judge
from vmlab.lab.controls.kept import Kept
from vmlab.lab.controls.mutation import spots_of
from vmlab.lab.evidence import Evidence
from vmlab.lab.places import look_up

LONG = 300
"""A list of more members is worth a try."""
_FEW = 60


def thinned(found: Kept, checks: Sequence[Check], places: Sequence[str] = ()) -> Kept:
    """The same with fewer members in each long list, the first and the last among them, where no check comes out otherwise for it.

    What stands at these ``places`` stays, too: those that questions measure.
    """
    kept = Kept(copy.deepcopy(found.observations), found.parameters, found.run)
    wanted = _outcome(kept, checks, places)
    # The innermost first: what is judged again and again is small soon.
    for spot in reversed([spot for spot in spots_of(kept.observations) if isinstance(spot.value, list) and len(spot.value) > LONG]):
        whole = spot.value
        spot.holder[spot.key] = [whole[i * (len(whole) - 1) // (_FEW - 1)] for i in range(_FEW)]
        if _outcome(kept, checks, places) != wanted:
            spot.holder[spot.key] = whole
    return kept


def _outcome(kept: Kept, checks: Sequence[Check], places: Sequence[str]) -> Any:
    judged = judge(checks, Evidence(kept.observations, kept.parameters, kept.run))
    return [each.verdict.kind for each in judged], [look_up(kept.observations, place) for place in places]
