"""How a claim stands: what lab.yaml must say of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vmlab.lab.claim import Claim, Standing
from vmlab.lab.verdict import VerdictKind


@pytest.mark.parametrize(
    "claim",
    [
        {"says": "A", "stands": "holds"},
        {"says": "A", "stands": "holds", "correction": "And more."},
        {"says": "A", "stands": "simplified", "correction": "But."},
        {"says": "A", "stands": "wrong", "correction": "No."},
    ],
)
def test_claims(claim: dict[str, Any]) -> None:
    assert Claim.model_validate(claim).stands == claim["stands"]


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"says": "A"}, "stands"),
        ({"says": "A", "stands": "true"}, "'holds', 'simplified' or 'wrong'"),
        ({"says": "A", "stands": "simplified"}, "a claim that is simplified needs a correction"),
        ({"says": "A", "stands": "wrong", "correction": " "}, "a claim that is wrong needs a correction"),
    ],
)
def test_control_what_is_no_claim_is_refused(claim: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Claim.model_validate(claim)


def test_nobody_takes_a_standing_for_a_verdict() -> None:
    assert not {each.sign for each in Standing} & {each.sign for each in VerdictKind}
    assert not {each.word for each in Standing} & {each.word for each in VerdictKind}
    assert not {each.value for each in Standing} & {each.value for each in VerdictKind}, "both are classes of a page"
