"""Controls: which worlds there are, what must come out in each, and every mistake in them answered with file and line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vmlab.errors import UsageError
from vmlab.lab import Evidence, Verdict, passed
from vmlab.lab.checks import Check
from vmlab.lab.collection import Collection, read_lab
from vmlab.lab.definition import LabDefinition
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.worlds import Seen, World, disagreement, expected, is_noise, worlds_of

PASS, FAIL, INCONCLUSIVE, UNSEEN, ERROR = (
    VerdictKind.PASS,
    VerdictKind.FAIL,
    VerdictKind.INCONCLUSIVE,
    VerdictKind.NOT_OBSERVABLE,
    VerdictKind.ERROR,
)


def check(name: str, *after: str) -> Check:
    def function(_evidence: Evidence) -> Verdict:
        return passed("yes", measured="1")

    return Check(name, name, 1, "A", after, function)


CHECKS = [check("a"), check("b", "a"), check("c", "b"), check("d")]

LAB = """\
title: A lab
summary: It is tried.
claims:
  A: {says: "So.", stands: holds}
guests:
  main: {}
parameters:
  size: {type: integer, default: 5, minimum: 1, maximum: 9, help: how many}
  rate: {type: number, default: 1, help: how fast}
  way: {type: text, default: left, choices: [left, right], help: where}
  flag: {type: flag, default: false, help: whether}
"""
CODE = """\
from vmlab.lab import check, passed

@check(points=1, claim="A")
def first(evidence):
    \"\"\"First.\"\"\"
    return passed("yes", measured="1")

@check(points=1, claim="A", after="first")
def second(evidence):
    \"\"\"Second.\"\"\"
    return passed("yes", measured="1")

@check(points=1, claim="A", after="second")
def third(evidence):
    \"\"\"Third.\"\"\"
    return passed("yes", measured="1")
"""
PARTS = """\
from vmlab.lab.experiment import part

@part
def growth(bench):
    \"\"\"Let it grow.\"\"\"

@part
def decay(bench):
    \"\"\"Let it decay.\"\"\"
