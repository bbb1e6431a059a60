"""One lab, from its request to its report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vmlab import __version__
from vmlab.bench import Bench, Session
from vmlab.host.capacity import Need
from vmlab.host.slots import Slot
from vmlab.host.view import HostView
from vmlab.lab.checks import settled
from vmlab.lab.evidence import Evidence
from vmlab.progress import Event, Kind, Progress
from vmlab.report import assemble, publish, store
from vmlab.report.model import AcceleratorPart, ErrorPart, HostPart, Report, RunPart, SlotPart
from vmlab.report.scores import check_part
from vmlab.report.tasks import Tried, task_part
from vmlab.run.broken import performed
from vmlab.run.request import RunRequest
from vmlab.run.session import session
from vmlab.run.tasks import try_tasks


@dataclass(frozen=True)
class Outcome:
    """A finished run: its report, where that is, and the exit code that it means."""

    report: Report
    directory: Path

    @property
    def exit_code(self) -> int:
        """0 when everything that this host can show passed, 1 when something failed or was inconclusive, 3 when it could not run."""
        return self.report.verdict().exit_code


@dataclass(frozen=True)
class _Ended:
    """How a run went, but for its verdicts."""

    started_at: datetime
    cpu_s: float
    """CPU seconds of this process for it, its children not counted."""
    error: ErrorPart | None
    tried: Sequence[Tried] = ()


def run_lab(request: RunRequest, progress: Progress) -> Outcome:
    """Run one lab and write its report.

    An error during the experiment is part of the report; one before it (no QEMU, no image, no disk space) is raised. KeyboardInterrupt
    passes through, with every guest ended and no report left behind.
    """
    lab, started_at, cpu_before_s = request.lab, datetime.now(UTC), _own_cpu_s()
    with contextlib.ExitStack() as unfinished:
        with session(lab, request.job.choice, progress, request.need) as here:
            directory = store.new_directory(request.job.reports, request.job.shelf or lab.name, started_at)
            # What is interrupted leaves no directory that could be taken for a report.
            unfinished.callback(shutil.rmtree, directory, ignore_errors=True)
            error = _perform(request, dataclasses.replace(here, logs=directory))
            tried = try_tasks(request, dataclasses.replace(here, logs=directory))
        # Every guest has ended and the slot is given back: another run may start its own while this one writes its report.
        report = _report(request, here, directory, _Ended(started_at, _own_cpu_s() - cpu_before_s, error, tried))
        publish.save_report(report, directory)
        unfinished.pop_all()
    progress.end(report, str(directory / store.HTML_NAME))
    return Outcome(report, directory)


def _report(request: RunRequest, here: Session, directory: Path, ended: _Ended) -> Report:
    """The report on what the notebook holds."""
    lab, job, notebook = request.lab, request.job, here.notebook
    logs = sorted(path.name for path in directory.glob("console*.log"))
    run = RunPart(
        id=f"{lab.name}-{directory.name}",
        started_at=ended.started_at.isoformat(timespec="seconds"),
        duration_s=notebook.now_s(),
        command=job.command,
        parameters=request.parameters,
        student=job.student,
        runner_version=__version__,
        runner_cpu_s=round(ended.cpu_s, 3),
        error=ended.error,
        slot=slot_part(here.slot, request.need),
        unsuitable=notebook.unsuitable,
        parts=request.experiment.chosen,
        left_out=list(request.experiment.left_out),
    )
    recorded = assemble.Recorded(
        run=run,
        host=HostPart(**here.host.part(), accelerator=AcceleratorPart(**here.accelerator.part())),
        guests=notebook.guests,
        phases=sorted(notebook.phases, key=lambda phase: (phase.start_s, phase.depth)),
        observations=notebook.observations,
        files=[assemble.file_part(directory, name) for name in logs],
        tasks=[task_part(each, lab.definition.tasks[each.attempt.task]) for each in ended.tried],
    )
    part = assemble.lab_part(lab.name, lab.definition, lab.digest, lab.guest_library_digest)
    report = assemble.judge_report(part, request.checks, recorded, request.answers)
    return assemble.with_tests(report, request.work.tests)


def slot_part(slot: Slot, need: Need) -> SlotPart:
    """A slot that was given back, for the report."""
    return SlotPart(
        boot_id=HostView().read("/proc/sys/kernel/random/boot_id"),
        asked_s=round(slot.asked_s, 6),
        from_s=round(slot.from_s, 6),
        until_s=round(slot.until_s, 6),
        memory_bytes=need.memory_bytes,
        cpus=need.cpus,
        exclusive=need.exclusive,
    )


class _Settling:
    """A listener that tells each verdict as soon as the observations that it rests on are there, so that a person need not wait."""

    def __init__(self, request: RunRequest, here: Session) -> None:
        self._request = request
        self._here = here
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Look what the new observation settles."""
        if event.kind is not Kind.RECORDED:
            return
        here = self._here
        facts = assemble.run_facts(here.accelerator.name, here.notebook.guests)
        for judgement in settled(self._request.checks, Evidence(here.notebook.data(), self._request.parameters, facts)):
            if judgement.check.id not in self._told:
                self._told.add(judgement.check.id)
                self._here.progress.verdict(check_part(judgement, self._request.lab.definition.claims))


def _perform(request: RunRequest, here: Session) -> ErrorPart | None:
    """Let the experiment run to its end, and say what ended it early if anything did."""
    here.progress.subscribe(_Settling(request, here))

    def experiment() -> None:
        # The guests are ended here, so that one that cannot be is an error of this run.
        with here.guests:
            request.experiment(Bench(request.lab, here, request.parameters))

    broken = performed(experiment, request.lab, here)
    here.notebook.unsuitable = broken.unsuitable
    return broken.error


def _own_cpu_s() -> float:
    """CPU seconds of this process, its children not counted."""
    times = os.times()
    return times.user + times.system
