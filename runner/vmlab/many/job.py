"""One lab with everything that was asked of it, as plain data: what is handed to another process, or to another machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vmlab.errors import UsageError, VmlabError
from vmlab.image.catalog import users_catalogs
from vmlab.image.store import ImageStore
from vmlab.lab.collection import Collection
from vmlab.lab.evidence import digest
from vmlab.report.batch import Trouble
from vmlab.run.lab import RunRequest, prepare, run_lab
from vmlab.run.live import View


@dataclass(frozen=True)
class Job:
    """What ``vmlab run LAB`` was told. ``id`` is the lab's name, with a number where it is asked for more than once."""

    id: str
    lab: str
    reports: Path
    command: str
    labs: tuple[Path, ...] = ()
    catalogs: tuple[Path, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    answers: Path | None = None
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    image: str | None = None
    student: str = ""
    cold: bool = False

    def prepare(self, *, here: bool = True) -> RunRequest:
        """Everything that the run needs, looked at; UsageError names what is wrong. ``here``: it will run on this machine."""
        return prepare(
            Collection(self.labs).get(self.lab),
            given=self.given,
            answers=self.answers,
            accelerator=self.accelerator,
            image=self.image,
            student=self.student,
            reports=self.reports,
            command=self.command,
            cold=self.cold,
            here=here,
        )

    def images(self, tell: Callable[[str], None]) -> ImageStore:
        """The images of all catalogues; ``tell`` is given lines for the user."""
        return ImageStore(tell=tell, more=[*users_catalogs(), *self.catalogs])

    def key(self, request: RunRequest) -> str:
        """The same for the same work: the lab's files, its parameters, and all that decides how it runs."""
        return digest(
            {
                "lab": request.lab.digest,
                "parameters": request.parameters,
                "answers": request.answers,
                "accelerator": self.accelerator,
                "image": self.image,
                "student": self.student,
                "cold": self.cold,
            }
        )


@dataclass(frozen=True)
class Result:
    """How a job ended: with a report in a directory, or with the reason why there is none."""

    directory: Path | None = None
    trouble: Trouble | None = None
    cpu_s: float = 0.0
    """CPU seconds of this process for it, children not counted."""


def perform(job: Job, view: View) -> Result:
    """Run the job in this process. Raises nothing that is an answer; KeyboardInterrupt passes."""
    before_s = time.process_time()
    try:
        directory = run_lab(job.prepare(), job.images(view.notice), view).directory
    except VmlabError as exc:
        return Result(trouble=trouble_of(exc), cpu_s=time.process_time() - before_s)
    return Result(directory, cpu_s=time.process_time() - before_s)


def trouble_of(error: VmlabError) -> Trouble:
    """An error as the index of a run keeps it."""
    return Trouble(kind=error.kind, message=error.message, hint=error.hint, exit_code=error.exit_code)


def numbered(names: list[str]) -> list[str]:
    """Ids for labs that may be named more than once: ``a``, ``b``, ``a-2``."""
    seen: dict[str, int] = {}
    ids = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def fitting(jobs: list[Job], *, here: bool = True) -> list[tuple[Job, RunRequest]]:
    """The jobs with what they need, all looked at before any is started; UsageError names the first that is wrong."""
    prepared = []
    for job in jobs:
        try:
            prepared.append((job, job.prepare(here=here)))
        except UsageError as exc:
            if len(jobs) == 1 or job.lab in exc.message:
                raise
            raise UsageError(f"{job.lab}: {exc.message}", hint=exc.hint, detail=exc.detail) from exc
    return prepared
