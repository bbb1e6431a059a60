"""What a check concludes. Five verdicts, and never a pass without evidence.

What a verdict means for whoever handles it (the exit code, what a reader is shown first, whether its points count) stands in
`VerdictKind` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, EXIT_PASS


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
        return _TABLE[self].sign

    @property
    def meaning(self) -> str:
        """One sentence for a legend."""
        return _TABLE[self].meaning

    @property
    def urgency(self) -> int:
        """What a reader must see first has the highest."""
        return _TABLE[self].urgency

    @property
    def exit_code(self) -> int:
        """The exit code of a run whose worst verdict it is."""
        return _TABLE[self].exit_code

    @property
    def word(self) -> str:
        """As a heading or a badge shows it: ``Not observable``."""
        return self.value.replace("-", " ").capitalize()

    @property
    def needs_attention(self) -> bool:
        """Whether a reader has something to do about it: it did not pass, though it could have."""
        return self.exit_code != EXIT_PASS

    @property
    def counts(self) -> bool:
        """Whether its points are among those that could be earned here."""
        return self is not VerdictKind.NOT_OBSERVABLE

    @property
    def earns(self) -> bool:
        """Whether its points are earned."""
        return self is VerdictKind.PASS

    @property
    def is_sound(self) -> bool:
        """Whether a check may come out so where nothing is broken: it passes, or this host cannot show it."""
        return self in (VerdictKind.PASS, VerdictKind.NOT_OBSERVABLE)

    @property
    def inherited(self) -> VerdictKind | None:
        """The verdict of a check that rests on one which came out so; None: it is judged by its own evidence.

        What could not be seen, or broke, stays so further down. What was refuted leaves open what rests on it.
        """
        if self is VerdictKind.PASS:
            return None
        return VerdictKind.INCONCLUSIVE if self is VerdictKind.FAIL else self

    @classmethod
    def by_urgency(cls) -> list[VerdictKind]:
        """All five, what a reader must see first at the front."""
        return sorted(cls, key=lambda kind: -kind.urgency)

    @classmethod
    def worst(cls, kinds: Iterable[VerdictKind]) -> VerdictKind:
        """Many verdicts in one: the most urgent. Nothing was to be observed where there are none."""
        return max(kinds, key=lambda kind: kind.urgency, default=cls.NOT_OBSERVABLE)


@dataclass(frozen=True)
class _Meaning:
    sign: str
    urgency: int
    exit_code: int
    meaning: str


_TABLE = {
    VerdictKind.PASS: _Meaning("✓", 1, EXIT_PASS, "The evidence shows what the check says."),
    VerdictKind.FAIL: _Meaning("✗", 3, EXIT_FAIL, "The evidence contradicts what the check says."),
    VerdictKind.NOT_OBSERVABLE: _Meaning(
        "○", 0, EXIT_PASS, "This host cannot show it; the reason is given. It counts neither for nor against the student."
    ),
    VerdictKind.INCONCLUSIVE: _Meaning(
        "?", 2, EXIT_FAIL, "The evidence is missing, malformed or too noisy to decide; the reason is given."
    ),
    VerdictKind.ERROR: _Meaning("!", 4, EXIT_COULD_NOT_RUN, "The run broke by a fault of the runner or the machine, never of the student."),
}


@dataclass(frozen=True)
class Verdict:
    """A conclusion, why it was reached, and the two values that were compared, in words."""

    kind: VerdictKind
    rationale: str
    expected: str = ""
    measured: str = ""
    hint: str = ""
    left_out: bool = False
    """Its evidence belongs to parts of the experiment that the run left out."""


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
