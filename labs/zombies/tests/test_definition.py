"""lab.yaml is a valid lab, and what it refers to exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.lab.answers import template
from runner.lab.checks import checks_of
from runner.lab.definition import LabDefinition, Question, QuestionKind
from runner.lab.loading import module_from
from runner.yamlfile import validate

LAB = Path(__file__).resolve().parents[1]
DEFINITION = validate(LAB / "lab.yaml", LabDefinition)
SOUND = json.loads((LAB / "tests" / "sound.json").read_text())["observations"]


def at(path: str) -> Any:
    value: Any = SOUND
    for part in path.split("."):
        value = value[part]
    return value


def test_the_experiment_loads() -> None:
    assert callable(module_from(LAB / "experiment.py").experiment)


@pytest.mark.parametrize("question", DEFINITION.questions, ids=lambda question: question.id)
def test_each_question_is_measured_and_predicted_rightly(question: Question) -> None:
    """The lab's own predictions hold on the sound set: they are its author's claim to know the answer."""
    measured = at(question.measured_by)
    if question.kind is QuestionKind.NUMBER:
        assert isinstance(question.prediction, int | float)
        assert abs(question.prediction - measured) <= question.tolerance * abs(measured)
    else:
        assert measured == question.prediction
    assert question.because
    assert question.check in {check.id for check in checks_of(module_from(LAB / "checks.py"))}


def test_the_form_for_answers_asks_them_all() -> None:
    assert all(f"\n{question.id}:" in template(DEFINITION) for question in DEFINITION.questions)


@pytest.mark.parametrize("series", [s for plot in DEFINITION.plots for s in plot.series], ids=lambda series: series.name)
def test_each_plot_has_its_numbers(series: Any) -> None:
    rows = at(series.rows)
    assert len(rows) >= 3
    assert all(isinstance(row[axis], int | float) for row in rows for axis in (series.x, series.y))
