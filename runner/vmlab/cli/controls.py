"""`vmlab controls`: whether a lab's checks fail where its claims are false."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmlab.cli.options import GuestOptions, LabName, guest_options, json_option, reports_option
from vmlab.cli.run import EXIT_INTERRUPTED, Jobs
from vmlab.errors import EXIT_PASS, UsageError

if TYPE_CHECKING:
    from vmlab.many.worlds import Task


@dataclass(frozen=True)
class ControlsOptions:
    """The options of `vmlab controls`, by their names there."""

    worlds: tuple[str, ...]
    params: tuple[str, ...]
    jobs: int
    """How many worlds at once; 0: as many as this machine has slots for."""
    retry_errors: int
    quiet: bool
    as_json: bool
    reports: Path
    options: GuestOptions

    @property
    def base(self) -> Path:
        """Where the matrices go, a folder a lab."""
        return self.reports / "controls"

    @property
    def command(self) -> str:
        """What was typed, for reports."""
        return shlex.join(["vmlab", *sys.argv[1:]])

    def tasks(self, lab: str) -> list[Task]:
        """The worlds of a lab, looked at before any is started."""
        from vmlab.lab.parameters import split
        from vmlab.many.worlds import tasks_of
        from vmlab.run.request import Job

        guests = self.options
        job = Job(
            id=lab,
            lab=lab,
            reports=self.base,
            command=self.command,
            labs=guests.lab_dirs,
            given=split(self.params),
            choice=guests.choice,
        )
        return tasks_of(job, self.worlds)


@click.command()
@click.argument("labs", nargs=-1, required=True, type=LabName(), metavar="LAB...")
@click.option("--world", "worlds", multiple=True, metavar="NAME", help="Run this world only (`sound`, or a control's); may be repeated.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the lab in every world; may be repeated.")
@click.option("--jobs", "-j", type=Jobs(), default=1, show_default=True, metavar="N|auto", help="How many worlds at once.")
@click.option("--retry-errors", type=click.IntRange(0, 20), default=0, metavar="N", help="Run again what broke.")
@click.option("--quiet", "-q", is_flag=True, help="Say a line a world, and the table.")
@json_option
@reports_option
@guest_options
def controls(labs: tuple[str, ...], **given: Any) -> None:
    """Run a lab (or several, or `all` that have controls) in the sound world and in every world that a control of its lab.yaml breaks.

    Shows which check came out how in which world. The same is written to reports/controls/LAB/controls.json and controls.html, beside a
    report a world. A world in which a check is inconclusive that should not be is run once more.

    \b
    Exit code: 0  green: each check passed in the sound world and failed in a broken one, and exactly those named did
               1  not green
               2  the command line or a file of yours is wrong
               3  the run of a world broke
    """
    from vmlab.host.capacity import capacity
    from vmlab.many.board import board_with
    from vmlab.many.pool import ProcessPool
    from vmlab.many.worlds import JsonTable, Trials
    from vmlab.progress import Progress
    from vmlab.run.screen import shown

    asked = ControlsOptions(**given)
    trials = Trials([task for name in _names(labs, asked.options) for task in asked.tasks(name)], asked.base, asked.command)
    progress = Progress()
    with shown(progress, JsonTable() if asked.as_json else board_with(trials.words, quiet=asked.quiet)):
        for line in trials.without_control:
            progress.notice(line)
        matrices, interrupted = trials.run(ProcessPool(asked.jobs or capacity().cpus), progress, asked.retry_errors)
    sys.exit(EXIT_INTERRUPTED if interrupted else max((matrix.exit_code() for matrix in matrices), default=EXIT_PASS))


def _names(labs: tuple[str, ...], options: GuestOptions) -> list[str]:
    """The labs that are meant, each once."""
    if labs != ("all",):
        return list(dict.fromkeys(labs))
    collection = options.labs()
    found = [name for name in collection.names() if collection.get(name).definition.controls]
    if not found:
        raise UsageError("there are no labs with controls here", hint="labs/README.md tells how lab.yaml declares them")
    return found
