"""--param name=value, and answers.yaml's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vmlab.errors import UsageError
from vmlab.lab.answers import form, read_answers
from vmlab.lab.definition import LabDefinition, Question
from vmlab.lab.parameters import resolve, split
from vmlab.yamlfile import load


def definition(**more: Any) -> LabDefinition:
    base = {"title": "A", "summary": "B", "claims": {"C": {"says": "D", "stands": "holds"}}, "guests": {"main": {}}}
    return LabDefinition.model_validate(base | more)


LAB = definition(
    parameters={
        "rounds": {"type": "integer", "default": 5, "help": "how many rounds", "minimum": 1, "maximum": 100},
        "ratio": {"type": "number", "default": 0.5, "help": "a share", "minimum": 0},
        "mode": {"type": "text", "default": "fast", "help": "how", "choices": ["fast", "slow"]},
        "note": {"type": "text", "default": "", "help": "anything"},
        "swap": {"type": "flag", "default": False, "help": "with swap?"},
    }
)
DEFAULTS = {"rounds": 5, "ratio": 0.5, "mode": "fast", "note": "", "swap": False}


def test_defaults_are_kept_with_their_types() -> None:
    assert resolve(LAB, {}) == DEFAULTS
    assert [type(value) for value in resolve(LAB, {}).values()] == [int, float, str, str, bool]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rounds", "7", 7),
        ("rounds", " 100 ", 100),
        ("rounds", "+3", 3),
        ("ratio", "2", 2.0),
        ("ratio", "1e-3", 0.001),
        ("mode", "slow", "slow"),
        ("note", "a = b; rm -rf $HOME", "a = b; rm -rf $HOME"),
        ("note", "", ""),
        ("swap", "true", True),
        ("swap", "YES", True),
        ("swap", "0", False),
        ("swap", "off", False),
    ],
)
def test_a_value_is_read_by_its_type(name: str, text: str, value: Any) -> None:
    got = resolve(LAB, {name: text})
    assert got == DEFAULTS | {name: value}
    assert type(got[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("rounds", "0", "parameter rounds: expected at least 1, found '0'"),
        ("rounds", "101", "expected at most 100"),
        ("rounds", "1.5", "expected a whole number, found '1.5'"),
        ("rounds", "", "expected a whole number"),
        ("rounds", "1_000", "expected a whole number"),
        ("rounds", "٣", "expected a whole number"),
        ("rounds", "9" * 5000, "expected a whole number"),
        ("rounds", "true", "expected a whole number"),
        ("ratio", "nan", "expected a number"),
        ("ratio", "inf", "expected a number"),
        ("ratio", "1e999", "expected a number"),
        ("ratio", "-1", "expected at least 0"),
        ("mode", "medium", "expected one of fast, slow, found 'medium'"),
        ("note", "a\nb", "printable"),
        ("note", "\x1b[31m", "printable"),
        ("note", "x" * 1001, "at most 1000"),
        ("swap", "maybe", "expected true or false"),
        ("swap", "2", "expected true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(name: str, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(LAB, {name: text})
    assert says in caught.value.message
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message
    assert caught.value.hint == LAB.parameters[name].help


def test_an_unknown_parameter_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(LAB, {"round": "5"})
    assert caught.value.message == "there is no parameter named 'round'; did you mean 'rounds'?"
    assert caught.value.hint == "parameters of this lab: rounds, ratio, mode, note, swap"
    with pytest.raises(UsageError) as caught:
        resolve(definition(), {"round": "5"})
    assert caught.value.hint == "this lab has no parameters"


def test_split() -> None:
    assert split(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(UsageError, match="expected name=value"):
        split(["rounds"])
    with pytest.raises(UsageError, match="given twice"):
        split(["a=1", "a=2"])


ASKED = definition(
    questions=[
        {"id": "count", "ask": "How\nmany: #1?", "kind": "number", "unit": "KiB", "prediction": 3},
        {"id": "which", "ask": "Which " + "very " * 60 + "one?", "kind": "choice", "choices": ["a", "b"], "prediction": "a"},
        {"id": "why", "ask": "Why?", "kind": "text", "prediction": "because"},
    ]
)


def test_the_form_is_an_answers_yaml_without_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(form(ASKED))
    assert list(load(path).value) == ["count", "which", "why"]
    assert read_answers(path, ASKED.questions) == {}
    assert "# How many: #1?" in path.read_text()
    assert "(a number, in KiB; right when it is exactly what is measured)" in path.read_text()
    assert "(one of: a | b)" in path.read_text()
    assert "because" not in path.read_text()
    assert max(map(len, path.read_text().splitlines())) <= 102


def test_a_filled_in_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(form(ASKED).replace("\ncount:", "\ncount: 4").replace("\nwhich:", "\nwhich: b"))
    assert read_answers(path, ASKED.questions) == {"count": 4, "which": "b"}


def test_a_form_without_questions_is_sound_too(tmp_path: Path) -> None:
    assert yaml.safe_load(form(definition())) is None


def test_a_lab_without_questions_takes_no_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text("count: 1\n")
    with pytest.raises(UsageError) as caught:
        read_answers(path, [])
    assert caught.value.hint == "this lab asks no questions"


def test_every_wrong_answer_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text("count: x\nwhich: c\nother: 1\n")
    with pytest.raises(UsageError) as caught:
        read_answers(path, ASKED.questions)
    assert [line.split(": ")[0].split(":")[-1] for line in caught.value.detail.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"parameters": {"a": {"type": "flag", "default": 1, "help": "h"}}}, "must be of the type flag"),
        ({"parameters": {"a": {"type": "integer", "default": True, "help": "h"}}}, "must be of the type integer"),
        ({"parameters": {"a": {"type": "text", "default": "x", "help": "h", "minimum": 1}}}, "only an integer or a number"),
        ({"parameters": {"a": {"type": "integer", "default": 1, "help": "h", "choices": ["1"]}}}, "only a text has choices"),
        ({"parameters": {"a": {"type": "text", "default": "x", "help": "h", "choices": ["y"]}}}, "must be one of y"),
        ({"questions": [ASKED.questions[0], ASKED.questions[0]]}, "two questions have the id 'count'"),
        ({"guests": {}}, "at least 1"),
        ({"claims": {}}, "at least 1"),
    ],
)
def test_a_definition_that_contradicts_itself(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        definition(**more)


def test_a_question_must_be_answerable() -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Question.model_validate({"id": "a", "ask": "?", "kind": "number", "prediction": "many"})


ARMS = {"type": "text", "default": "all", "help": "which", "choices": ["all", "first", "second"], "several": True}


@pytest.mark.parametrize("text", ["all", "first", "first,second", " second , first "])
def test_several_of_the_choices(text: str) -> None:
    assert resolve(definition(parameters={"arms": ARMS}), {"arms": text}) == {"arms": text.strip()}


@pytest.mark.parametrize("text", ["third", "first,third", "first second", "", "first,"])
def test_something_else_among_several_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected one or several of all, first, second, found"):
        resolve(definition(parameters={"arms": ARMS}), {"arms": text})


def test_several_needs_choices() -> None:
    with pytest.raises(ValueError, match="several is for a text with choices"):
        definition(parameters={"arms": {"type": "text", "default": "", "help": "which", "several": True}})


# --- guests that depend on a parameter ------------------------------------------------------------------------------------

HOSTS = {"type": "text", "default": "none", "help": "which", "choices": ["none", "amd", "intel"]}


def test_a_guest_takes_part_with_the_choices_that_it_names() -> None:
    lab = definition(guests={"main": {}, "host": {"when": {"host": ["amd", "intel"]}}}, parameters={"host": HOSTS})
    assert list(lab.guests_for({"host": "none"})) == ["main"]
    assert list(lab.guests_for({"host": "intel"})) == ["main", "host"]
    several = definition(guests={"host": {"when": {"host": ["amd"]}}}, parameters={"host": HOSTS | {"several": True}})
    assert list(several.guests_for({"host": "none, amd"})) == ["host"]
    assert list(several.guests_for({"host": "none,intel"})) == []


@pytest.mark.parametrize("when", [{"hosts": ["amd"]}, {"host": ["arm"]}, {"rounds": ["5"]}])
def test_a_guest_cannot_depend_on_what_there_is_not(when: dict[str, list[str]]) -> None:
    rounds = {"type": "integer", "default": 5, "help": "how many"}
    with pytest.raises(ValueError, match="a guest's when must name a parameter with choices"):
        definition(guests={"main": {"when": when}}, parameters={"host": HOSTS, "rounds": rounds})
