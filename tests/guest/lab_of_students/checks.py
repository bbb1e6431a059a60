"""The tests look for themselves."""

from vmlab.lab import Evidence, Verdict, check, passed


@check(points=1, claim="X1")
def it_works(evidence: Evidence) -> Verdict:
    """It works."""
    return passed("It works.", measured=evidence["everything"].text("python"))
