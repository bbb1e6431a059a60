"""`vmlab run`: one lab, or many."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli_options import (
    LabName,
    accel_option,
    catalogs_of,
    cold_option,
    collection_of,
    image_option,
    json_option,
    labs_option,
    reports_option,
)
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.host.accelerator import Wanted
    from runner.job import Job
    from runner.run import RunRequest
    from runner.schedule import Rules

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


@click.command()
@click.argument("labs", nargs=-1, required=True, type=LabName(), metavar="LAB...")
@accel_option
@image_option
@cold_option
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the lab; may be repeated.")
@click.option("--answers", type=click.Path(path_type=Path), metavar="FILE", help="Your predictions (vmlab predict LAB writes a form).")
@click.option("--student", default="", metavar="ID", help="Who hands this in; kept in the report.")
@click.option("--jobs", "-j", type=Jobs(), default="auto", show_default=True, metavar="N|auto", help="How many labs at once.")
@click.option("--fail-fast", is_flag=True, help="Start no more labs once one did not pass.")
@click.option("--retry-errors", type=click.IntRange(0, 20), default=0, metavar="N", help="Run again what broke, never what failed.")
@click.option("--resume", is_flag=True, help="Run only what the last run of these labs did not finish.")
@click.option("--quiet", "-q", is_flag=True, help="Say only how it ended.")
@json_option
@reports_option
@labs_option
def run(
    labs: tuple[str, ...],
    accel: Wanted,
    image: str | None,
    cold: bool,
    params: tuple[str, ...],
    answers: Path | None,
    student: str,
    jobs: int,
    fail_fast: bool,
    retry_errors: int,
    resume: bool,
    quiet: bool,
    as_json: bool,
    reports: Path,
    lab_dirs: tuple[Path, ...],
) -> None:
    """Run a lab (or several, or `all`) and write a report.

    Several labs run at once, as many as this machine has slots for (`vmlab ps`), and reports/index.html leads to their reports. Ctrl-C
    lets the labs that have begun finish; a second one stops them at once.

    \b
    Exit code: 0  every check passed (or cannot be observed on this host, with the reason)
               1  a check failed or was inconclusive
               2  the command line or a file of yours is wrong
               3  it could not run, by a fault of vmlab or of the machine
    """
    from runner.job import Job, fitting, numbered
    from runner.lab.parameters import split
    from runner.schedule import Rules

    names = collection_of(lab_dirs).names() if labs == ("all",) else list(labs)
    if not names:
        raise UsageError("there are no labs here", hint="--labs DIR names a directory that holds some")
    # Each lab of several says how to repeat itself alone; the whole command is in the index.
    command = shlex.join(["vmlab", *sys.argv[1:]])
    wanted = [
        Job(
            id=name,
            lab=lab,
            reports=reports,
            command=command,
            labs=lab_dirs,
            catalogs=catalogs_of(),
            given=split(params),
            answers=answers,
            accelerator=accel,
            image=image,
            student=student,
            cold=cold,
        )
        for name, lab in zip(numbered(names), names, strict=True)
    ]
    prepared = fitting(wanted)
    rules = Rules(fail_fast=fail_fast, retries=retry_errors)
    if len(prepared) == 1 and rules == Rules() and not resume:
        sys.exit(_one(*prepared[0], quiet=quiet, as_json=as_json))
    sys.exit(_many(prepared, rules, reports, jobs=jobs, resume=resume, quiet=quiet, as_json=as_json))


def _one(job: Job, request: RunRequest, *, quiet: bool, as_json: bool) -> int:
    """Run one lab in this process, its verdicts shown as they come."""
    from runner.live import choose_view
    from runner.run import run_lab

    view = choose_view(quiet=quiet, as_json=as_json)
    with contextlib.closing(view):
        outcome = run_lab(request, job.images(view.notice), view)
    if as_json:
        click.echo(outcome.report.model_dump_json(indent=2))
    return outcome.exit_code


def _many(
    prepared: list[tuple[Job, RunRequest]], rules: Rules, reports: Path, *, jobs: int, resume: bool, quiet: bool, as_json: bool
) -> int:
    """Run labs in processes of their own, and write the index."""
    from runner.board import choose_board
    from runner.host.capacity import capacity
    from runner.pool import ProcessPool
    from runner.report import store
    from runner.report.index import INDEX_PAGE
    from runner.schedule import Schedule

    board = choose_board(quiet=quiet, as_json=as_json)
    schedule = Schedule(prepared, ProcessPool(jobs or capacity().cpus), board, reports, rules)
    if resume:
        schedule.resume()
    with contextlib.closing(board):
        batch = schedule.run()
        board.end(batch, str(reports / INDEX_PAGE))
    if as_json:
        texts = [store.load(reports / row.report).model_dump_json(indent=2) for row in batch.rows if row.report]
        click.echo("[" + ",\n".join(texts) + "]")
    return EXIT_INTERRUPTED if batch.interrupted else batch.exit_code()
