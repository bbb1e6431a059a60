"""What a lab.yaml refers to is there: checked on the lab's recorded sound run (tests/sound.json in its folder). No guest needed."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest

from tests.conftest import ROOT
from vmlab.lab.answers import form as answers_form
from vmlab.lab.collection import read_lab
from vmlab.lab.controls import Sound
from vmlab.lab.definition import Question, QuestionKind
from vmlab.lab.lab import Lab
from vmlab.report.plots import drawings
from vmlab.report.predictions import compare

LABS = [path.parents[1].name for path in sorted(ROOT.glob("labs/*/tests/sound.json"))]


@cache
def lab(name: str) -> Lab:
    return read_lab(ROOT / "labs" / name)


@cache
def sound(name: str) -> dict[str, Any]:
    return Sound.read(lab(name)).world().observations


QUESTIONS = [(name, question) for name in LABS for question in lab(name).definition.questions]


@pytest.mark.parametrize("name", LABS)
def test_the_experiment_loads(name: str) -> None:
    assert callable(lab(name).load_experiment())


TURNED_OUT_WRONG = {("zombies", "kernel_bytes")}
"""Predictions that were written down before anything was measured, and were wrong: they stay, and the lab's README tells of it."""


@pytest.mark.parametrize(("name", "question"), QUESTIONS, ids=[f"{name}-{question.id}" for name, question in QUESTIONS])
def test_each_question_is_measured_and_predicted_rightly(name: str, question: Question) -> None:
    """The lab's own predictions hold on the sound run, but for those that are known to be wrong."""
    (answer,) = compare([question], {}, sound(name))
    if question.kind is not QuestionKind.TEXT:
        right = (name, question.id) not in TURNED_OUT_WRONG
        assert answer.prediction_right is right, f"predicted {answer.prediction}, measured {answer.measured}"
    assert question.because
    assert question.check in {check.id for check in lab(name).load_checks()}


@pytest.mark.parametrize("name", LABS)
def test_the_form_for_answers_asks_them_all(name: str) -> None:
    form = answers_form(lab(name).definition)
    assert all(f"\n{question.id}:" in form for question in lab(name).definition.questions)


@pytest.mark.parametrize("name", LABS)
def test_each_plot_has_its_numbers(name: str) -> None:
    for drawing in drawings(lab(name).definition.plots, sound(name)):
        assert drawing.svg, f"{drawing.plot.id}: {drawing.note}"
        assert drawing.notes == [], "each series has rows, and each row can be drawn"


def test_there_are_labs() -> None:
    assert "zombies" in LABS


@pytest.mark.parametrize("name", [name for name in LABS if lab(name).definition.controls])
def test_each_check_is_refuted_by_a_control_or_says_why_not(name: str) -> None:
    definition, checks = lab(name).definition, [check.id for check in lab(name).load_checks()]
    lab(name).load_experiment()
    refuted = {check for control in definition.controls.values() for check in control.fails}
    assert refuted | set(definition.unrefuted) == set(checks)


@pytest.mark.parametrize("name", [name for name in LABS if "world" in lab(name).definition.parameters])
def test_each_world_of_a_lab_has_its_control(name: str) -> None:
    definition = lab(name).definition
    assert definition.parameters["world"].choices == ["sound", *definition.controls]
    assert all(control.set["world"] == world for world, control in definition.controls.items())
    described = importlib.import_module(f"labs.{name}.worlds")
    assert list(getattr(described, "BROKEN", None) or described.WORLDS) == definition.parameters["world"].choices
