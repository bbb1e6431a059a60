"""An experiment in parts: which are run, in which order, and what becomes of the checks whose evidence is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.stage import stage
from tests.tinylab import write_lab
from vmlab.bench import Bench, part
from vmlab.errors import UsageError
from vmlab.lab import Evidence, Verdict, judge, passed, read_lab
from vmlab.lab.checks import Check, Missing
from vmlab.lab.experiment import Experiment, experiment_of


class Heard:
    """A bench that writes down what is done with it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        self.said.append(f"[{title}")
        yield
        self.said.append("]")


@part
def late(bench: Heard) -> None:
    """What comes last in the alphabet.

    And more of it.
    """
    bench.said.append("late")


@part
def early(bench: Heard) -> None:
    """And first"""
    bench.said.append("early")


def module(**members: object) -> ModuleType:
    made = ModuleType("experiment")
    vars(made).update(members)
    return made


PARTS = experiment_of(module(late=late, early=early, helper=len, again=late))


def said_by(experiment: Experiment) -> list[str]:
    bench = Heard()
    experiment(bench)
    return bench.said


def test_parts_run_in_the_order_of_the_text_each_as_a_phase() -> None:
    assert PARTS.names == PARTS.chosen == ["late", "early"]
    assert said_by(PARTS) == ["[What comes last in the alphabet", "late", "]", "[And first", "early", "]"]


def test_some_of_them_run_in_the_same_order() -> None:
    some = PARTS.only(["early"])
    assert (some.chosen, some.left_out) == (["early"], ["late"])
    assert said_by(some) == ["[And first", "early", "]"]
    assert said_by(PARTS.only(["early", "late"])) == said_by(PARTS.only([])) == said_by(PARTS)


def test_one_function_is_the_whole_experiment() -> None:
    whole = experiment_of(module(experiment=lambda bench: bench.said.append("all")))
    assert said_by(whole) == ["all"]
    assert whole.names == whole.chosen == list(whole.left_out) == []
    with pytest.raises(UsageError, match="no part named 'early': it is not in parts"):
        whole.only(["early"])


def test_a_part_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no part named 'erly'; did you mean 'early'") as caught:
        PARTS.only(["erly"])
    assert caught.value.hint == "parts of this experiment: late, early"


def test_what_is_no_experiment() -> None:
    with pytest.raises(ValueError, match="one or the other"):
        experiment_of(module(experiment=len, early=early))
    with pytest.raises(ValueError, match="no function experiment"):
        experiment_of(module(helper=len))
    with pytest.raises(TypeError, match="docstring"):
        part(lambda bench: None)


def looks(name: str, *after: str) -> Check:
    def function(evidence: Evidence) -> Verdict:
        return passed("yes", measured=str(evidence[name].integer("x")))

    return Check(name, name, 1, "A", after, function)


def test_what_was_left_out_neither_passes_nor_breaks() -> None:
    checks = [looks("seen"), looks("unseen"), looks("rests", "unseen")]
    found = judge(checks, Evidence({"seen": {"x": 1}, "rests": {"x": 1}}), Missing(left_out=["late"]))
    assert [str(each.verdict.kind) for each in found] == ["pass", "inconclusive", "inconclusive"]
    assert [each.verdict.left_out for each in found] == [False, True, True]
    assert "left out parts of the experiment (late), and no observation named 'unseen' was recorded" in found[1].verdict.rationale


def test_control_without_parts_left_out_it_is_just_missing() -> None:
    (found,) = judge([looks("unseen")], Evidence({}))
    assert not found.verdict.left_out


def test_what_breaks_is_an_error_even_where_parts_are_left_out() -> None:
    (found,) = judge([looks("unseen")], Evidence({}), Missing(broken_by="lost", left_out=["late"]))
    assert str(found.verdict.kind) == "error"


def test_what_several_parts_need_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def number(_bench: Bench) -> int:
        made.append(len(made) + 1)
        return made[-1]

    with stage(tmp_path) as here:
        bench = Bench(read_lab(write_lab(tmp_path, "aa")), here, {})
        assert (bench.once(number), bench.once(number)) == (1, 1)
        assert bench.once(lambda _bench: "another") == "another"
    assert made == [1]
