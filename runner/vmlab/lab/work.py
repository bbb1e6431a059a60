"""A student's work on a lab: the folder that ``vmlab start`` writes, and what of it is handed to a run.

    work/<lab>/tasks.md           what is asked, of all tasks
    work/<lab>/<task>/...         the student's files
    work/<lab>/answers.yaml       the predictions

Nothing that is there is ever written over. What is read is text, of limited size, and no link: it is carried by the report.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmlab.errors import UsageError
from vmlab.lab.answers import form
from vmlab.lab.lab import Lab
from vmlab.lab.task import FILE_NAME, Task
from vmlab.suggest import nearest
from vmlab.yamlfile import shown

FILE_LIMIT_BYTES = 64 << 10
"""A student's file is smaller."""

TASK_LIMIT_BYTES = 256 << 10
"""And so are all files of a task together, because the report carries them."""

MOST_FILES = 16

# What editors, Python and compilers leave behind beside a file, and desktops in each folder.
_LEFT_BEHIND = re.compile(r"^(\..*|.*~|#.*#|.*\.(pyc|pyo|swp|swo|orig|bak|o|out)|a\.out|__pycache__|Thumbs\.db|desktop\.ini)$")


@dataclass(frozen=True)
class Attempt:
    """A student's files for a task, as text with plain line ends."""

    task: str
    files: Mapping[str, str]
    program: str
    """The file that is run; empty where the task has none."""
    changed: bool
    """Whether they differ from the starter: if not, the task was not attempted."""
    notes: Sequence[str] = ()
    """What was left out or read otherwise than it stands there, a sentence each."""


def default_folder(lab: Lab) -> Path:
    """Where a student's work on a lab lies unless ``--work`` says otherwise: the place is of the directory in which vmlab is called."""
    return Path("work") / lab.name


# --- start ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """What `start` wrote, and what it found there and left as it was; names are those below the folder."""

    written: Sequence[str]
    kept: Sequence[str]


def start(lab: Lab, folder: Path) -> Started:
    """Write what the folder lacks. UsageError when the lab asks for no work, or when something cannot be written."""
    wanted = _wanted(lab)
    if not wanted:
        raise UsageError(f"the lab {lab.name} asks for no work of your own", hint=f"run it: vmlab run {lab.name}")
    written, kept = [], []
    for name, content in wanted.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
            written.append(name)
        except FileExistsError:
            kept.append(name)
        except OSError as exc:
            raise UsageError(f"cannot write {shown(path)}: {exc.strerror}", hint="name another folder: --work DIR") from exc
    return Started(written, kept)


def _wanted(lab: Lab) -> dict[str, str]:
    """All files that the folder should have, by name."""
    definition, found = lab.definition, dict[str, str]()
    if definition.tasks:
        found["tasks.md"] = asked(lab)
    for name in definition.tasks:
        found |= {f"{name}/{file}": text for file, text in starter(lab, name).items()}
    if definition.questions:
        found["answers.yaml"] = form(definition)
    return found


def asked(lab: Lab) -> str:
    """What is asked of a student in all tasks, in Markdown."""
    parts = [f"# {lab.definition.title}: your tasks\n"]
    for name, task in lab.definition.tasks.items():
        text = _read_own(lab.directory / "tasks" / name / "task.md").strip()
        files = ", ".join(f"`{name}/{file}`" for file in starter(lab, name))
        parts.append(
            f"## {task.title} (`{name}`, {task.points:g} points)\n\nYour files: {files}. Try them: `vmlab try {lab.name} {name}`, "
            f"or `make try LAB={lab.name} TASK={name}`.\n\n{text}\n"
        )
    return "\n".join(parts)


def starter(lab: Lab, task: str) -> dict[str, str]:
    """The files that a student begins a task with, by name. UsageError, for the lab's author, when there are none or strange ones."""
    directory = lab.directory / "tasks" / task / "starter"
    try:
        paths = sorted(path for path in directory.iterdir() if not _LEFT_BEHIND.match(path.name))
    except OSError as exc:
        raise UsageError(f"{shown(directory)} cannot be read: {exc.strerror}", hint="a task's starter files lie there") from exc
    wrong = next((path for path in paths if not re.match(FILE_NAME, path.name) or not path.is_file()), None)
    if wrong is not None or not paths:
        what = f"{shown(wrong)} is no plain file with a plain name" if wrong else f"{shown(directory)} holds no files"
        raise UsageError(what, hint="a task's starter consists of plain files, in no folders")
    return {path.name: _read_own(path) for path in paths}


