"""One lab, from its definition to its report."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from vmlab import __version__
from vmlab.bench import Bench, Notebook
from vmlab.deadline import Deadline
from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, EXIT_PASS, UnsuitableImage, UsageError, VmlabError
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.workdir import work_dir
from vmlab.host import accelerator, facts
from vmlab.host.capacity import Need, Share, check_fits
from vmlab.host.slots import Slot, Slots
from vmlab.host.view import HostView
from vmlab.image.image import Image
from vmlab.image.store import ImageStore
from vmlab.lab.answers import Answer, read_answers
from vmlab.lab.checks import Check, settled
from vmlab.lab.definition import Experiment, GuestRequest, Lab
from vmlab.lab.evidence import Evidence
from vmlab.lab.parameters import check_programs, resolve
from vmlab.lab.verdict import VerdictKind
from vmlab.report import assemble, store
from vmlab.report.model import AcceleratorPart, ErrorPart, HostPart, Report, RunPart, SlotPart
from vmlab.run.live import View

log = logging.getLogger(__name__)

# Building an image takes about a minute; a slow network or a busy machine may make many of it.
IMAGE_LIMIT_S = 1800.0

_DETAIL_LIMIT = 8000


@dataclass(frozen=True)
class RunRequest:
    """What is to be run, with everything that a user could have got wrong already looked at (`prepare`)."""

    lab: Lab
    checks: list[Check]
    experiment: Experiment
    parameters: dict[str, int | float | str | bool]
    answers: dict[str, Answer]
    accelerator: Literal["auto", "kvm", "tcg"]
    image: str | None
    student: str
    reports: Path
    command: str
    cold: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished run: its report, where that is, and the exit code that it means."""

    report: Report
    directory: Path

    @property
    def exit_code(self) -> int:
        """0 when everything that this host can show passed, 1 when something failed or was inconclusive, 3 when it could not run."""
        kind = self.report.verdict()
        if kind is VerdictKind.ERROR:
            return EXIT_COULD_NOT_RUN
        return EXIT_FAIL if kind in (VerdictKind.FAIL, VerdictKind.INCONCLUSIVE) else EXIT_PASS


def prepare(
    lab: Lab,
    *,
    given: Mapping[str, str],
    answers: Path | None,
    accelerator: Literal["auto", "kvm", "tcg"],
    image: str | None,
    student: str,
    reports: Path,
    command: str,
    cold: bool = False,
    here: bool = True,
) -> RunRequest:
    """Read everything that the run needs; UsageError names what is wrong with it, before anything is started."""
    questions = lab.definition.questions
    request = RunRequest(
        lab=lab,
        checks=lab.load_checks(),
        experiment=lab.load_experiment(),
        parameters=resolve(lab.definition, given),
        answers=read_answers(answers, questions) if answers else {},
        accelerator=accelerator,
        image=image,
        student=student,
        reports=reports,
        command=command,
        cold=cold,
    )
    if here:
        check_programs(lab.definition, request.parameters)
        check_fits(need_of(request), f"the lab {lab.name}")
    return request


def need_of(request: RunRequest) -> Need:
    """What a run takes of the machine: all its guests at once, whether the experiment starts them at once or not."""
    definition = request.lab.definition
    return Need(
        {name: share_of(guest) for name, guest in definition.guests_for(request.parameters).items()}, exclusive=definition.exclusive
    )


def share_of(guest: GuestRequest) -> Share:
    """What a guest takes of the machine."""
    return Share(guest.memory_mib << 20, guest.cpus)


def run_lab(request: RunRequest, images: ImageStore, view: View) -> Outcome:
    """Run one lab and write its report.

    An error during the experiment is part of the report; one before it (no QEMU, no image, no disk space) is raised. KeyboardInterrupt
    passes through, with every guest ended and no report left behind.
    """
    facts.require_qemu()
    chosen = accelerator.choose(request.accelerator)
    host = facts.gather()
    definition, need = request.lab.definition, need_of(request)
    started_at, cpu_before_s = datetime.now(UTC), _own_cpu_s()
    notebook = Notebook()
    view.begin(
        definition.title,
        [f"accelerator {chosen.sentence}", *([f"  {chosen.hint}"] if chosen.hint else []), f"host {host.cpu_model}, {host.cpus} CPUs"],
    )
    ready = {name: image_for(request.lab, name, images, request.image, notebook, view) for name in need.guests}
    with contextlib.ExitStack() as held:
        slot = take_slot(held, need, request.lab.name, notebook, view)
        directory = store.new_directory(request.reports, request.lab.name, started_at)
        try:
            error = _perform(request, chosen.name, ready, directory, notebook, view)
            # Every guest has ended: another run may start its own while this one writes its report.
            held.close()
            report = _report(
                request,
                started_at=started_at,
                cpu_before_s=cpu_before_s,
                host=HostPart(**host.part(), accelerator=AcceleratorPart(**chosen.part())),
                directory=directory,
                notebook=notebook,
                error=error,
                slot=slot_part(slot, need),
            )
            store.save(report, directory)
        except KeyboardInterrupt:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    view.end(report, str(directory / store.HTML_NAME))
    return Outcome(report, directory)


