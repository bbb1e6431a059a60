"""What a check concludes. Five verdicts, and never a pass without evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class VerdictKind(StrEnum):
    """The five verdicts, with the word and the sign that a person is shown (a sign as well, because colour alone excludes people)."""

    PASS = "pass"
    FAIL = "fail"
    NOT_OBSERVABLE = "not-observable"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @property
    def sign(self) -> str:
        """One character for terminals and pages."""
        return {"pass": "✓", "fail": "✗", "not-observable": "○", "inconclusive": "?", "error": "!"}[self]

    @property
    def meaning(self) -> str:
        """One sentence for a legend."""
        return {
            "pass": "The evidence shows what the claim says.",
            "fail": "The evidence contradicts what the claim says.",
            "not-observable": "This host cannot show it; the reason is given. It counts neither for nor against the student.",
            "inconclusive": "The evidence is missing, malformed or too noisy to decide; the reason is given.",
            "error": "The run broke by a fault of the runner or the machine, never of the student.",
        }[self]


@dataclass(frozen=True)
class Verdict:
    """A conclusion, why it was reached, and the two values that were compared, in words."""

    kind: VerdictKind
    rationale: str
    expected: str = ""
    measured: str = ""
    hint: str = ""


def passed(rationale: str, *, expected: str = "", measured: str) -> Verdict:
    """The evidence shows it. ``measured`` is required: a pass names what it rests on."""
    return Verdict(VerdictKind.PASS, rationale, expected, measured)


def failed(rationale: str, *, expected: str = "", measured: str = "", hint: str = "") -> Verdict:
    """The evidence contradicts it. ``hint`` says where a student should look."""
    return Verdict(VerdictKind.FAIL, rationale, expected, measured, hint)


def not_observable(why: str, *, hint: str = "") -> Verdict:
    """This host or guest cannot show it."""
    return Verdict(VerdictKind.NOT_OBSERVABLE, why, hint=hint)


def inconclusive(why: str, *, expected: str = "", measured: str = "", hint: str = "") -> Verdict:
    """The evidence does not decide it."""
    return Verdict(VerdictKind.INCONCLUSIVE, why, expected, measured, hint)
