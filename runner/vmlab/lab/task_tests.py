"""The tests of a task: pure functions from evidence to a verdict, as a lab's checks are.

A lab's ``checks_tasks.py`` is written as::

    @task_test(task="reaper", points=3)
    def forty_exits_at_once(evidence: Evidence) -> Verdict:
        \"\"\"Forty children exit in the same millisecond.\"\"\"

The docstring names the condition under which the student's file is tried. Its second part tells how the verdict is reached.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from vmlab.lab.checks import Check, CheckFunction, Judgement, Missing, described, judge, settled
from vmlab.lab.conduct import not_built
from vmlab.lab.evidence import Evidence, EvidenceProblem
from vmlab.lab.task import Task
from vmlab.lab.verdict import Verdict, failed


@dataclass(frozen=True)
class TaskTest:
    """A test as a lab declares it: a check of a task's evidence."""

    task: str
    check: Check


def observation_name(task: str) -> str:
    """The observation in which the engine notes the student's files and whether they could be started at all."""
    return f"task_{task}"


def lost_name(task: str) -> str:
    """The observation in which the engine notes that the guest was lost while the student's program, as root, was tried."""
    return f"task_{task}_lost"


def task_test(*, task: str, points: float, after: str | Sequence[str] = ()) -> Callable[[CheckFunction], CheckFunction]:
    """Declare a test: its task, its part of the task's points, and the tests without which it says nothing. A student reads the docstring.

    What must merely have stayed as it was comes ``after`` what had to change: who does nothing has then earned nothing.
    """
    names = (after,) if isinstance(after, str) else tuple(after)

    def declare(function: CheckFunction) -> CheckFunction:
        title, method = described(function, "test")
        function.__vmlab_task_test__ = TaskTest(  # type: ignore[attr-defined]
            task, Check(function.__name__, title, float(points), "", names, function, method)
        )
        return function

    return declare


def tests_of(module: ModuleType) -> list[TaskTest]:
    """The tests that a module declares, in the order of its text. ValueError when one comes after what does not stand before it."""
    found: list[TaskTest] = [member.__vmlab_task_test__ for member in vars(module).values() if hasattr(member, "__vmlab_task_test__")]
    found = list(dict.fromkeys(found))
    for number, each in enumerate(found):
        above = [other.check.id for other in found[:number] if other.task == each.task]
        wrong = next((name for name in each.check.after if name not in above), None)
        if wrong is not None:
            raise ValueError(f"test {each.check.id} comes after {wrong!r}, which does not stand before it in the task {each.task}")
    return found


def doubts_about_tests(tasks: Mapping[str, Task], tests: Sequence[TaskTest]) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong between the tasks of ``lab.yaml`` and the tests: places there, and words."""
    found: list[tuple[tuple[str, ...], str]] = []
    for name, task in tasks.items():
        points = [each.check.points for each in tests if each.task == name]
        if not points:
            found.append(
                (("tasks", name), f"the task {name} has no test; write one in checks_tasks.py: @task_test(task={name!r}, points=...)")
            )
        elif not math.isclose(math.fsum(points), task.points):
            found.append((("tasks", name, "points"), f"the task is worth {task.points:g} points, and its tests {math.fsum(points):g}"))
    return found


# --- judging ----------------------------------------------------------------------------------------------------------------------


def judge_tests(task: str, checks: Sequence[Check], evidence: Evidence, missing: Missing) -> list[Judgement]:
    """Each test's verdict on the evidence of a finished try; the same for all where the program could not be started at all."""
    unbuilt = _not_started(task, evidence)
    if unbuilt is not None:
        return _all(checks, unbuilt)
    lost = _lost(task, evidence)
    if lost is None:
        return judge(checks, evidence, missing)
    known = {each.check.id: each for each in settled(checks, evidence)}
    return [known.get(each.id, Judgement(each, lost)) for each in checks]


def settled_tests(task: str, checks: Sequence[Check], evidence: Evidence) -> list[Judgement]:
    """The verdicts that the evidence of an unfinished try decides already."""
    unbuilt = _not_started(task, evidence)
    if unbuilt is not None:
        return _all(checks, unbuilt)
    return settled(checks, evidence)


def _all(checks: Sequence[Check], verdict: Verdict) -> list[Judgement]:
    """The same verdict on all of them; what is to be said at length is said at the first."""
    short = dataclasses.replace(verdict, expected="", measured="", hint="see the first test")
    return [Judgement(each, short if number else verdict) for number, each in enumerate(checks)]


def checks_of_task(task: str, tests: Sequence[TaskTest]) -> list[Check]:
    """The tests of one task."""
    return [each.check for each in tests if each.task == task]


def _not_started(task: str, evidence: Evidence) -> Verdict | None:
    """The verdict on a program that the guest's compiler or interpreter refuses; None when it could be started, or nothing is known."""
    try:
        return not_built(evidence[observation_name(task)].record("build"))
    except EvidenceProblem:
        return None


def _lost(task: str, evidence: Evidence) -> Verdict | None:
    """The verdict of tests that the loss of the guest prevented; None when it was not lost."""
    try:
        message = evidence[lost_name(task)].text("message")
    except EvidenceProblem:
        return None
    return failed(
        f"The guest was lost while your program was tried in it: {message}.",
        hint="your program runs as root: look what it does to the system",
    )