def _read_own(path: Path) -> str:
    """A text file of the lab's."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise UsageError(f"{shown(path)} cannot be read: {why}", hint="the lab's author must mend this") from exc


# --- what is handed to a run --------------------------------------------------------------------------------------------------------


def task_of(lab: Lab, name: str) -> Task:
    """A task by its name; UsageError, with the nearest name, when the lab has none of it."""
    tasks = lab.definition.tasks
    if name not in tasks:
        has = f"it has: {', '.join(tasks)}" if tasks else "it has no tasks"
        raise UsageError(f"the lab {lab.name} has no task named {name[:80]!r}{nearest(name, tasks)}", hint=has)
    return tasks[name]


def attempts(lab: Lab, folder: Path, names: Sequence[str] = (), *, required: bool = False) -> list[Attempt]:
    """A student's files for these tasks, by default for all, in the order of ``lab.yaml``; tasks whose folder is missing are left out.

    UsageError names the first file that cannot be taken, or that there is no such folder; with ``required``, a task's missing folder too.
    """
    for name in names:
        task_of(lab, name)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {shown(folder)}", hint=f"vmlab start {lab.name} writes it; or name another one: --work DIR")
    found = []
    for name, task in lab.definition.tasks.items():
        if names and name not in names:
            continue
        if (folder / name).is_dir():
            found.append(attempt(folder / name, name, task, starter(lab, name)))
        elif required:
            raise UsageError(f"there is no folder {shown(folder / name)}", hint=f"vmlab start {lab.name} writes what is missing")
    return found


def attempt(folder: Path, name: str, task: Task, begun: Mapping[str, str]) -> Attempt:
    """A student's files for one task, compared with the starter. UsageError names a file that cannot be taken, and why."""
    notes: list[str] = []
    files = {path.name: _read(path, notes) for path in _listed(folder, notes)}
    total = sum(len(text.encode()) for text in files.values())
    if total > TASK_LIMIT_BYTES:
        raise UsageError(
            f"the files in {shown(folder)} have {total:,} bytes together; {TASK_LIMIT_BYTES:,} are allowed",
            hint="leave only what the task needs there",
        )
    changed = sorted(file for file, text in files.items() if text != begun.get(file))
    program = _program(folder, task, files, changed)
    if program and not files[program].strip():
        raise UsageError(
            f"{shown(folder / program)} is empty", hint="write the program there; vmlab start brings the starter back once it is removed"
        )
    return Attempt(name, files, program, bool(changed), notes)


def _program(folder: Path, task: Task, files: Mapping[str, str], changed: Sequence[str]) -> str:
    """The file that is run, of those that may be; empty where there is none to run."""
    there = [each for each in task.program if each in files]
    if task.program and not there:
        raise UsageError(
            f"{shown(folder)} has no {' and no '.join(task.program)}",
            hint="vmlab start writes what is missing; its name must stay as it is",
        )
    written = [each for each in there if each in changed]
    if len(written) > 1:
        raise UsageError(
            f"both {' and '.join(written)} in {shown(folder)} were changed", hint="the task wants one of them: remove the other"
        )
    return (written or there or [""])[0]


def _listed(folder: Path, notes: list[str]) -> Iterator[Path]:
    """The files of a folder that count, in the order of their names."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as exc:
        raise UsageError(f"{shown(folder)} cannot be read: {exc.strerror}", hint="look at its permissions") from exc
    paths = [path for path in paths if not _LEFT_BEHIND.match(path.name)]
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            notes.append(f"The folder {path.name} was left out: a task's files lie in no folders.")
    files = [path for path in paths if path.is_symlink() or not path.is_dir()]
    strange = next((path for path in files if not re.match(FILE_NAME, path.name)), None)
    if strange is not None:
        raise UsageError(
            f"{shown(folder)} has a file named {strange.name[:80]!r}",
            hint="names of up to 64 letters, digits, dots, dashes and underscores are taken",
        )
    if len(files) > MOST_FILES:
        raise UsageError(f"{shown(folder)} has {len(files)} files; {MOST_FILES} are allowed", hint="leave only what the task needs there")
    yield from files


def _read(path: Path, notes: list[str]) -> str:
    """A student's file as text with plain line ends."""
    content = _content(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{shown(path)} is UTF-16", hint="save it as UTF-8: in Notepad, Save as, Encoding")
    marked = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = marked.decode()
    except UnicodeDecodeError as exc:
        line = marked[: exc.start].count(b"\n") + 1
        raise UsageError(
            f"{shown(path)}:{line}: this is no text in UTF-8", hint="save it as UTF-8; a compiled program is not taken"
        ) from exc
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(
            f"{shown(path)}:{line}: it holds a NUL byte, which no text has", hint="a compiled program is not taken: hand in its source"
        )
    if marked != content:
        notes.append(f"{path.name} began with a byte order mark, which was left out.")
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if plain != text:
        notes.append(f"{path.name} had line ends of Windows, which were changed: #! and here-documents would not work with them.")
    return plain


def _content(path: Path) -> bytes:
    """A file's bytes, never through a link (it could lead to any file of whoever runs this), never from a device or a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if path.is_symlink():
            raise UsageError(f"{shown(path)} is a link", hint="put the file itself there") from exc
        raise UsageError(f"{shown(path)} cannot be read: {exc.strerror}", hint="look at its permissions") from exc
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(os.fdopen(descriptor, "rb"))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{shown(path)} is no ordinary file", hint="put a text file there")
        content = file.read(FILE_LIMIT_BYTES + 1)
    if len(content) > FILE_LIMIT_BYTES:
        raise UsageError(
            f"{shown(path)} is larger than {FILE_LIMIT_BYTES:,} bytes", hint="a task's files are small: hand in source text alone"
        )
    return content
