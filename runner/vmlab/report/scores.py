"""Judgements as a report holds them: a check with its verdict, and the points of many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vmlab.lab.checks import Judgement
from vmlab.lab.claim import Claim
from vmlab.lab.verdict import VerdictKind
from vmlab.report.model import CheckPart, ClaimPart, ScorePart
from vmlab.report.text import encodable


def score(judgements: Sequence[Judgement]) -> ScorePart:
    """The points: what is not observable counts in neither earned nor possible; inconclusive and error count in possible."""
    counts = dict.fromkeys(VerdictKind, 0)
    for each in judgements:
        counts[each.verdict.kind] += 1
    return ScorePart(
        earned=round(math.fsum(each.points for each in judgements), 6),
        possible=round(math.fsum(each.check.points for each in judgements if each.verdict.kind.counts), 6),
        counts=counts,
    )


def check_part(judgement: Judgement, claims: Mapping[str, ClaimPart | Claim]) -> CheckPart:
    """A judgement as the report holds it, with the standing of the claim that it tests."""
    check, verdict = judgement.check, judgement.verdict
    claim = claims.get(check.claim)
    return CheckPart(
        id=check.id,
        title=check.title,
        method=encodable(check.method),
        claim=check.claim,
        stands=None if claim is None else claim.stands,
        after=list(check.after),
        points=judgement.points,
        max_points=check.points,
        verdict=verdict.kind,
        rationale=encodable(verdict.rationale),
        expected=encodable(verdict.expected),
        measured=encodable(verdict.measured),
        hint=encodable(verdict.hint),
        rests_on=encodable(judgement.reads.rests_on()),
        left_out=verdict.left_out,
    )