def _report(
    request: RunRequest,
    *,
    started_at: datetime,
    cpu_before_s: float,
    host: HostPart,
    directory: Path,
    notebook: Notebook,
    error: ErrorPart | None,
    slot: SlotPart,
) -> Report:
    """The report on what the notebook holds."""
    logs = sorted(path.name for path in directory.glob("console*.log"))
    return assemble.judge_report(
        lab_name=request.lab.name,
        definition=request.lab.definition,
        lab_digest=request.lab.digest,
        checks=request.checks,
        run=RunPart(
            id=f"{request.lab.name}-{directory.name}",
            started_at=started_at.isoformat(timespec="seconds"),
            duration_s=notebook.now_s(),
            command=request.command,
            parameters=request.parameters,
            student=request.student,
            runner_version=__version__,
            runner_cpu_s=round(_own_cpu_s() - cpu_before_s, 3),
            error=error,
            slot=slot,
            unsuitable=notebook.unsuitable,
        ),
        host=host,
        guests=notebook.guests,
        phases=sorted(notebook.phases, key=lambda phase: (phase.start_s, phase.depth)),
        observations=notebook.observations,
        files=[assemble.file_part(directory, name) for name in logs],
        answers=request.answers,
    )


def take_slot(stack: contextlib.ExitStack, need: Need, what: str, notebook: Notebook, view: View) -> Slot:
    """The right to run so many guests, given back with the stack; the view is told for what it waits, and on whom."""
    with notebook.phase("Getting a slot", view):
        slot = stack.enter_context(Slots().hold(need, what, lambda why: view.waiting(why and f"a slot: {why}")))
    view.began()
    return slot


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


def image_for(lab: Lab, guest: str, images: ImageStore, chosen: str | None, notebook: Notebook, view: View) -> Image:
    """The image that a guest of the lab boots: the user's choice, else the lab's first, else the catalogue's default; made if needed.

    Of the shipped images a guest runs on those that it names; whoever brings an image of their own finds out. A choice that suits some of
    the lab's guests is for these: one that needs more than the others keeps the image that has it.
    """
    guests = lab.definition.guests

    def suits(name: str, guest: str) -> bool:
        return not guests[guest].images or name in guests[guest].images or images.is_users_own(name)

    if chosen and not any(suits(chosen, each) for each in guests):
        named = dict.fromkeys(name for each in guests.values() for name in each.images)
        raise UsageError(f"the lab {lab.name} does not run on the image {chosen}", hint=f"it runs on: {', '.join(named)}")
    name = chosen if chosen and suits(chosen, guest) else next(iter(guests[guest].images), images.default)
    with notebook.phase(f"Getting image {name}", view):
        return images.get(name, Deadline(IMAGE_LIMIT_S))


def _perform(
    request: RunRequest,
    accelerator_name: Literal["kvm", "tcg"],
    ready: Mapping[str, Image],
    directory: Path,
    notebook: Notebook,
    view: View,
) -> ErrorPart | None:
    """Let the experiment run to its end, and say what ended it early if anything did."""
    shown: set[str] = set()

    def show_settled() -> None:
        for judgement in settled(request.checks, Evidence(notebook.data(), request.parameters)):
            if judgement.check.id not in shown:
                shown.add(judgement.check.id)
                view.verdict(assemble.check_part(judgement))

    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(
                request.lab,
                parameters=request.parameters,
                images=ready,
                accelerator=accelerator_name,
                work=stack.enter_context(work_dir()),
                logs=directory,
                deadline=Deadline(request.lab.definition.time_limit_s),
                notebook=notebook,
                listener=view,
                recorded=show_settled,
                stack=stack,
                templates=None if request.cold else TemplateStore(view.notice),
            )
            request.experiment(bench)
    except UnsuitableImage as exc:
        # Nobody's fault, and nothing that a second run would change.
        notebook.unsuitable = exc.message
    except VmlabError as exc:
        return _error_part(exc.kind, exc.message, exc.hint, exc.detail, notebook)
    except Exception as exc:
        # A bug in the experiment is its author's (or ours): the verdicts that it prevented are errors, and the report says where.
        log.exception("the experiment of %s broke", request.lab.name)
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return _error_part(
            "ExperimentError",
            f"the experiment of {request.lab.name} broke: {type(exc).__name__}: {exc}",
            f"tell the lab's author: {Path(where.filename).name}:{where.lineno}",
            traceback.format_exc(),
            notebook,
        )
    return None


def _error_part(kind: str, message: str, hint: str, detail: str, notebook: Notebook) -> ErrorPart:
    return ErrorPart(kind=kind, message=message, hint=hint, detail=detail[-_DETAIL_LIMIT:], phase=notebook.broke_in)


def _own_cpu_s() -> float:
    """CPU seconds of this process, its children not counted."""
    times = os.times()
    return times.user + times.system
