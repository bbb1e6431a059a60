"""`vmlab record` and `vmlab lint`: what the author of a lab needs beside running it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmlab.cli.options import GuestOptions, LabName, collection_of, guest_options, labs_option, reports_option
from vmlab.errors import EXIT_FAIL, EXIT_PASS, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from vmlab.lab.lab import Lab
    from vmlab.report.model import Report


@click.command()
@click.argument("labs", nargs=-1, required=True, type=LabName(), metavar="LAB...")
@click.option("--unread", is_flag=True, help="List the places of the sound evidence that no check looks at.")
@labs_option
def lint(labs: tuple[str, ...], unread: bool, lab_dirs: tuple[Path, ...]) -> None:
    """Look for what does not fit together in the files of a lab (or several, or `all`). Nothing is run.

    lab.yaml against the checks and the experiment; the places of questions and pictures against the sound set (tests/sound.json); whether
    guest scripts compile under the guests' Python or shell; README.md and tests. Exit code 2 when anything is wrong.
    """
    from vmlab.lab.lint import lint as look

    collection = collection_of(lab_dirs)
    faults = 0
    for name in collection.names() if labs == ("all",) else labs:
        folder = collection.folder(name)
        found, sound = look(folder)
        faults += len(found)
        for each in found:
            click.echo(f"{each.what}\n       {each.hint}" if each.hint else each.what)
        nobody = sound.unread() if sound is not None and not found else []
        if not found and sound is not None:
            seen = f"{len(sound.names)} checks, {len(sound.lab.guest_files())} guest files"
            click.echo(f"{name}: nothing is wrong ({seen}; no check looks at {len(nobody)} places of the sound evidence)")
        for place in nobody if unread else ():
            click.echo(f"  {place}")
    sys.exit(EXIT_USAGE if faults else EXIT_PASS)


@click.command()
@click.argument("name", type=LabName(), metavar="LAB")
@click.option("--report", "recorded", type=click.Path(path_type=Path), metavar="REPORT", help="Take this report's evidence; run nothing.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the lab; may be repeated.")
@reports_option
@guest_options
def record(name: str, recorded: Path | None, params: tuple[str, ...], reports: Path, options: GuestOptions) -> None:
    """Run a lab and keep its evidence as the sound set of its tests: LAB/tests/sound.json.

    What is kept are the observations, the parameters, and what ran where. Every check must pass (or not be observable here), or nothing is
    written. Tests read it with vmlab.lab.controls.
    """
    from vmlab.report import store
    from vmlab.report.sound import save_sound, unsound

    lab = options.labs().get(name)
    if recorded is not None and params:
        raise UsageError("--param is for a run, and --report takes the evidence of one that is over", hint="leave one of them out")
    found = store.load(recorded) if recorded is not None else _ran(lab, params, reports, options)
    if recorded is None and unsound(found):
        click.echo(f"nothing was written, because this run is not sound: {unsound(found)[0]}")
        sys.exit(found.verdict().exit_code or EXIT_FAIL)
    path, not_shown = save_sound(found, lab)
    if found.lab.digest != lab.digest:
        click.echo("note: the lab's files have changed since this report was written")
    if not_shown:
        click.echo(f"note: not observable in this run, so that its evidence shows nothing of them: {', '.join(not_shown)}")
    click.echo(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")


def _ran(lab: Lab, params: tuple[str, ...], reports: Path, options: GuestOptions) -> Report:
    """The report of a run of the lab."""
    from vmlab.lab.parameters import split
    from vmlab.many.job import fitting
    from vmlab.progress import Progress
    from vmlab.run.lab import run_lab
    from vmlab.run.request import Job
    from vmlab.run.screen import choose_screen, shown

    command = shlex.join(["vmlab", *sys.argv[1:]])
    job = Job(lab.name, lab.name, reports, command, labs=options.lab_dirs, given=split(params), choice=options.choice)
    (request,) = fitting([job])
    progress = Progress()
    with shown(progress, choose_screen()):
        return run_lab(request, progress).report
