"""What ``lab.yaml`` says of a task: work of the student's own, and what its folder ``tasks/<id>/`` holds.

tasks/<id>/task.md      what is asked
tasks/<id>/starter/     the files that a student begins with; work that is still the same has not been attempted
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from vmlab.lab.strict import Id, Strict, Text

FILE_NAME = r"^[A-Za-z0-9_@][A-Za-z0-9._@-]{0,63}$"
"""Names of a student's files: plain ones, and those of units ("worker@.service"); no folders, and nothing hidden."""

FileName = Annotated[str, Field(pattern=FILE_NAME)]

LANGUAGES = {".py": "Python", ".sh": "sh", ".c": "C"}
"""What a program may be written in, by the end of its file's name."""


class TaskKind(StrEnum):
    """What a student makes."""

    PROGRAM = "program"
    REPAIR = "repair"


SCRIPT_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"


class TaskLimits(Strict):
    """What a student's program may take while it is tried."""

    time_s: float = Field(default=10.0, gt=0, le=600, description="seconds of the guest's time, each time that it is started")
    memory_mib: int = Field(default=64, ge=4, le=1024, description="memory of all its processes together, in MiB")
    output_kib: int = Field(default=64, ge=1, le=1024, description="what it may print, in KiB")
    processes: int = Field(default=64, ge=1, le=4096, description="how many processes and threads it may have at once")


class Task(Strict):
    """A task: what it is called and worth, and under which conditions the student's files are tried."""

    title: Text = Field(description="one line, for lists and headings")
    kind: TaskKind = Field(description="program: a program to write; repair: a guest that `setup` breaks, and that fix.sh mends, as root")
    points: float = Field(gt=0, description="points of all its tests together")
    guest: Id = Field(default="main", description="the guest in which it is tried, by name; each try has a fresh one")
    program: list[FileName] = Field(
        default_factory=list, description="the file that is run, by its end .py, .sh or .c; of several the student writes one"
    )
    setup: Annotated[str, Field(pattern=SCRIPT_NAME)] | None = Field(
        default=None,
        description="a guest script that is run first, and before a shell (`--task`) in the guest too; of a repair: what breaks it",
    )
    as_root: bool = Field(default=False, description="whether the program runs as root; otherwise as a user who may do nothing else")
    limits: TaskLimits = Field(default_factory=TaskLimits, description="what the program may take")

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        wrong = next((name for name in self.program if not name.endswith(tuple(LANGUAGES))), None)
        if wrong:
            raise ValueError(f"the program {wrong} ends in none of {', '.join(LANGUAGES)}, which say what it is written in")
        if len(set(self.program)) < len(self.program):
            raise ValueError("a program is named once")
        if self.kind is TaskKind.REPAIR and not (self.as_root and self.program == ["fix.sh"] and self.setup):
            raise ValueError("a repair needs setup, and is made by a script, as root: program: [fix.sh], as_root: true")
        return self
