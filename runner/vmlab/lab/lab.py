"""A lab's folder: its definition, its files and its parts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from vmlab.errors import UsageError
from vmlab.lab import library
from vmlab.lab.checks import Check, checks_of
from vmlab.lab.definition import LabDefinition
from vmlab.lab.experiment import Experiment, Function, experiment_of, tasks_of
from vmlab.lab.loading import LabPackage
from vmlab.lab.task_tests import TaskTest, doubts_about_tests, tests_of
from vmlab.lab.worlds import Doubt, doubts_about_checks, doubts_about_parts, refuse
from vmlab.suggest import nearest
from vmlab.yamlfile import shown

TASK_TESTS = "checks_tasks.py"
TASK_TRIALS = "experiment_tasks.py"
"""Where a lab with tasks declares their tests, and how they are tried."""


class Lab:
    """A lab's folder: its definition and its parts. `vmlab.lab.collection` finds it."""

    def __init__(self, name: str, directory: Path, definition: LabDefinition) -> None:
        self.name = name
        self.directory = directory
        self.definition = definition
        self._loaded: tuple[str, LabPackage] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of the lab's files and of the library beside its guest scripts: of all that runs.

        Its tests and what editors and Python leave behind are not part of it. Another vmlab may bring another library, and then the same
        lab has another digest: `digest_with` and `guest_library_digest` tell which of the two has changed.
        """
        return self.digest_with(self.guest_library_digest)

    @property
    def guest_library_digest(self) -> str:
        """SHA-256 over the library that is put beside the lab's guest scripts; empty when the lab has none."""
        return library.digest() if self.guest_files() else ""

    def digest_with(self, guest_library_digest: str) -> str:
        """What the digest is, or would be, beside a library of this digest. (Without any: what it was in vmlab before there was one.)"""
        whole = hashlib.sha256()
        for path in self.files():
            name = path.relative_to(self.directory)
            if name.parts[0] == "tests":
                continue
            try:
                content = path.read_bytes()
            except OSError as exc:
                raise UsageError(f"{shown(path)} cannot be read: {exc.strerror}") from exc
            whole.update(f"{name.as_posix()}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        if guest_library_digest:
            whole.update(f"{library.NAME}\0{guest_library_digest}\n".encode())
        return whole.hexdigest()

    def files(self) -> list[Path]:
        """All files of the lab, in the order of their names, without what editors and Python leave behind."""
        return _files(self.directory)

    def guest_files(self) -> list[Path]:
        """What is put into the guest, beside the library: every file under ``guest/``, in the order of their names.

        UsageError when one of them would lie where the library does.
        """
        found = _files(self.directory / "guest")
        for path in found:
            if path.relative_to(self.directory / "guest").parts[0].partition(".")[0] == library.NAME:
                raise UsageError(
                    f"{shown(path)} has the name of the library that lies beside guest scripts",
                    hint="call it otherwise; labs/README.md tells of it",
                )
        return found

    def load_checks(self) -> list[Check]:
        """Read ``checks.py``, then each ``checks_*.py``; UsageError names what is wrong with them, or between them and ``lab.yaml``."""
        package, checks = self._package(), list[Check]()
        others = [path for path in sorted(self.directory.glob("checks_*.py")) if path.name != TASK_TESTS]
        for path in [self.directory / "checks.py", *others]:
            checks += self._read_checks(package.module(path), path, checks)
        self._match_questions([each.id for each in checks])
        refuse(self.directory / "lab.yaml", doubts_about_checks(self.definition, checks), "checks", [each.id for each in checks])
        return checks

    def modules(self) -> list[tuple[Path, ModuleType]]:
        """The lab's Python files that lie beside ``lab.yaml``, each run once; UsageError names what is wrong with one."""
        package = self._package()
        return [(path, package.module(path)) for path in sorted(self.directory.glob("*.py")) if path.stem != "__init__"]

    def _package(self) -> LabPackage:
        """The lab's modules. They are run anew once a file of the lab has changed; until then experiment and checks share them."""
        digest = self.digest
        if self._loaded is None or self._loaded[0] != digest:
            self._loaded = digest, LabPackage(self.directory)
        return self._loaded[1]

    def _read_checks(self, module: ModuleType, path: Path, above: list[Check]) -> list[Check]:
        """The checks of one file, which may rest on those ``above``."""
        try:
            checks = checks_of(module, above)
        except ValueError as exc:
            raise UsageError(f"{shown(path)}: {exc}") from exc
        if not checks:
            raise UsageError(f"{shown(path)} declares no checks", hint="decorate a function: @check(points=1, claim=...)")
        for each in checks:
            at = f"{shown(path)}:{each.function.__code__.co_firstlineno}: the check {each.id}"
            if each.claim not in self.definition.claims:
                wrong = f"{at} tests the claim {each.claim!r}, which lab.yaml does not list{nearest(each.claim, self.definition.claims)}"
                raise UsageError(wrong, hint="claims of this lab: " + ", ".join(self.definition.claims))
            if not (math.isfinite(each.points) and each.points >= 0):
                raise UsageError(f"{at} is worth {each.points} points: expected a number that is not negative")
        return checks

    def load_experiment(self) -> Experiment:
        """Read ``experiment.py``; UsageError names what is wrong with it, or between its parts and the controls of ``lab.yaml``."""
        path = self.directory / "experiment.py"
        try:
            found = experiment_of(self._package().module(path))
        except ValueError as exc:
            raise UsageError(f"{shown(path)}: {exc}", hint="labs/README.md shows one") from exc
        refuse(self.directory / "lab.yaml", doubts_about_parts(self.definition, found), "parts", found.names)
        return found

    def load_tests(self) -> list[TaskTest]:
        """Read the tests of the lab's tasks; UsageError names what is wrong with them, or between them and ``lab.yaml``."""
        if not self.definition.tasks:
            return []
        path = self.directory / TASK_TESTS
        try:
            tests = tests_of(self._package().module(path))
        except ValueError as exc:
            raise UsageError(f"{shown(path)}: {exc}") from exc
        for each in tests:
            at = f"{shown(path)}:{each.check.function.__code__.co_firstlineno}: the test {each.check.id}"
            if each.task not in self.definition.tasks:
                wrong = f"{at} is of the task {each.task!r}, which lab.yaml does not list{nearest(each.task, self.definition.tasks)}"
                raise UsageError(wrong, hint="tasks of this lab: " + ", ".join(self.definition.tasks))
            if not (math.isfinite(each.check.points) and each.check.points > 0):
                raise UsageError(f"{at} is worth {each.check.points} points: expected a number more than 0")
        doubts: list[Doubt] = list(doubts_about_tests(self.definition.tasks, tests))
        refuse(self.directory / "lab.yaml", doubts, "tasks", list(self.definition.tasks))
        return tests

    def load_trials(self) -> dict[str, Function]:
        """How the lab's tasks are tried, by name; UsageError names what is wrong with one, or that one is missing."""
        if not self.definition.tasks:
            return {}
        path = self.directory / TASK_TRIALS
        trials = tasks_of(self._package().module(path))
        missing = [name for name in self.definition.tasks if name not in trials]
        if missing:
            raise UsageError(f"{shown(path)} has no function {missing[0]}(bench) marked with @task", hint="it tries the task of that name")
        more = [name for name in trials if name not in self.definition.tasks]
        if more:
            wrong = f"{shown(path)} tries the task {more[0]!r}, which lab.yaml does not list{nearest(more[0], self.definition.tasks)}"
            raise UsageError(wrong, hint="tasks of this lab: " + ", ".join(self.definition.tasks))
        return trials

    def _match_questions(self, checks: list[str]) -> None:
        wrong: list[Doubt] = [
            (
                ("questions", number, "check"),
                f"the question {question.id} is shown with the check {question.check!r}, which checks.py does not declare"
                + nearest(question.check, checks),
            )
            for number, question in enumerate(self.definition.questions)
            if question.check and question.check not in checks
        ]
        refuse(self.directory / "lab.yaml", wrong, "checks", checks)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in _walk(directory) if path.is_file())


def _walk(directory: Path) -> Iterable[Path]:
    for path in directory.rglob("*"):
        parts = path.relative_to(directory).parts
        if not any(part.startswith(".") or part == "__pycache__" or part.endswith(("~", ".pyc")) for part in parts):
            yield path
