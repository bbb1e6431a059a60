"""The command line. What a command needs is imported where it is used, so that ``vmlab --help`` answers at once."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from vmlab import __version__
from vmlab.cli.author import lint, record
from vmlab.cli.controls import controls
from vmlab.cli.many import ps, worker
from vmlab.cli.options import (
    GuestOptions,
    LabName,
    catalog_option,
    collection_of,
    guest_options,
    json_option,
    labs_option,
    reports_option,
)
from vmlab.cli.run import EXIT_INTERRUPTED, merge, run
from vmlab.cli.storage import clean, image, template
from vmlab.cli.work import start, try_
from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, EXIT_PASS, EXIT_USAGE, UsageError, VmlabError
from vmlab.output import broken, complain, say, say_error, silence
from vmlab.progress import has_stuck_relay

if TYPE_CHECKING:
    pass


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vmlab")
@click.option("--verbose", is_flag=True, help="Log what the runner does, on standard error.")
@catalog_option
def cli(verbose: bool, catalogs: tuple[Path, ...]) -> None:  # noqa: ARG001  (`images_of` reads the latter)
    """Run operating-systems labs in real virtual machines, and report what was proved.

    A lab boots a guest, measures, and writes a report whose every verdict rests on evidence.

    \b
    Start with:      vmlab run zombies
    No luck?         vmlab doctor
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, format="%(relativeCreated)7d ms %(name)s: %(message)s")
    for noisy in ("paramiko", "asyncio", "qemu", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


@cli.command("list")
@json_option
@labs_option
def list_labs(as_json: bool, lab_dirs: tuple[Path, ...]) -> None:
    """List the labs."""
    collection = collection_of(lab_dirs)
    found = [collection.get(name) for name in collection.names()]
    if as_json:
        rows = [
            {"name": lab.name, "title": lab.definition.title, "summary": lab.definition.summary, "claims": list(lab.definition.claims)}
            for lab in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for lab in found:
        click.echo(f"{lab.name:<16}{lab.definition.title}\n{'':<16}{' '.join(lab.definition.summary.split())}")


@cli.command()
@click.argument("lab", type=LabName())
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it; by default standard output.")
@labs_option
def predict(lab: str, output: Path | None, lab_dirs: tuple[Path, ...]) -> None:
    """Write a form with a lab's questions, to be answered before the run (`vmlab run LAB --answers FILE`)."""
    from vmlab.lab.answers import form

    text = form(collection_of(lab_dirs).get(lab).definition)
    if output is None:
        click.echo(text, nl=False)
    elif output.exists():
        raise UsageError(f"{output} exists already", hint="name another file, or remove it first")
    else:
        with _writing(output):
            output.write_text(text)
        name = shlex.quote(str(output))
        click.echo(f"fill in {output}, then: vmlab run {lab} --answers {name}  (or: make lab LAB={lab} ANSWERS={name})")


@cli.command()
@click.argument("lab", type=LabName())
@click.option("--guest", "guest_name", default="", metavar="NAME", help="Which of the lab's guests; by default the first.")
@click.option(
    "--task", default="", metavar="NAME", help="The guest of a task, as it is when your work is tried: broken, if it is to be repaired."
)
@click.option("--root", is_flag=True, help="Be root, as the lab's scripts are.")
@guest_options
def shell(lab: str, guest_name: str, task: str, root: bool, options: GuestOptions) -> None:
    """Start a lab's guest and open a shell in it. The guest is gone when you leave."""
    from vmlab.bench import GUEST_LAB_DIR
    from vmlab.progress import Progress
    from vmlab.run.screen import choose_screen, shown
    from vmlab.run.shell import shell_guest

    progress = Progress()
    with contextlib.ExitStack() as stack:
        with shown(progress, choose_screen()):
            guest = stack.enter_context(shell_guest(options.labs().get(lab), options.choice, progress, guest_name, task))
        user = "root" if root else guest.user
        click.echo(f"{user}@{guest.name}: the lab's scripts are in {GUEST_LAB_DIR}; the guest is gone when you leave (exit).")
        sys.exit(guest.shell(user))


@cli.command()
@click.argument("lab", required=False, type=LabName())
@json_option
@reports_option
def report(lab: str | None, as_json: bool, reports: Path) -> None:
    """Show the newest report (of one lab), and where it is."""
    from vmlab.report import store
    from vmlab.report.lines import closing_lines, report_lines

    directory = store.find_latest(reports, lab)
    found = store.load(directory)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    for line in (*report_lines(found), *closing_lines(found, str(directory / "report.html"))):
        say(line)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="REPORT")
@json_option
@labs_option
def check(path: Path, as_json: bool, lab_dirs: tuple[Path, ...]) -> None:
    """Judge a report again, from its evidence alone.

    Every verdict is derived anew by the lab's checks; what the report itself claims is only compared with it. Exit code 1 when a
    verdict differs from what the report says, or the evidence does not match its digests.

    That shows verdicts without evidence, and evidence that was changed without care. It shows no forgery: the digests have no key, so
    whoever makes evidence up can compute them. To grade a run that you did not watch, run it again.
    """
    from vmlab.report import assemble, store
    from vmlab.report.lines import closing_lines, report_lines

    stored = store.load(path)
    lab = collection_of(lab_dirs).get(stored.lab.name)
    directory = path if path.is_dir() else path.parent
    problems = assemble.verify_evidence(stored, directory)
    fresh = assemble.rejudge(stored, lab.load_checks(), lab.load_tests(), definition=lab.definition)
    problems += assemble.differences(stored, fresh)
    if as_json:
        changed = {
            "lab_changed": stored.lab.digest != lab.digest,
            "guest_library_changed": stored.lab.guest_library != lab.guest_library_digest,
        }
        click.echo(json.dumps({"problems": problems, **changed, "report": fresh.model_dump(mode="json")}))
    else:
        for line in (*report_lines(fresh), *closing_lines(fresh, str(path))):
            say(line)
        if stored.lab.digest != lab.digest_with(stored.lab.guest_library):
            click.echo("note: the lab's files have changed since this report was written")
        if stored.lab.guest_library != lab.guest_library_digest:
            click.echo(f"note: vmlab {stored.run.runner_version}, which wrote this report, had another library for guest scripts")
        for problem in problems:
            click.echo(f"DIFFERS: {problem}")
        if not problems:
            click.echo("judged again: the evidence gives every verdict that the report claims")
            click.echo("note: its digests match it; they show careless edits, not forgery, since anyone can compute them")
    sys.exit(EXIT_FAIL if problems else EXIT_PASS)


@cli.command()
@click.option("--probe", is_flag=True, help="Run the KVM probe now, and show each of its counts.")
@json_option
def doctor(probe: bool, as_json: bool) -> None:
    """Say what this machine is and can, what is missing, and how to get it."""
    from vmlab.host import doctor as examination

    diagnosis = examination.examine(probe=probe)
    if as_json:
        click.echo(examination.to_json(diagnosis))
    else:
        examination.show(diagnosis)
    sys.exit(EXIT_PASS if diagnosis.can_run else EXIT_COULD_NOT_RUN)


@cli.command()
@click.argument("name")
@click.option("--in", "directory", type=click.Path(path_type=Path), default=None, metavar="DIR", help="Where; by default labs/ here.")
def new(name: str, directory: Path | None) -> None:
    """Write the skeleton of a lab: it runs, has a check that can fail, and a test that sees it fail."""
    from vmlab.lab.skeleton import create

    made = create(name, directory or Path("labs"))
    click.echo(f"wrote {made}\ntry it: vmlab run {name} --labs {shlex.quote(str(made.parent))}")


@cli.command()
@click.argument("shell_name", type=click.Choice(["bash", "zsh", "fish"]), metavar="[bash|zsh|fish]")
def completion(shell_name: str) -> None:
    """Print the shell's completion script: add `eval "$(vmlab completion bash)"` to your ~/.bashrc."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell_name)
    if found is None:
        raise UsageError(f"no completion is known for {shell_name}", hint="bash, zsh and fish are")
    click.echo(found(cli, {}, "vmlab", "_VMLAB_COMPLETE").source())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}", hint="name a file in a directory you may write to") from exc


for _command in (start, try_, run, merge, controls, record, lint, worker, image, template, clean, ps):
    cli.add_command(_command)


# What writing to standard output may fail with. (Errors of files that a command opens bear the file's name.)
_CANNOT_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line, with every outcome as an exit code and no traceback for what a user can cause."""
    # A runner that is asked to end (by `kill`, by CI, by a closed terminal) ends its guests as with Ctrl-C. What was ignored at the start
    # (SIGHUP by nohup) stays ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.exit(_closed(_main()))


def _closed(status: int) -> int:
    """Write out what is left for standard output at the end of a command that ended with this status; returns the status to exit with.

    Output that is lost is an error of a command whose outcome it is. A reader that has gone is none: it had what it wanted.
    """
    if has_stuck_relay():
        # A screen stands still in the middle of a line, and Python would wait for it for ever.
        os._exit(status)
    why = broken(sys.stdout)
    if why is None:
        return status
    if isinstance(why, BrokenPipeError):
        silence(sys.stdout)
        return status
    return _unwritten(why) if status == EXIT_PASS else status


def _unwritten(why: OSError) -> int:
    """Say that what a command had to say is lost; returns the exit code for it."""
    silence(sys.stdout)
    complain(f"vmlab: cannot write to standard output: {why.strerror or why}")
    complain("       give it another place; what a run found is in its report all the same")
    return EXIT_COULD_NOT_RUN


def _main() -> int:
    try:
        return _dispatch()
    except VmlabError as exc:
        say_error(exc)
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("vmlab: interrupted; everything it started is ended")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`vmlab list | head`); nothing is left to say and nobody to say it to.
        return EXIT_PASS
    except Exception as exc:  # noqa: BLE001
        if isinstance(exc, OSError) and exc.filename is None and exc.errno in _CANNOT_BE_WRITTEN:
            return _unwritten(exc)
        # The last resort: Python's own exit code for this would read as a failed check.
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
        complain("vmlab: this is a bug in vmlab; the lines above say where")
        return EXIT_COULD_NOT_RUN


def _dispatch() -> int:
    """Let click run the command; its ways of ending become exit codes."""
    try:
        cli.main(standalone_mode=False, prog_name="vmlab")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else EXIT_PASS
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return EXIT_USAGE
    except click.ClickException as exc:
        where = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "vmlab"
        complain(f"vmlab: {exc.format_message()}")
        complain(f"       see: {where} --help")
        return EXIT_USAGE
    return EXIT_PASS


if __name__ == "__main__":
    main()