"""


def write(folder: Path, controls: str) -> Path:
    folder.mkdir()
    for name, text in (("lab.yaml", LAB + controls), ("checks.py", CODE), ("experiment.py", PARTS)):
        (folder / name).write_text(text)
    return folder


def test_the_sound_world_comes_first_and_names_choose() -> None:
    controls = {name: {"breaks": "All.", "set": {"flag": True}, "fails": ["a"]} for name in ("one", "two")}
    definition = LabDefinition.model_validate(
        {
            "title": "t",
            "summary": "s",
            "claims": {"A": {"says": "so", "stands": "holds"}},
            "guests": {"main": {}},
            "parameters": {"flag": {"type": "flag", "default": False, "help": "whether"}},
            "controls": controls,
        }
    )
    assert [world.name for world in worlds_of(definition)] == ["sound", "one", "two"]
    assert [world.name for world in worlds_of(definition, ["two", "sound"])] == ["sound", "two"]
    assert worlds_of(definition)[1].texts == {"flag": "true"}
    with pytest.raises(UsageError, match="there is no world named 'tow'; did you mean 'two'\\?") as caught:
        worlds_of(definition, ["tow"])
    assert caught.value.hint == "worlds of this lab: sound, one, two"


@pytest.mark.parametrize(
    ("fails", "inconclusive", "kinds"),
    [
        ([], [], [PASS, PASS, PASS, PASS]),
        (["a"], [], [FAIL, INCONCLUSIVE, INCONCLUSIVE, PASS]),
        (["b", "d"], [], [PASS, FAIL, INCONCLUSIVE, FAIL]),
        (["d"], ["b"], [PASS, INCONCLUSIVE, INCONCLUSIVE, FAIL]),
    ],
)
def test_what_rests_on_a_check_that_fails_is_inconclusive(
    fails: Sequence[str], inconclusive: Sequence[str], kinds: Sequence[VerdictKind]
) -> None:
    assert list(expected(World("w", fails=fails, inconclusive=inconclusive), CHECKS).values()) == kinds


@pytest.mark.parametrize(
    ("wanted", "seen", "sound", "says"),
    [
        (PASS, Seen(PASS), PASS, ""),
        (PASS, Seen(UNSEEN), PASS, ""),
        (PASS, Seen(FAIL), PASS, "must pass, but fails"),
        (PASS, Seen(INCONCLUSIVE), None, "must pass, but is inconclusive"),
        (PASS, Seen(INCONCLUSIVE), INCONCLUSIVE, "must pass, but is inconclusive"),
        (PASS, Seen(INCONCLUSIVE), PASS, ""),
        (PASS, Seen(INCONCLUSIVE, left_out=True), PASS, ""),
        (FAIL, Seen(FAIL), PASS, ""),
        (FAIL, Seen(PASS), PASS, "must fail, but passes"),
        (FAIL, Seen(INCONCLUSIVE), PASS, "must fail, but is inconclusive"),
        (FAIL, Seen(UNSEEN), PASS, "must fail, but is not observable"),
        (FAIL, Seen(UNSEEN), None, "must fail, but is not observable"),
        (FAIL, Seen(UNSEEN), UNSEEN, ""),
        (FAIL, Seen(INCONCLUSIVE, left_out=True), PASS, "must fail, but none of the parts"),
        (INCONCLUSIVE, Seen(INCONCLUSIVE), PASS, ""),
        (INCONCLUSIVE, Seen(UNSEEN), PASS, ""),
        (INCONCLUSIVE, Seen(INCONCLUSIVE, left_out=True), PASS, ""),
        (INCONCLUSIVE, Seen(PASS), PASS, "must be inconclusive, but passes"),
        (INCONCLUSIVE, Seen(FAIL), PASS, "must be inconclusive, but fails"),
        (FAIL, Seen(ERROR), PASS, "broke"),
    ],
)
def test_a_verdict_is_held_against_what_it_must_be(wanted: VerdictKind, seen: Seen, sound: VerdictKind | None, says: str) -> None:
    said = disagreement(wanted, seen, sound)
    assert said.startswith(says)
    assert bool(said) is bool(says)


def test_noise_is_an_inconclusive_that_nobody_named() -> None:
    world = World("w", fails=["a"], inconclusive=["d"])
    quiet = {"a": Seen(FAIL), "b": Seen(INCONCLUSIVE), "c": Seen(INCONCLUSIVE), "d": Seen(INCONCLUSIVE)}
    assert not is_noise(world, CHECKS, quiet)
    assert is_noise(world, CHECKS, quiet | {"a": Seen(INCONCLUSIVE)})
    assert is_noise(World("w", fails=["a"]), CHECKS, quiet)
    assert not is_noise(World("w", fails=["a"]), CHECKS, quiet | {"d": Seen(INCONCLUSIVE, left_out=True)})
    assert not is_noise(world, CHECKS, quiet | {"a": Seen(PASS)}), "a check that does not fail is no noise"


def refusal(call: Callable[[], Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call()
    return caught.value


W = "controls:\n  w: "
READING = {
    "controls:\n  w:\n    breaks: x\n    set: {siez: 3}\n    fails: [first]\n": (
        ":15: controls.w.set.siez: there is no parameter named 'siez'; did you mean 'size'?"
    ),
    "controls:\n  w:\n    set:\n      size: 10\n    breaks: x\n    fails: [first]\n": (
        ":15: controls.w.set.size: expected at most 9, found '10'"
    ),
    W + "{breaks: x, set: {size: 3.5}, fails: [first]}\n": ":13: controls.w.set.size: expected a whole number, found 3.5",
    W + "{breaks: x, set: {size: '3'}, fails: [first]}\n": "expected a whole number, found '3'",
    W + "{breaks: x, set: {flag: 1}, fails: [first]}\n": "expected true or false, found 1",
    W + "{breaks: x, set: {way: up}, fails: [first]}\n": "expected one of left, right, found 'up'",
    W + "{breaks: x, set: {size: 5, rate: 1.0}, fails: [first]}\n": "these are the parameters' defaults",
    "controls:\n  sound: {breaks: x, set: {size: 3}, fails: [first]}\n": (
        ":13: controls.sound: the world in which nothing is broken is called sound"
    ),
    W + "{breaks: x, set: {}, fails: [first]}\n": "controls.w.set: expected at least 1 members",
    W + "{breaks: x, set: {size: 3}, fails: []}\n": "controls.w.fails: expected at least 1 members",
    W + "{breaks: x, set: {size: 3}}\n": "controls.w.fails: is missing",
    W + "{set: {size: 3}, fails: [first]}\n": "controls.w.breaks: is missing",
    W + "{breaks: x, set: {size: 3}, fails: [first], part: [growth]}\n": "unknown key; did you mean 'parts'?",
    "unrefuted: {first: ''}\n": "unrefuted.first: expected at least 1 characters",
}


@pytest.mark.parametrize(("controls", "says"), READING.items())
def test_a_mistake_that_needs_no_checks_is_found_when_the_file_is_read(tmp_path: Path, controls: str, says: str) -> None:
    assert says in refusal(lambda: read_lab(write(tmp_path / "lab", controls))).message


def control(**keys: str) -> str:
    given = {"breaks": "x", "set": "{size: 3}", "fails": "[first]"} | keys
    return "controls:\n  w:\n" + "".join(f"    {key}: {value}\n" for key, value in given.items())


MATCHING = {
    control(fails="[frist]"): ":16: controls.w.fails[0]: there is no check named 'frist'; did you mean 'first'?",
    control(inconclusive="[nobody]"): ":17: controls.w.inconclusive[0]: there is no check named 'nobody'",
    control(fails="[first, first]"): "the check first is named here twice",
    control(inconclusive="[first]"): "the check first is named here twice",
    control(fails="[first, third]"): "controls.w.fails[1]: the check third is not asked there: it comes after second, which does not pass",
    control() + "unrefuted: {first: It is so.}\n": ":17: unrefuted.first: the control w says that it refutes this check",
    "unrefuted: {nobody: It is so.}\n": ":12: unrefuted.nobody: there is no check named 'nobody'",
}


@pytest.mark.parametrize(("controls", "says"), MATCHING.items())
def test_a_mistake_about_checks_is_found_with_them_and_the_list_stays_usable(tmp_path: Path, controls: str, says: str) -> None:
    lab = read_lab(write(tmp_path / "lab", controls))
    error = refusal(lab.load_checks)
    assert says in error.message
    assert error.hint == "checks of this lab: first, second, third"
    assert Collection([tmp_path]).get("lab").definition.title == "A lab"


def test_a_mistake_about_parts_is_found_with_the_experiment(tmp_path: Path) -> None:
    lab = read_lab(write(tmp_path / "lab", control(parts="[growht]")))
    assert lab.load_checks(), "a report can be judged without the experiment"
    error = refusal(lab.load_experiment)
    assert ":17: controls.w.parts[0]: the experiment has no part named 'growht'; did you mean 'growth'?" in error.message
    assert error.hint == "parts of this lab: growth, decay"
    (lab.directory / "experiment.py").write_text("def experiment(bench):\n    pass\n")
    assert "it is not in parts" in refusal(lab.load_experiment).message


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    lab = read_lab(write(tmp_path / "lab", control(fails="[second]", parts="[decay]", set="{size: 3, rate: 2, way: right}")))
    assert len(lab.load_checks()) == 3
    assert lab.load_experiment().names == ["growth", "decay"]
    (world,) = worlds_of(lab.definition, ["w"])
    assert world.texts == {"size": "3", "rate": "2", "way": "right"}
