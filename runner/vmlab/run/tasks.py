"""The student's own work, tried: each task in a guest of its own, which is gone afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from vmlab.bench import Bench, Session
from vmlab.bench.trial import build, described, put
from vmlab.deadline import Deadline
from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, GuestError, SshError
from vmlab.lab.evidence import Evidence
from vmlab.lab.task_tests import checks_of_task, lost_name, observation_name, settled_tests
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.work import Attempt
from vmlab.progress import Event, Kind, Progress
from vmlab.report import assemble
from vmlab.report.model import TaskPart
from vmlab.report.scores import check_part
from vmlab.report.tasks import Tried, judged, task_part
from vmlab.run.broken import performed
from vmlab.run.request import RunRequest
from vmlab.run.session import session


def try_tasks(request: RunRequest, here: Session) -> list[Tried]:
    """Try each task that was attempted; how that went, and the tasks that were not attempted too."""
    return [_try(request, here, each) if each.changed else Tried(each) for each in request.work.attempts]


def _try(request: RunRequest, here: Session, attempt: Attempt) -> Tried:
    """One task, from its guest's start to its end. What breaks is the error of this task alone."""
    lab, task = request.lab, request.lab.definition.tasks[attempt.task]
    apart = dataclasses.replace(here, guests=contextlib.ExitStack(), deadline=Deadline(lab.definition.time_limit_s))
    bench = Bench(lab, apart, request.parameters, attempt)
    here.notebook.broke_in = ""
    for note in attempt.notes:
        here.progress.notice(f"{attempt.task}: {note}")

    def trial() -> None:
        with apart.guests:
            guest = bench.guest(task.guest)
            if task.setup:
                guest.script(task.setup)
            put(guest, attempt, task)
            built = build(guest) if attempt.program else {"built": True, "messages": "", "missing": ""}
            bench.record(observation_name(attempt.task), described(attempt) | {"build": built})
            if built.get("built"):
                request.work.trials[attempt.task](bench)

    listener = _Settling(request, here, attempt.task)
    here.progress.subscribe(listener)
    with here.progress.phase(f"Task {attempt.task}: {task.title}"):
        broken = performed(trial, lab, here)
    here.progress.unsubscribe(listener)
    if task.as_root and isinstance(broken.cause, GuestError | SshError):
        # Whoever is root in a guest can end it, and then that is what the work did: evidence, and no error of ours.
        bench.record(lost_name(attempt.task), {"kind": broken.cause.kind, "message": broken.cause.message})
        return Tried(attempt)
    return Tried(attempt, broken.error, broken.unsuitable)


def try_alone(request: RunRequest, progress: Progress) -> list[TaskPart]:
    """Try the tasks of a request, without a demonstration and without a report; each with its tests judged."""
    tasks, tests = request.lab.definition.tasks, request.work.tests
    if not request.work.attempted:
        return [judged(task_part(Tried(each), tasks[each.task]), tests, Evidence({}, {}, {})) for each in request.work.attempts]
    with session(request.lab, request.job.choice, progress, request.need, "your work in") as here:
        tried = try_tasks(request, here)
        evidence = _evidence(request, here)
    return [judged(task_part(each, tasks[each.attempt.task]), tests, evidence) for each in tried]


def exit_code(parts: Sequence[TaskPart]) -> int:
    """3 when a task could not be tried, 1 when a test did not pass or a task was not attempted, else 0."""
    if any(part.error for part in parts):
        return EXIT_COULD_NOT_RUN
    if not all(part.attempted for part in parts):
        return EXIT_FAIL
    return VerdictKind.worst(test.verdict for part in parts for test in part.tests).exit_code


def _evidence(request: RunRequest, here: Session) -> Evidence:
    facts = assemble.run_facts(here.accelerator.name, here.notebook.guests)
    return Evidence(here.notebook.data(), request.parameters, facts)


class _Settling:
    """A listener that tells each test of a task as soon as the observations that it rests on are there."""

    def __init__(self, request: RunRequest, here: Session, task: str) -> None:
        self._request, self._here, self._task = request, here, task
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Look what the new observation settles."""
        if event.kind is not Kind.RECORDED:
            return
        checks = checks_of_task(self._task, self._request.work.tests)
        for judgement in settled_tests(self._task, checks, _evidence(self._request, self._here)):
            if judgement.check.id not in self._told:
                self._told.add(judgement.check.id)
                self._here.progress.verdict(check_part(judgement, {}))
