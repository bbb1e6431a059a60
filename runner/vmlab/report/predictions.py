"""Predict, then measure: predictions and answers beside the value that the evidence holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vmlab.lab.definition import Question, QuestionKind
from vmlab.lab.places import look_up
from vmlab.report.model import AnswerPart, TallyPart
from vmlab.report.text import number

Answer = int | float | str

_COUNTS = ("held", "compared", "untold", "unanswered")
_FAR = 10_000  # percent, that is, a hundred times: how much further makes no difference
_YES = frozenset({"yes", "true"})
_NO = frozenset({"no", "false"})


def as_number(value: Any) -> float | None:
    """A finite number as a float; None for anything else, ``true`` and numbers too large for a float among it."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def compare(questions: Sequence[Question], answers: Mapping[str, Answer], observations: Mapping[str, Any]) -> list[AnswerPart]:
    """Every question with the lab's prediction, the student's answer if there is one, and what was measured."""
    return [_compare(question, answers.get(question.id), observations) for question in questions]


def tally(answers: Sequence[AnswerPart]) -> TallyPart | None:
    """How many predictions held: the student's, or the lab's own where no student answered; None where nothing was asked."""
    given = [each for each in answers if each.answer is not None]
    if not answers:
        return None
    rights = [each.answer_right for each in given] if given else [each.prediction_right for each in answers]
    return TallyPart(
        whose="student" if given else "lab",
        held=rights.count(True),
        compared=len(rights) - rights.count(None),
        untold=rights.count(None),
        unanswered=len(answers) - len(given) if given else 0,
    )


def totals(parts: Iterable[TallyPart | None]) -> list[TallyPart]:
    """Tallies of many labs added up: students' predictions, then labs' own, where there are such."""
    found = [each for each in parts if each is not None]
    groups = [[each for each in found if each.whose == whose] for whose in ("student", "lab")]
    return [
        TallyPart(whose=group[0].whose, **{name: sum(getattr(each, name) for each in group) for name in _COUNTS})
        for group in groups
        if group
    ]


def tally_words(part: TallyPart) -> str:
    """The tally as a sentence without its end: ``6 of the student's 9 predictions held``."""
    whose = "the student's" if part.whose == "student" else "the lab's own"
    if part.compared == 0:
        said = f"none of {whose} predictions can be compared"
    else:
        said = f"{part.held} of {whose} {part.compared} prediction{'' if part.compared == 1 else 's'} held"
        if part.untold:
            said += f"; {part.untold} more cannot be compared"
    return said + (f"; {part.unanswered} left out" if part.unanswered else "")


def outcome(question: Question, guess: Answer, measured: Answer | None, *, right: bool) -> str:
    """What came of a guess, and how near it had to be: ``held, within 60 % (32 % off)``, ``did not hold exactly``."""
    away = _distance(guess, measured) if question.tolerance and question.kind is QuestionKind.NUMBER else ""
    off = f" ({away} off)" if away else ""
    if right:
        return f"held, {question.nearness}{off}"
    return "did not hold" if question.kind is QuestionKind.CHOICE else f"did not hold {question.nearness}{off}"


def _distance(guess: Answer, measured: Answer | None) -> str:
    """How far a guess is from what was measured, in percent of that: ``0.4 %``, ``32 %``. Empty where that says nothing."""
    guessed, found = _guessed(guess), as_number(measured)
    percent = math.inf if guessed is None or not found else 100 * abs(guessed / found - 1)
    if percent > _FAR:
        return ""
    return f"{number(round(percent) if percent >= 10 else float(f'{percent:.2g}'))} %"


def _compare(question: Question, answer: Answer | None, observations: Mapping[str, Any]) -> AnswerPart:
    if isinstance(answer, bool):  # (YAML reads a bare yes as true.)
        answer = "yes" if answer else "no"
    measured = _measured(question, look_up(observations, question.measured_by))
    return AnswerPart(
        question=question.id,
        prediction=question.prediction,
        answer=answer,
        measured=measured,
        prediction_right=_right(question, question.prediction, measured),
        answer_right=None if answer is None else _right(question, answer, measured),
    )


def _measured(question: Question, value: Any) -> Answer | None:
    """The measured value in the form that answers have; None when the evidence holds none of that form."""
    if question.kind is QuestionKind.NUMBER:
        return value if as_number(value) is not None else None
    if isinstance(value, bool):
        return next((choice for choice in question.choices if _word(choice) == ("yes" if value else "no")), str(value).lower())
    return value if isinstance(value, str) or as_number(value) is not None else None


def _right(question: Question, guess: Answer, measured: Answer | None) -> bool | None:
    """Whether a guess holds; None when nothing was measured, and for free text, which a person judges."""
    if measured is None or question.kind is QuestionKind.TEXT:
        return None
    if question.kind is QuestionKind.CHOICE:
        return _word(guess) == _word(measured)
    guessed, found = _guessed(guess), as_number(measured)
    if guessed is None or found is None:
        return False
    return math.isclose(guessed, found, rel_tol=0.0, abs_tol=question.tolerance * abs(found) + 1e-12 * abs(found))


def _guessed(guess: Answer) -> float | None:
    """A guess as a number: a student may have written it in quotes."""
    if isinstance(guess, str):
        try:
            return as_number(float(guess))
        except ValueError:
            return None
    return as_number(guess)


def _word(value: Answer) -> str:
    """A choice without what does not matter: letter case, blanks around it, ``true`` for ``yes``, 11.0 for 11."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().casefold()
    return "yes" if word in _YES else "no" if word in _NO else word
