"""What an author should mend although the lab runs: each rule finds what it is for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.errors import UsageError
from vmlab.lab.skeleton import create
from vmlab.lab.wording import contradictable, hintless

LABS = sorted(path.parent for path in ROOT.glob("labs/*/lab.yaml"))

CALLS = """from vmlab.lab import failed, failed as no, passed
import vmlab.lab
from elsewhere import failed as other


def check(evidence, more):
    passed("It is so.", measured="1")
    other("not ours")
    more.hint = ""
    failed("A", hint="look there")
    failed("B", **more)
    failed("C", hint=more.hint)
"""


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("", False),
        ('failed("x")', True),
        ('failed("x", expected="1", measured="2")', True),
        ('failed("x", hint="")', True),
        ('failed("x", hint=None)', True),
        ('failed("x", hint="  ")', True),
        ('no("x")', True),
        ('vmlab.lab.failed("x")', True),
        ('failed("x", hint="y" if more else "z")', False),
    ],
)
def test_each_failure_without_a_hint_is_found(tmp_path: Path, code: str, found: bool) -> None:
    (tmp_path / "checks_more.py").write_text(f"{CALLS}    {code}\n")
    assert hintless(tmp_path) == ([f"{tmp_path}/checks_more.py:13: failed(...) without a hint"] if found else [])


def test_tests_and_guest_scripts_give_no_hints(tmp_path: Path) -> None:
    for name in ("tests", "guest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.py").write_text('from vmlab.lab import failed\nfailed("x")\n')
    assert hintless(tmp_path) == []


def test_a_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text("def x(:\n")
    with pytest.raises(UsageError, match=r"checks\.py:1: this is no Python"):
        hintless(tmp_path)


def lab(directory: Path, shows: str, unit: str = "") -> Path:
    axis = f"{{label: zombies, unit: {unit or 'pages'}}}"
    text = f"title: A\nplots:\n  - id: one\n    y: {axis}\n    shows: >-\n      {shows}\ntranslations:\n  - shows: fine\n"
    (directory / "lab.yaml").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("shows", "number"),
    [
        ("some 10 kB a zombie", "10 kB"),
        ("it takes 2.5 s", "2.5 s"),
        ("32 % of them", "32 %"),
        ("two or three times as long", "three times"),
        ("about 4,096 pages", "4,096 pages"),
        ("the others stay at zero", "zero"),
        ("twelve frobs in all", "twelve frobs"),
        ("a 64-byte line", "64-byte"),
    ],
)
def test_a_caption_with_a_measured_number_is_found(tmp_path: Path, shows: str, number: str) -> None:
    (line,) = contradictable(lab(tmp_path, shows, "frobs"))
    assert line.endswith(f":5: plots[0].shows: says {number!r}, and a run may measure another number")


@pytest.mark.parametrize(
    "shows", ["nine bits of the address", "level 2 has the bit PS, and 21 bits remain", "PID 1 reaps", "two parents", "a flat line"]
)
def test_what_no_run_can_change_may_be_said(tmp_path: Path, shows: str) -> None:
    assert contradictable(lab(tmp_path, shows)) == []


@pytest.mark.parametrize("text", ["[]", "plots: 3", "plots: [3, {shows: 4}]", "title: A"])
def test_a_lab_yaml_that_is_none_is_not_this_rules_affair(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    assert contradictable(tmp_path) == []


@pytest.mark.parametrize("directory", LABS, ids=lambda path: path.name)
def test_no_caption_of_ours_can_be_contradicted(directory: Path) -> None:
    assert contradictable(directory) == []


def test_a_new_lab_has_nothing_to_mend(tmp_path: Path) -> None:
    made = create("sample", tmp_path)
    assert [*hintless(made), *contradictable(made)] == []
