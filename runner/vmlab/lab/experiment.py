"""A lab's experiment: one function, or named parts, of which a run may leave some out.

A lab's ``experiment.py`` has ``def experiment(bench)``, or functions marked as its parts, which are run in the order of the text::

    from vmlab.bench import Bench, part

    @part
    def growth(bench: Bench) -> None:
        \"\"\"Map memory in a guest and touch it piece by piece.\"\"\"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from vmlab.errors import UsageError
from vmlab.suggest import nearest

Function = Callable[[Any], None]
"""What an experiment consists of. The bench belongs to the other wing, so this one does not know its type."""

Marked = TypeVar("Marked", bound=Function)


@dataclass(frozen=True)
class ExperimentPart:
    """One part: ``name`` is its function's, ``title`` the first line of the docstring, which names the phase that it is."""

    name: str
    title: str
    function: Function


def part(function: Marked) -> Marked:
    """Declare a part of the experiment. TypeError when it has no docstring."""
    text = inspect.getdoc(function)
    if not text:
        raise TypeError(f"the part {function.__name__} needs a docstring: its first line names the phase of the run")
    title = text.splitlines()[0].strip().removesuffix(".")
    function.__vmlab_part__ = ExperimentPart(function.__name__, title, function)  # type: ignore[attr-defined]
    return function


def task(function: Marked) -> Marked:
    """Declare how a task is tried: a function of ``experiment_tasks.py`` with the task's name. TypeError when it has no docstring."""
    text = inspect.getdoc(function)
    if not text:
        raise TypeError(f"the task {function.__name__} needs a docstring: it says what is done with the student's files")
    function.__vmlab_task__ = function.__name__  # type: ignore[attr-defined]
    return function


def tasks_of(module: ModuleType) -> dict[str, Function]:
    """How the tasks that a module declares are tried, by name, in the order of its text."""
    return {member.__vmlab_task__: member for member in vars(module).values() if hasattr(member, "__vmlab_task__")}


@dataclass(frozen=True)
class Experiment:
    """What a run does with its bench: all of it, or the parts that were ``chosen``."""

    parts: Sequence[ExperimentPart] = ()
    """In the order of the text; none: the experiment is one function."""
    whole: Function | None = None
    left_out: Sequence[str] = ()
    """Names of parts that are not run."""

    @property
    def names(self) -> list[str]:
        """The parts by name, those that are left out too; none where the experiment has no parts."""
        return [each.name for each in self.parts]

    @property
    def chosen(self) -> list[str]:
        """The parts that are run, by name."""
        return [name for name in self.names if name not in self.left_out]

    def only(self, names: Sequence[str]) -> Experiment:
        """The same with these parts alone; no names: all of it. UsageError for one that it does not have."""
        wrong = self.unknown(names)
        if wrong:
            raise UsageError(wrong, hint=f"parts of this experiment: {', '.join(self.names)}" if self.parts else "leave --part out")
        return Experiment(self.parts, self.whole, [name for name in self.names if names and name not in names])

    def unknown(self, names: Sequence[str]) -> str:
        """What is wrong with the names of parts: the first that there is not; empty when nothing is."""
        for name in names:
            if not self.parts:
                return f"the experiment has no part named {name[:80]!r}: it is not in parts"
            if name not in self.names:
                return f"the experiment has no part named {name[:80]!r}{nearest(name, self.names)}"
        return ""

    def __call__(self, bench: Any) -> None:
        """Run it; each part is a phase of the run."""
        if self.whole is not None:
            self.whole(bench)
        for each in self.parts:
            if each.name not in self.left_out:
                with bench.phase(each.title):
                    each.function(bench)


def experiment_of(module: ModuleType) -> Experiment:
    """The experiment that a module declares. ValueError when it declares none, or both a function and parts."""
    marked: list[ExperimentPart] = [member.__vmlab_part__ for member in vars(module).values() if hasattr(member, "__vmlab_part__")]
    parts = list(dict.fromkeys(marked))
    whole: Function | None = getattr(module, "experiment", None)
    if parts and whole is not None:
        raise ValueError("it has a function experiment(bench) and parts; it is one or the other")
    if not parts and not callable(whole):
        raise ValueError("it has no function experiment(bench), and no parts")
    return Experiment(parts, whole)
