"""Tasks, their tests and how they are tried: what fits together, and every mistake of an author answered with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_work import LAB
from vmlab.errors import UsageError
from vmlab.lab.collection import read_lab
from vmlab.lab.lab import Lab

TESTS = """\
from vmlab.lab import passed, task_test

@task_test(task="reaper", points=4)
def one(evidence):
    \"\"\"Once.\"\"\"
    return passed("yes", measured="1")

@task_test(task="units", points=2)
def two(evidence):
    \"\"\"Twice.\"\"\"
    return passed("yes", measured="1")
"""
TRIALS = """\
from vmlab.bench import Bench, task

@task
def reaper(bench: Bench) -> None:
    \"\"\"It is tried.\"\"\"

@task
def units(bench: Bench) -> None:
    \"\"\"They are tried.\"\"\"
"""


def lab(tmp_path: Path, *, tests: str = TESTS, trials: str = TRIALS) -> Lab:
    folder = tmp_path / "tried"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    (folder / "checks.py").write_text(
        'from vmlab.lab import check, passed\n\n@check(points=1, claim="A")\n'
        'def c(evidence):\n    """C."""\n    return passed("y", measured="1")\n'
    )
    (folder / "checks_tasks.py").write_text(tests)
    (folder / "experiment_tasks.py").write_text(trials)
    return read_lab(folder)


def test_tests_and_trials_are_found(tmp_path: Path) -> None:
    found = lab(tmp_path)
    assert [(each.task, each.check.id, each.check.points) for each in found.load_tests()] == [("reaper", "one", 4), ("units", "two", 2)]
    assert list(found.load_trials()) == ["reaper", "units"]
    assert [each.id for each in found.load_checks()] == ["c"], "tests of tasks are no checks of the demonstration"


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (TESTS.replace('"reaper"', '"reeper"'), "the test one is of the task 'reeper'.*did you mean 'reaper'"),
        (TESTS.replace("points=4", "points=3"), r"lab.yaml:\d+: .*worth 4 points, and its tests 3"),
        (TESTS.replace("points=4", "points=0"), "expected a number more than 0"),
        (TESTS[: TESTS.index('@task_test(task="units"')], r"lab.yaml:\d+: .*the task units has no test"),
        (TESTS.replace('    """Once."""\n', ""), "needs a docstring"),
        (
            TESTS.replace("points=2", 'points=2, after="one"'),
            "test two comes after 'one', which does not stand before it in the task units",
        ),
    ],
    ids=["unknown", "points", "nothing", "untested", "silent", "order"],
)
def test_mistakes_in_tests_are_named(tmp_path: Path, tests: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lab(tmp_path, tests=tests).load_tests()


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (TRIALS.replace("def units", "def unit"), r"has no function units\(bench\) marked with @task"),
        (TRIALS + '\n@task\ndef more(bench):\n    """More."""\n', "tries the task 'more', which lab.yaml does not list"),
    ],
    ids=["missing", "more"],
)
def test_mistakes_in_trials_are_named(tmp_path: Path, trials: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lab(tmp_path, trials=trials).load_trials()
