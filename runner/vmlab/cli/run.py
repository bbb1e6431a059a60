"""`vmlab run`: one lab, or many."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmlab.cli.options import (
    LabName,
    accel_option,
    catalogs_of,
    cluster_extra,
    cold_option,
    collection_of,
    image_option,
    json_option,
    labs_option,
    reports_option,
)
from vmlab.cli.work import work_option
from vmlab.errors import UsageError

if TYPE_CHECKING:
    from vmlab.host.accelerator import Wanted
    from vmlab.many.pool import Workers
    from vmlab.run.request import Job, RunRequest

# The conventional status of a program that SIGINT ended (128 + 2), so that a shell's loop stops too.
EXIT_INTERRUPTED = 130


class Jobs(click.ParamType[int]):
    """How many labs at once: a number, or ``auto`` (0), which is as many as this machine has slots for."""

    name = "jobs"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if value in ("auto", 0):
            return 0
        text = str(value)
        if not text.isdecimal() or not 0 < int(text) <= 10_000:
            self.fail(f"expected a number of labs, or auto; found {text[:40]!r}", param, ctx)
        return int(text)


@dataclass(frozen=True)
class Part:
    """One of ``of`` parts of a run's labs."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def of_names(self, names: list[str]) -> list[str]:
        """Every ``of``-th name, so that labs which follow each other (and may be alike) go to different shards."""
        return names[self.number - 1 :: self.of]


