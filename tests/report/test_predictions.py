"""Predictions beside what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab.definition import Question
from vmlab.lab.places import look_up
from vmlab.report.predictions import compare

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
