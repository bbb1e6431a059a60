"""Every solution of every task, right and wrong, tried in real guests: which test each fails, and that the message says why.

Solutions lie in labs/LAB/tests/solutions/TASK/, a file each; ``verdicts.yaml`` there says of each wrong one which tests it must fail,
with a word that the verdict must have. All other tests must pass, but for those that rest on one that fails, and those that ``may``
fail: on a busy machine children end together that would not otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from vmlab.lab.collection import Collection
from vmlab.lab.verdict import VerdictKind
from vmlab.progress import Progress
from vmlab.report.model import TaskPart
from vmlab.run.request import Job, prepare_trial
from vmlab.run.tasks import try_alone

LABS = Path(__file__).parents[2] / "labs"
SOLUTIONS = sorted(path for path in LABS.glob("*/tests/solutions/*/*") if path.suffix != ".yaml")


def names(path: Path) -> tuple[str, str]:
    """The lab and the task that a solution is of."""
    return path.parts[-5], path.parent.name


def expected(path: Path) -> dict[str, str]:
    """The tests that it must fail, each with a word of the verdict; none for a right one."""
    found: dict[str, str] = yaml.safe_load((path.parent / "verdicts.yaml").read_text())[path.name] or {}
    return found


def tried(path: Path, folder: Path) -> TaskPart:
    lab, task = names(path)
    (folder / task).mkdir(parents=True)
    program = next(name for name in Collection().get(lab).definition.tasks[task].program if name.endswith(path.suffix))
    (folder / task / program).write_text(path.read_text())
    (part,) = try_alone(prepare_trial(Job(id=lab, lab=lab, reports=Path(), command="", work=folder), [task]), Progress())
    return part


# The wrong ones take minutes: VMLAB_TEST_SOLUTIONS=1 tries them too.
EVERY = os.environ.get("VMLAB_TEST_SOLUTIONS") == "1"
TRIED = [path for path in SOLUTIONS if EVERY or not expected(path)]


@pytest.mark.guest
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", TRIED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_solution_fails_what_it_should_and_nothing_else(path: Path, tmp_path: Path) -> None:
    part = tried(path, tmp_path / "work")
    assert part.error is None
    wanted = expected(path)
    may = wanted.pop("may", "").split()
    judged = [test for test in part.tests if not set(test.after) & set(wanted) and (test.id not in may or test.verdict.earns)]
    said = {test.id: f"{test.rationale} {test.measured} {test.hint}" for test in judged if test.verdict is not VerdictKind.PASS}
    assert sorted(said) == sorted(wanted), said
    assert all(test.verdict is VerdictKind.FAIL for test in part.tests if test.id in said), (
        "a wrong program fails, and nothing is left open"
    )
    for test, word in wanted.items():
        assert word in said[test]
        assert next(each for each in part.tests if each.id == test).hint


def test_every_task_has_a_right_solution_and_three_wrong_ones_and_each_test_fails_one() -> None:
    for name in Collection().names():
        lab = Collection().get(name)
        for task in lab.definition.tasks:
            of_task = [path for path in SOLUTIONS if names(path) == (name, task)]
            listed = yaml.safe_load((LABS / name / "tests/solutions" / task / "verdicts.yaml").read_text())
            assert sorted(listed) == sorted(path.name for path in of_task)
            wrong = [{test for test in fails if test != "may"} for fails in listed.values() if fails]
            assert len(wrong) >= 3
            assert len(wrong) < len(listed), "a right one"
            tests = {each.check.id for each in lab.load_tests() if each.task == task}
            assert {test for fails in wrong for test in fails} == tests, "each test is seen to fail"
