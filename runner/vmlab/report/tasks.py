"""The student's own work in a report: what was handed in, and its tests judged, from evidence alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vmlab.lab.checks import Missing
from vmlab.lab.evidence import Evidence
from vmlab.lab.task import Task
from vmlab.lab.task_tests import TaskTest, checks_of_task, judge_tests
from vmlab.lab.work import Attempt
from vmlab.report.model import ErrorPart, StudentFilePart, TaskPart
from vmlab.report.scores import check_part, score


@dataclass(frozen=True)
class Tried:
    """How the try of a task went, but for its tests."""

    attempt: Attempt
    error: ErrorPart | None = None
    unsuitable: str = ""


def task_part(tried: Tried, task: Task) -> TaskPart:
    """A task as the report holds it, before its tests are judged."""
    attempt = tried.attempt
    return TaskPart(
        id=attempt.task,
        title=task.title,
        kind=task.kind,
        attempted=attempt.changed,
        program=attempt.program,
        files=[file_part(name, text) for name, text in attempt.files.items()],
        notes=list(attempt.notes),
        error=tried.error,
        unsuitable=tried.unsuitable,
        score=score([]),
    )


def file_part(name: str, text: str) -> StudentFilePart:
    """A student's file with its digest."""
    return StudentFilePart(name=name, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def judged(part: TaskPart, tests: Sequence[TaskTest], evidence: Evidence) -> TaskPart:
    """The task with every test judged from the evidence; what the part claims of them is not believed.

    A task that was not attempted has no tests and earns nothing: its points are possible all the same.
    """
    checks = checks_of_task(part.id, tests)
    if not part.attempted:
        possible = math.fsum(each.points for each in checks)
        return part.model_copy(update={"tests": [], "score": score([]).model_copy(update={"possible": possible})})
    missing = Missing(part.error.message if part.error else "", part.unsuitable)
    judgements = judge_tests(part.id, checks, evidence, missing)
    return part.model_copy(update={"tests": [check_part(each, {}) for each in judgements], "score": score(judgements)})
