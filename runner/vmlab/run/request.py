"""What is to be run: a job, which is what a user asked for as plain data, and the request, which is a job with all of it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmlab.errors import UsageError
from vmlab.host.capacity import Need, check_fits
from vmlab.lab.answers import Answer, read_answers
from vmlab.lab.checks import Check
from vmlab.lab.collection import Collection
from vmlab.lab.evidence import digest
from vmlab.lab.experiment import Experiment, Function
from vmlab.lab.lab import Lab
from vmlab.lab.mistakes import refuse_mistakes
from vmlab.lab.parameters import resolve
from vmlab.lab.task_tests import TaskTest
from vmlab.lab.work import Attempt, attempts, default_folder
from vmlab.run.session import Choice, check_emulators, share_of


@dataclass(frozen=True)
class Job:
    """What ``vmlab run LAB`` was told: it can be handed to another process, or to another machine.

    ``id`` is the lab's name, with a number where it is asked for more than once.
    """

    id: str
    lab: str
    reports: Path
    command: str
    labs: tuple[Path, ...] = ()
    """Directories of labs, beside those that ship with vmlab."""
    given: Mapping[str, str] = field(default_factory=dict)
    """The lab's parameters that were set, as texts."""
    parts: tuple[str, ...] = ()
    """The parts of the experiment to run; empty: all of it."""
    shelf: str = ""
    """The folder of its reports below ``reports``; empty: the lab's name."""
    answers: Path | None = None
    work: Path | None = None
    """The folder with the student's own work; None: the run has none."""
    student: str = ""
    choice: Choice = field(default_factory=Choice)


NOTHING = Experiment()
"""The experiment of a run that tries tasks alone."""


@dataclass(frozen=True)
class Work:
    """The student's part of a run: the files, how each task is tried, and its tests."""

    attempts: Sequence[Attempt] = ()
    trials: Mapping[str, Function] = field(default_factory=dict)
    tests: Sequence[TaskTest] = ()

    @property
    def attempted(self) -> list[Attempt]:
        """Those with anything of the student's in them."""
        return [each for each in self.attempts if each.changed]

    def guests(self, lab: Lab) -> list[str]:
        """The guests in which it is tried, by name."""
        return list(dict.fromkeys(lab.definition.tasks[each.task].guest for each in self.attempted))


@dataclass(frozen=True)
class RunRequest:
    """A job with everything that a user could have got wrong already looked at (`prepare`)."""

    job: Job
    lab: Lab
    checks: list[Check]
    experiment: Experiment
    parameters: dict[str, int | float | str | bool]
    answers: dict[str, Answer]
    work: Work = field(default_factory=Work)

    @property
    def need(self) -> Need:
        """What the run takes of the machine: all its guests at once, whether the experiment starts them at once or not."""
        definition, demonstrates = self.lab.definition, self.experiment is not NOTHING
        guests = {name: share_of(guest) for name, guest in definition.guests_for(self.parameters).items() if demonstrates}
        guests |= {name: share_of(definition.guests[name]) for name in self.work.guests(self.lab)}
        return Need(guests, exclusive=definition.exclusive and demonstrates)

    @property
    def key(self) -> str:
        """The same for the same work: the lab's files, its parameters, and all that decides how it runs."""
        choice = self.job.choice
        return digest(
            {
                "lab": self.lab.digest,
                "parameters": self.parameters,
                **({"parts": self.experiment.chosen} if self.experiment.left_out else {}),
                "answers": self.answers,
                **({"work": [[each.task, dict(each.files)] for each in self.work.attempted]} if self.work.attempted else {}),
                "accelerator": choice.accelerator,
                "image": choice.image,
                "student": self.job.student,
                "cold": choice.cold,
            }
        )


def prepare_trial(job: Job, tasks: Sequence[str]) -> RunRequest:
    """Read what is needed to try these tasks (none: all), and nothing else of the lab. UsageError names what is wrong with it.

    A task that was not attempted is no mistake: it is in the request, and is not tried.
    """
    lab = Collection(job.labs).get(job.lab)
    if not lab.definition.tasks:
        raise UsageError(f"the lab {lab.name} has no tasks", hint=f"run it: vmlab run {lab.name}")
    made = attempts(lab, job.work or default_folder(lab), tasks, required=True)
    request = RunRequest(
        job=job, lab=lab, checks=[], experiment=NOTHING, parameters=resolve(lab.definition, job.given), answers={}, work=work_on(lab, made)
    )
    refuse_mistakes(lab)
    check_fits(request.need, f"the lab {lab.name}")
    return request


def work_on(lab: Lab, made: Sequence[Attempt]) -> Work:
    """The student's part of a run of the lab, from these files. UsageError for a mistake in the lab's own, too."""
    return Work(made, lab.load_trials(), lab.load_tests())


def prepare(job: Job, *, here: bool = True) -> RunRequest:
    """Read everything that the run needs. ``here``: it will run on this machine.

    UsageError names what is wrong with it, before anything is started; HostError an emulator that is not installed.
    """
    lab = Collection(job.labs).get(job.lab)
    request = RunRequest(
        job=job,
        lab=lab,
        checks=lab.load_checks(),
        experiment=lab.load_experiment().only(job.parts),
        parameters=resolve(lab.definition, job.given),
        answers=read_answers(job.answers, lab.definition.questions) if job.answers else {},
        work=work_on(lab, attempts(lab, job.work) if job.work else []),
    )
    refuse_mistakes(lab)
    if here:
        check_emulators(lab, request.need)
        check_fits(request.need, f"the lab {lab.name}")
    return request
