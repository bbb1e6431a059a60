"""A student's predictions: ``answers.yaml``, written before the run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmlab.errors import UsageError
from vmlab.lab.definition import LabDefinition, Question, QuestionKind
from vmlab.suggest import nearest
from vmlab.yamlfile import kind, load, refusal, shown

Answer = int | float | str

_LONGEST = 10_000


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, Answer]:
    """The answers by question id; an empty one counts as not given. One UsageError names every mistake with file and line."""
    document = load(path)
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        raise UsageError(
            f"{shown(path)}:1: expected lines such as `question: answer`, found {kind(document.value)}",
            hint="vmlab predict LAB writes a form to fill in",
        )
    known = {question.id: question for question in questions}
    answers: dict[str, Answer] = {}
    problems: list[str] = []
    for name, value in document.value.items():
        if name not in known:
            problems.append(document.problem((name,), "there is no such question" + nearest(name, known)))
        elif value is not None:
            wrong = _objection(known[name], value)
            if wrong:
                problems.append(document.problem((name,), wrong))
            else:
                answers[name] = _answer(known[name], value)
    if problems:
        raise refusal(problems, hint="questions of this lab: " + ", ".join(known) if known else "this lab asks no questions")
    return answers


def form(definition: LabDefinition) -> str:
    """An ``answers.yaml`` to fill in: each question as a comment above an empty answer."""
    lines = _comment(f"Predictions for: {definition.title}")
    lines += _comment("Write each answer behind its colon before you run the lab. An empty answer is skipped.")
    for question in definition.questions:
        lines += ["", *_comment(question.ask), *_comment(_expected(question)), f"{question.id}:"]
    return "\n".join(lines) + "\n"


def _objection(question: Question, value: Any) -> str:
    """What is wrong with an answer; empty when it is fine."""
    if question.kind is QuestionKind.NUMBER:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if number else f"expected a number, found {kind(value)}"
    if isinstance(value, list | dict):
        return f"expected text, found {kind(value)}"
    if question.kind is QuestionKind.CHOICE and _chosen(question, value) is None:
        return f"expected one of {', '.join(question.choices)}; found {kind(value)}"
    if len(_word(value)) > _LONGEST:
        return f"expected at most {_LONGEST} characters, found {len(_word(value))}"
    return ""


def _answer(question: Question, value: Any) -> Answer:
    """An answer in the form that is kept: a number as it is, a choice as the lab spells it, text as text."""
    return value if question.kind is QuestionKind.NUMBER else _chosen(question, value) or _word(value)


def _chosen(question: Question, value: Any) -> str | None:
    """The choice that is meant: upper and lower case and blanks around it do not matter."""
    return next((choice for choice in question.choices if choice.strip().casefold() == _word(value).strip().casefold()), None)


def _word(value: Any) -> str:
    """An answer as text: someone who writes a choice such as 4096 or true without quotes means the word."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _expected(question: Question) -> str:
    match question.kind:
        case QuestionKind.NUMBER:
            unit = f", in {question.unit}" if question.unit else ""
            near = "when it is exactly" if question.nearness == "exactly" else question.nearness + " of"
            return f"(a number{unit}; right {near} what is measured)"
        case QuestionKind.CHOICE:
            return "(one of: " + " | ".join(question.choices) + ")"
    return "(in your own words)"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 100)]
