"""The tests look for themselves."""

from vmlab.lab import Evidence, Verdict, check, passed


@check(points=1, claim="T1")
def it_has(evidence: Evidence) -> Verdict:
    """It has."""
    return passed("It has.", measured=evidence["it"].text("has"))
