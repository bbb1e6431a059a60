"""How a job is done wherever it was sent: its result, and the jobs of a run of many labs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmlab.errors import UsageError, VmlabError
from vmlab.progress import Progress
from vmlab.report.batch import Trouble
from vmlab.run.lab import run_lab
from vmlab.run.request import Job, RunRequest, prepare


@dataclass(frozen=True)
class Result:
    """How a job ended: with a report in a directory, or with the reason why there is none."""

    directory: Path | None = None
    trouble: Trouble | None = None
    cpu_s: float = 0.0
    """CPU seconds of this process for it, children not counted."""


def perform(job: Job, progress: Progress) -> Result:
    """Run the job in this process. Raises nothing that is an answer; KeyboardInterrupt passes."""
    before_s = time.process_time()
    try:
        directory = run_lab(prepare(job), progress).directory
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


def fitting(jobs: Sequence[Job], *, here: bool = True) -> list[RunRequest]:
    """What the jobs need, all looked at before any is started; UsageError names the first that is wrong."""
    prepared = []
    for job in jobs:
        try:
            prepared.append(prepare(job, here=here))
        except UsageError as exc:
            if len(jobs) == 1 or job.lab in exc.message:
                raise
            raise UsageError(f"{job.lab}: {exc.message}", hint=exc.hint, detail=exc.detail) from exc
    return prepared
