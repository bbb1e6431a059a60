"""Predictions beside what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab.definition import Question
from vmlab.lab.places import look_up
from vmlab.report.model import AnswerPart, TallyPart
from vmlab.report.predictions import compare, outcome, tally, tally_words, totals

EVIDENCE: dict[str, Any] = {
    "a": {"n": 100, "samples": [{"z": 1}, {"z": 2}], "word": "EAGAIN", "yes": True, "zero": 0, "half": 0.5, "huge": 10**400, "list": []}
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("a.n", 100),
        ("a.samples[1].z", 2),
        ("a.samples[-1].z", 2),
        ("a.samples[2].z", None),
        ("a.samples[-3].z", None),
        ("a.samples.z", None),
        ("a.n.deeper", None),
        ("a.word[0]", None),
        ("b", None),
        ("", None),
        (".a", None),
        ("a..n", None),
        ("a.", None),
        ("a[", None),
        ("a.samples[x]", None),
    ],
)
def test_look_up(place: str, value: Any) -> None:
    assert look_up(EVIDENCE, place) == value


def question(kind: str, prediction: float | str, place: str, **more: Any) -> Question:
    return Question.model_validate({"id": "q", "ask": "?", "kind": kind, "prediction": prediction, "measured_by": place} | more)


@pytest.mark.parametrize(
    ("guess", "place", "tolerance", "right"),
    [
        (100, "a.n", 0.0, True),
        (101, "a.n", 0.0, False),
        (110, "a.n", 0.1, True),
        (90, "a.n", 0.1, True),
        (111, "a.n", 0.1, False),
        ("95", "a.n", 0.1, True),
        ("many", "a.n", 0.1, False),
        ("nan", "a.n", 0.1, False),
        (0, "a.zero", 0.5, True),
        (1, "a.zero", 0.5, False),
        (1, "a.nothing", 0.5, None),
        (1, "a.word", 0.5, None),
        (1, "a.yes", 0.5, None),
        (1, "a.huge", 0.5, None),
        (1, "a.list", 0.5, None),
    ],
)
def test_numbers(guess: float | str, place: str, tolerance: float, right: bool | None) -> None:
    (part,) = compare([question("number", 1, place, tolerance=tolerance)], {"q": guess}, EVIDENCE)

    assert part.answer_right is right


@pytest.mark.parametrize(
    ("guess", "place", "choices", "right", "measured"),
    [
        ("EAGAIN", "a.word", ["EAGAIN", "EPERM"], True, "EAGAIN"),
        (" eagain", "a.word", ["EAGAIN", "EPERM"], True, "EAGAIN"),
        ("EPERM", "a.word", ["EAGAIN", "EPERM"], False, "EAGAIN"),
        ("yes", "a.yes", ["yes", "no"], True, "yes"),
        (True, "a.yes", ["yes", "no"], True, "yes"),
        ("no", "a.yes", ["yes", "no"], False, "yes"),
        ("true", "a.yes", ["true", "false"], True, "true"),
        (100, "a.n", ["100", "200"], True, 100),
        ("100", "a.missing", ["100"], None, None),
        ("100", "a.list", ["100"], None, None),
    ],
)
def test_choices(guess: Any, place: str, choices: list[str], right: bool | None, measured: Any) -> None:
    (part,) = compare([question("choice", choices[0], place, choices=choices)], {"q": guess}, EVIDENCE)

    assert (part.answer_right, part.measured) == (right, measured)


def test_free_text_is_left_to_a_person() -> None:
    (part,) = compare([question("text", "because", "a.word")], {"q": "EAGAIN"}, EVIDENCE)

    assert (part.prediction_right, part.answer_right, part.measured) == (None, None, "EAGAIN")


def test_a_question_without_an_answer_still_shows_the_labs_prediction() -> None:
    (part,) = compare([question("number", 99, "a.n", tolerance=0.05)], {"other": 1}, EVIDENCE)

    assert (part.answer, part.answer_right, part.prediction_right, part.measured) == (None, None, True, 100)


@pytest.mark.parametrize(
    ("kind", "guess", "measured", "tolerance", "right", "words"),
    [
        ("number", 10_000, 14_715, 0.6, True, "held, within 60 % (32 % off)"),
        ("number", 2000, 14_715, 0.6, False, "did not hold within 60 % (86 % off)"),
        ("number", 100.4, 100, 0.05, True, "held, within 5 % (0.4 % off)"),
        ("number", "many", 100, 0.05, False, "did not hold within 5 %"),
        ("number", 1e300, 1e-300, 0.05, False, "did not hold within 5 %"),
        ("number", 0, 0, 0.5, True, "held, within 50 %"),
        ("number", 3, 3, 0.0, True, "held, exactly"),
        ("number", 4, 3, 0.0, False, "did not hold exactly"),
        ("choice", "a", "a", 0.0, True, "held, exactly"),
        ("choice", "b", "a", 0.0, False, "did not hold"),
    ],
)
def test_an_outcome_says_how_near_it_had_to_be(kind: str, guess: Any, measured: Any, tolerance: float, right: bool, words: str) -> None:
    asked = question(kind, "a" if kind == "choice" else 1, "a.n", tolerance=tolerance, choices=["a", "b"])

    assert outcome(asked, guess, measured, right=right) == words


def answers(*rights: bool | None, given: bool = True) -> list[AnswerPart]:
    if not given:
        return [AnswerPart(question="q", prediction=1, prediction_right=right) for right in rights]
    return [AnswerPart(question="q", prediction=1, answer=2, answer_right=right, prediction_right=True) for right in rights]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (answers(True, False, True, False), "2 of the student's 4 predictions held"),
        (answers(True, None, False), "1 of the student's 2 predictions held; 1 more cannot be compared"),
        (answers(False), "0 of the student's 1 prediction held"),
        (answers(True) + answers(True, None, given=False), "1 of the student's 1 prediction held; 2 left out"),
        (answers(None, None), "none of the student's predictions can be compared"),
        (answers(True, False, given=False), "1 of the lab's own 2 predictions held"),
    ],
)
def test_predictions_are_tallied(parts: list[AnswerPart], words: str) -> None:
    counted = tally(parts)

    assert counted is not None
    assert tally_words(counted) == words


def test_where_nothing_is_asked_there_is_no_tally() -> None:
    assert tally([]) is None


def test_tallies_of_many_labs_add_up_by_who_predicted() -> None:
    tallies = [tally(answers(True, False)), None, tally(answers(True, None)), tally(answers(True, given=False))]

    assert totals(tallies) == [TallyPart(whose="student", held=2, compared=3, untold=1), TallyPart(whose="lab", held=1, compared=1)]
