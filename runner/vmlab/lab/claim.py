"""A claim of the course page, and how it stands: which is a matter of the claim alone, whatever a check of it came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, model_validator

from vmlab.lab.strict import Strict, Text


class Standing(StrEnum):
    """How a claim stands against what is so, with the word and the sign that a person is shown.

    A check tests a claim *with* its correction. So "pass" says nothing of the page's own sentence, and this does.
    """

    HOLDS = "holds"
    SIMPLIFIED = "simplified"
    WRONG = "wrong"

    @property
    def sign(self) -> str:
        """One character for pages; none of the verdicts has it."""
        return _TABLE[self].sign

    @property
    def word(self) -> str:
        """As a badge shows it: ``Claim simplified``."""
        return _TABLE[self].word

    @property
    def meaning(self) -> str:
        """One sentence for a legend."""
        return _TABLE[self].meaning

    @property
    def leads_on(self) -> str:
        """The word between a claim and its correction."""
        return _TABLE[self].leads_on


@dataclass(frozen=True)
class _Meaning:
    sign: str
    word: str
    leads_on: str
    meaning: str


_TABLE = {
    Standing.HOLDS: _Meaning("=", "Claim holds", "To add", "What the course page says is so."),
    Standing.SIMPLIFIED: _Meaning("≈", "Claim simplified", "More exactly", "It is so as far as it goes; what it leaves out is added."),
    Standing.WRONG: _Meaning("≠", "Claim wrong", "Instead", "It is not so; what is so stands below it, and that is what the check tests."),
}


class Claim(Strict):
    """One claim of the course page, in the lab's words, and what a careful kernel engineer would add."""

    says: Text = Field(description="the claim, in your own words: the report shows it without quotation marks")
    stands: Standing = Field(description="how it stands: it is so, it leaves something out, it is not so; the claim's badge in the report")
    correction: str = Field(default="", description="what a careful kernel engineer would add; a claim that does not simply hold needs one")

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if self.stands is not Standing.HOLDS and not self.correction.strip():
            raise ValueError(f"a claim that is {self.stands} needs a correction, which says what is so")
        return self
