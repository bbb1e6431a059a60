"""What is to be run: a job, which is what a user asked for as plain data, and the request, which is a job with all of it looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmlab.host.capacity import Need, check_fits
from vmlab.lab.answers import Answer, read_answers
from vmlab.lab.checks import Check
from vmlab.lab.collection import Collection
from vmlab.lab.evidence import digest
from vmlab.lab.experiment import Experiment
from vmlab.lab.lab import Lab
from vmlab.lab.mistakes import refuse_mistakes
from vmlab.lab.parameters import resolve
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
    student: str = ""
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True)
class RunRequest:
    """A job with everything that a user could have got wrong already looked at (`prepare`)."""

    job: Job
    lab: Lab
    checks: list[Check]
    experiment: Experiment
    parameters: dict[str, int | float | str | bool]
    answers: dict[str, Answer]

    @property
    def need(self) -> Need:
        """What the run takes of the machine: all its guests at once, whether the experiment starts them at once or not."""
        definition = self.lab.definition
        guests = {name: share_of(guest) for name, guest in definition.guests_for(self.parameters).items()}
        return Need(guests, exclusive=definition.exclusive)

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
                "accelerator": choice.accelerator,
                "image": choice.image,
                "student": self.job.student,
                "cold": choice.cold,
            }
        )


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
    )
    refuse_mistakes(lab)
    if here:
        check_emulators(lab, request.need)
        check_fits(request.need, f"the lab {lab.name}")
    return request
