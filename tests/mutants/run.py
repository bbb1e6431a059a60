"""Run a lab's tests once for each mutant of its checks.

Each mutant has a process of its own, forked from one that has imported pytest already, and the lab's folder a copy for each worker:
nothing in the checkout is touched. A mutant is *noticed* when a test fails, breaks, or does not end in time.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.mutate import Mutant, mutants

# A lab's tests take some seconds; a mutant that makes them take so long has been noticed.
LIMIT_S = 120
_INI = """[pytest]
addopts = --import-mode=importlib --strict-markers
markers =
    guest: boots a real guest
    slow: takes long
    browser: needs a browser
    kvm: needs an emulated host
"""


@dataclass(frozen=True)
class Task:
    """One mutant of one file of the lab."""

    file: str
    mutant: Mutant

    @property
    def key(self) -> str:
        """As a list of accepted mutants has it."""
        return f"{self.file}: {self.mutant.key}"


class NotSound(Exception):
    """The lab's tests do not pass as they are, so that they can notice nothing."""


def tasks_of(lab: Path) -> list[Task]:
    """Every mutant of the files that judge: those of the checks, and the lab's modules that they import."""
    files = sorted(judging(lab))
    return [Task(path.name, mutant) for path in files for mutant in mutants(path.read_text(encoding="utf-8"))]


def judging(lab: Path) -> set[Path]:
    """The files of a lab's checks, and what they import of the lab; not what its experiment alone imports."""
    found: set[Path] = set()
    waiting = list(lab.glob("checks*.py"))
    while waiting:
        path = waiting.pop()
        found.add(path)
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
        names = {name for node in imports for name in ([node.module] if node.module else [alias.name for alias in node.names])}
        waiting += [module for name in names if (module := lab / f"{name}.py").is_file() and module not in found]
    return found


def unnoticed(lab: Path, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, bool]]:
    """Each task as it is done, and whether no test noticed its mutant. NotSound when the tests do not pass without any."""
    with tempfile.TemporaryDirectory(prefix="vmlab-mutants-") as folder:
        context = multiprocessing.get_context("fork")
        numbers = context.Queue()
        for number in range(workers):
            numbers.put(number)
        with context.Pool(workers, _prepare, (lab, Path(folder), numbers)) as pool:
            if not pool.apply(_survives, (None,)):
                raise NotSound(lab.name)
            yield from pool.imap_unordered(_done, tasks)


_here: Path


def _prepare(lab: Path, folder: Path, numbers: multiprocessing.Queue[int]) -> None:
    """A worker's own copy of the lab."""
    global _here  # noqa: PLW0603  (A worker is told once what it works on.)
    place = folder / str(numbers.get())
    shutil.copytree(lab, place / "labs" / lab.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "pytest.ini").write_text(_INI)
    _here = place / "labs" / lab.name


def _done(task: Task) -> tuple[Task, bool]:
    return task, _survives(task)


def _survives(task: Task | None) -> bool:
    """Run the tests with this mutant, or with none, in a child process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _test(task)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _test(task: Task | None) -> int:
    # (Its default action ends the child, and nothing of the mutant can stop that.)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_S)
    if task is not None:
        path = _here / task.file
        kept = path.read_text(encoding="utf-8")
        path.write_text(task.mutant.text, encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.dont_write_bytecode = True
    root = _here.parents[1]
    os.chdir(root)
    words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-m", "not (guest or browser or slow)"]
    try:
        return int(pytest.main([*words, "-c", str(root / "pytest.ini"), f"--rootdir={root}", str(_here / "tests")]))
    finally:
        if task is not None:
            path.write_text(kept, encoding="utf-8")
