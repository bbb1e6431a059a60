"""`vmlab start` and `vmlab try`: a student's own work on a lab."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from vmlab.cli.options import GuestOptions, LabName, collection_of, guest_options, json_option, labs_option

work_option = click.option(
    "--work", "work", type=click.Path(path_type=Path), metavar="DIR", help="The folder with your work; by default work/LAB."
)


@click.command()
@click.argument("name", type=LabName(), metavar="LAB")
@work_option
@labs_option
def start(name: str, work: Path | None, lab_dirs: tuple[Path, ...]) -> None:
    """Write a lab's tasks, starter files and the form for predictions into work/LAB.

    What is there already stays as it is: a second `vmlab start` adds what is missing.
    """
    from vmlab.lab import work as student
    from vmlab.yamlfile import shown

    lab = collection_of(lab_dirs).get(name)
    folder = work or student.default_folder(lab)
    started = student.start(lab, folder)
    for each in started.written:
        click.echo(f"wrote {shown(folder / each)}")
    for each in started.kept:
        click.echo(f"kept {shown(folder / each)}, which was there already")
    task = next(iter(lab.definition.tasks), "")
    named = f" --work {shlex.quote(str(work))}" if work else ""
    if task:
        click.echo(f"read {shown(folder / 'tasks.md')}, then try your work: vmlab try {name} {task}{named}")
    else:
        click.echo(
            f"fill in {shown(folder / 'answers.yaml')}, then: vmlab run {name} --answers {shlex.quote(shown(folder / 'answers.yaml'))}"
        )


@click.command("try")
@click.argument("name", type=LabName(), metavar="LAB")
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@work_option
@json_option
@guest_options
def try_(name: str, tasks: tuple[str, ...], work: Path | None, as_json: bool, options: GuestOptions) -> None:
    """Try your work on a lab's tasks (by default on all) in fresh guests, and show each test as it ends. No report is written.

    \b
    Exit code: 0  every test passed
               1  a test failed, or the task was not attempted
               2  a file of yours cannot be taken, or there is no such task
               3  it could not be tried, by a fault of vmlab or of the machine
    """
    from vmlab.progress import Progress
    from vmlab.report.lines import task_lines
    from vmlab.run.request import Job, prepare_trial
    from vmlab.run.screen import choose_screen, shown
    from vmlab.run.tasks import exit_code, try_alone

    job = Job(id=name, lab=name, reports=Path(), command="", labs=options.lab_dirs, work=work, choice=options.choice)
    request, progress = prepare_trial(job, tasks), Progress()
    with shown(progress, None if as_json else choose_screen()):
        parts = try_alone(request, progress)
    if as_json:
        click.echo("[" + ",\n".join(part.model_dump_json(indent=2) for part in parts) + "]")
    else:
        for part in parts:
            for line in task_lines(part):
                click.echo(line)
    sys.exit(exit_code(parts))