class Shard(click.ParamType[Part]):
    """Which part of the labs: ``2/5`` is the second of five."""

    name = "shard"

    def convert(self, value: str | Part, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        """The part."""
        if isinstance(value, Part):
            return value
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
        if match is None:
            self.fail(f"expected I/N, such as 2/5; found {value[:40]!r}", param, ctx)
        number, of = int(match[1]), int(match[2])
        if not 1 <= number <= of:
            self.fail(f"{value} is out of range: of {of} shards, the first is 1/{of} and the last {of}/{of}", param, ctx)
        return Part(number, of)


@dataclass(frozen=True)
class RunOptions:
    """The options of `vmlab run`, by their names there."""

    accel: Wanted
    image: str | None
    cold: bool
    params: tuple[str, ...]
    parts: tuple[str, ...]
    answers: Path | None
    work: Path | None
    student: str
    jobs: int
    """How many labs at once; 0: as many as this machine has slots for."""
    fail_fast: bool
    retry_errors: int
    resume: bool
    shard: Part | None
    scheduler: str | None
    quiet: bool
    as_json: bool
    reports: Path
    lab_dirs: tuple[Path, ...]

    @property
    def command(self) -> str:
        """What was typed, for reports."""
        return shlex.join(["vmlab", *sys.argv[1:]])

    @property
    def plain(self) -> bool:
        """Whether nothing asks for what only a run of many labs has: an index, workers, rules for what does not pass."""
        return not (self.fail_fast or self.retry_errors or self.resume or self.shard or self.scheduler)

    def _of_work(self, lab: str, *below: str) -> Path | None:
        """The folder of the student's work on a lab (``--work``, or work/LAB), or a file in it; None where there is none."""
        path = (self.work or Path("work", lab)).joinpath(*below)
        return path if path.exists() else None

    def job(self, name: str, lab: str) -> Job:
        """One lab with all of this, under a name in the run."""
        from vmlab.lab.parameters import split
        from vmlab.run.request import Job
        from vmlab.run.session import Choice

        return Job(
            id=name,
            lab=lab,
            reports=self.reports,
            command=self.command,
            labs=self.lab_dirs,
            given=split(self.params),
            parts=self.parts,
            answers=self.answers or self._of_work(lab, "answers.yaml"),
            work=self.work or self._of_work(lab),
            student=self.student,
            choice=Choice(accelerator=self.accel, image=self.image, cold=self.cold, catalogs=catalogs_of()),
        )


@click.command()
@click.argument("labs", nargs=-1, required=True, type=LabName(), metavar="LAB...")
@accel_option
@image_option
@cold_option
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the lab; may be repeated.")
@click.option("--part", "parts", multiple=True, metavar="NAME", help="Run this part of the experiment only; may be repeated.")
@click.option("--answers", type=click.Path(path_type=Path), metavar="FILE", help="Your predictions (vmlab predict LAB writes a form).")
@work_option
@click.option("--student", default="", metavar="ID", help="Who hands this in; kept in the report.")
@click.option("--jobs", "-j", type=Jobs(), default="auto", show_default=True, metavar="N|auto", help="How many labs at once.")
@click.option("--fail-fast", is_flag=True, help="Start no more labs once one did not pass.")
@click.option("--retry-errors", type=click.IntRange(0, 20), default=0, metavar="N", help="Run again what broke, never what failed.")
@click.option("--resume", is_flag=True, help="Run only what the last run of these labs did not finish.")
@click.option("--shard", type=Shard(), metavar="I/N", help="Run only the I-th of N parts of the labs; `vmlab merge` joins their reports.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Run the labs on a Dask cluster (pip install 'vmlab[cluster]').")
@click.option("--quiet", "-q", is_flag=True, help="Say only how it ended.")
@json_option
@reports_option
@labs_option
def run(labs: tuple[str, ...], **given: Any) -> None:
    """Run a lab (or several, or `all`) and write a report.

    Your own work on its tasks (`vmlab start`) is tried after the demonstration, and is in the report with its tests.

    Several labs run at once, as many as this machine has slots for (`vmlab ps`), and reports/index.html leads to their reports. Ctrl-C
    lets the labs that have begun finish; a second one stops them at once.

    \b
    Exit code: 0  every check passed (or cannot be observed on this host, with the reason)
               1  a check failed or was inconclusive
               2  the command line or a file of yours is wrong
               3  it could not run, by a fault of vmlab or of the machine
    """
    from vmlab.many.job import fitting, numbered

    options = RunOptions(**given)
    if options.work and len(labs) > 1:
        raise UsageError("--work is for one lab", hint="without it, each lab finds its work in work/LAB")
    names = collection_of(options.lab_dirs).names() if labs == ("all",) else list(labs)
    if not names:
        raise UsageError("there are no labs here", hint="--labs DIR names a directory that holds some")
    whole = dict(zip(numbered(names), names, strict=True))
    mine = list(whole) if options.shard is None else options.shard.of_names(list(whole))
    prepared = fitting([options.job(name, whole[name]) for name in mine], here=options.scheduler is None)
    sys.exit(_one(prepared[0], options) if len(whole) == 1 and options.plain else _many(prepared, list(whole), options))


def _one(request: RunRequest, options: RunOptions) -> int:
    """Run one lab in this process, its verdicts shown as they come."""
    from vmlab.progress import Progress
    from vmlab.run.lab import run_lab
    from vmlab.run.screen import choose_screen, shown

    progress = Progress()
    with shown(progress, choose_screen(quiet=options.quiet, as_json=options.as_json)):
        return run_lab(request, progress).exit_code


def _many(prepared: list[RunRequest], whole: list[str], options: RunOptions) -> int:
    """Run labs in processes of their own, or on a cluster, and write the index."""
    from vmlab.many.board import choose_board
    from vmlab.many.schedule import Plan, Rules, Schedule
    from vmlab.progress import Progress
    from vmlab.run.screen import shown

    progress, rules = Progress(), Rules(fail_fast=options.fail_fast, retries=options.retry_errors)
    plan = Plan(prepared, options.reports, options.command, rules, whole=whole, shard=str(options.shard or ""))
    schedule = Schedule(plan, _workers(prepared, options), progress)
    if options.resume:
        schedule.resume()
    with shown(progress, choose_board(quiet=options.quiet, as_json=options.as_json)):
        batch = schedule.run()
    return EXIT_INTERRUPTED if batch.interrupted else batch.exit_code()


def _workers(prepared: list[RunRequest], options: RunOptions) -> Workers:
    """Where the labs run: processes here, or a Dask cluster."""
    from vmlab.host.capacity import capacity
    from vmlab.many.pool import ProcessPool

    if options.scheduler is None:
        return ProcessPool(options.jobs or capacity().cpus)
    with cluster_extra():
        from vmlab.many.cluster import Cluster
    needs = {request.job.id: request.need for request in prepared}
    return Cluster(options.scheduler, needs, kvm=options.accel == "kvm", room=options.jobs or len(prepared))


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPORTS...")
@click.option("--into", type=click.Path(path_type=Path), default=Path("reports"), show_default=True, metavar="DIR", help="Where all goes.")
def merge(shards: tuple[Path, ...], into: Path) -> None:
    """Join the reports of shards (`vmlab run all --shard I/N --reports DIR`) into those of one run.

    The exit code is that of the whole run; a lab that no shard brought counts as one that could not be run.
    """
    from vmlab.report.index import INDEX_PAGE
    from vmlab.report.lines import batch_lines, outcome
    from vmlab.report.merge import merge as join

    joined = join(shards, into, shlex.join(["vmlab", *sys.argv[1:]]))
    for line in (*map(outcome, joined.by_urgency()), *batch_lines(joined, str(into / INDEX_PAGE))):
        click.echo(line)
    sys.exit(joined.exit_code())
