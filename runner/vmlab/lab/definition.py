"""What a lab is: ``lab.yaml`` read and validated, and the folder around it.

Every mistake is answered with the file, the line, what was found and what was expected, because a lab's author sees this before
anything else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vmlab.errors import UsageError
from vmlab.lab.checks import Check, checks_of
from vmlab.lab.loading import LabPackage
from vmlab.suggest import nearest
from vmlab.yamlfile import shown

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower-case letters, digits and underscores")]
Text = Annotated[str, Field(min_length=1)]

Experiment = Callable[[Any], None]
"""A lab's ``experiment(bench)``. The bench belongs to the other wing, so this one does not know its type."""


class Strict(BaseModel):
    """A model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(Strict):
    """One claim of the course page, and what a careful kernel engineer would add."""

    says: Text = Field(description="the claim, as the course page makes it")
    correction: str = Field(default="", description="what a careful kernel engineer would add to it")


# What an emulated guest may have, in MiB: its Linux and Python need the first number, and Bochs has been seen to boot with the second.
EMULATED_MIB = (512, 2048)


class GuestRequest(Strict):
    """A guest that the lab needs."""

    emulator: Literal["qemu", "bochs"] = Field(
        default="qemu",
        description="bochs: an Intel processor with VMX and EPT, emulated; a small Linux that is booted anew for each script",
    )
    images: list[str] = Field(default_factory=list, description="images it runs on, the default first; empty: any")
    needs: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]] = Field(
        default_factory=list, description="programs, beside sh and python3, without which nothing can be shown in it"
    )
    memory_mib: int = Field(default=1024, ge=128, description="memory, in MiB")
    cpus: int = Field(default=2, ge=1, le=64, description="virtual CPUs")
    virtualisation: Literal["none", "svm"] = Field(
        default="none",
        description="svm: it can run guests of its own; an AMD processor with nested paging, `cpus: 1`, emulated whatever runs the others",
    )
    init: Literal["systemd", "sysv"] = Field(default="systemd", description="the init system that it boots with")
    kernel_args: str = Field(default="", description="added to the kernel command line (direct kernel boot)")
    start: Literal["clone", "cold"] = Field(
        default="clone", description="a clone of a booted guest, there in a second, or a boot of its own: cold where the boot is measured"
    )
    internet: bool = Field(default=False, description="whether the guest may reach the network outside")
    cloud_init: dict[str, Any] = Field(default_factory=dict, description="merged into the user-data")
    small_pages: bool = Field(
        default=False, description="whether the host may back its memory with small pages only, so that it grows page by page"
    )
    when: dict[str, list[str]] = Field(
        default_factory=dict, description="values of text parameters with which it is needed, by the parameter's name; empty: always"
    )

    @model_validator(mode="after")
    def _consistent(self) -> GuestRequest:
        # With QEMU 7.2 the kernel of one with two CPUs was now and then broken without a word, each CPU a thread of QEMU's. (The kernel
        # patches its own code whenever it makes or ends a guest; see `vmlab.guest.boot.is_emulators_fault`.) With one thread for both, its
        # guests often hung. With one CPU neither was seen.
        if self.virtualisation != "none" and self.cpus != 1:
            raise ValueError("a guest that runs guests must have cpus: 1, because QEMU does not emulate several of its kind reliably")
        if self.emulator == "bochs":
            self._check_emulated()
        return self

    def _check_emulated(self) -> None:
        """ValueError for what a guest of Bochs cannot be given: there is no init system, no network and no cloud-init in it."""
        meaningless = sorted(self.model_fields_set - {"emulator", "images", "memory_mib", "cpus", "when"})
        if meaningless:
            raise ValueError(
                f"a guest with emulator: bochs has no {' and no '.join(meaningless)}: it may have images, memory_mib, cpus: 1 and when"
            )
        if self.cpus != 1:
            raise ValueError("a guest with emulator: bochs must have cpus: 1, which is what is emulated")
        least, most = EMULATED_MIB
        if not least <= self.memory_mib <= most:
            raise ValueError(f"a guest with emulator: bochs must have a memory_mib from {least} to {most}")


class Parameter(Strict):
    """A number or text that a run may set: ``--param rounds=500``."""

    type: Literal["integer", "number", "text", "flag"] = Field(description="what kind of value it takes")
    default: int | float | str | bool = Field(description="its value when a run sets none")
    help: Text = Field(description="one line for whoever sets it")
    minimum: float | None = Field(default=None, description="smallest number accepted")
    maximum: float | None = Field(default=None, description="largest number accepted")
    choices: list[str] = Field(default_factory=list, description="the only texts accepted; empty: any")
    several: bool = Field(default=False, description="several of the choices may be given, with commas between them")

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        value = self.default
        kinds: dict[str, set[type]] = {"integer": {int}, "number": {int, float}, "text": {str}, "flag": {bool}}
        if type(value) not in kinds[self.type]:
            raise ValueError(f"the default must be of the type {self.type}")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "number"):
            raise ValueError("only an integer or a number has a minimum or a maximum")
        if self.choices and self.type != "text":
            raise ValueError("only a text has choices")
        if self.several and not self.choices:
            raise ValueError("several is for a text with choices")
        wrong = self.objection(value)
        if wrong:
            raise ValueError(f"the default must be {wrong}")
        return self

    def chosen(self, value: int | float | str | bool) -> list[str]:
        """The choices that a value is: one, or those between commas where it may be several."""
        return [part.strip() for part in str(value).split(",")] if self.several else [str(value)]

    def objection(self, value: int | float | str | bool) -> str:
        """What a value of the right type must be and is not (``at least 1``); empty when it is fine."""
        if self.choices and not set(self.chosen(value)) <= set(self.choices):
            return ("one or several of " if self.several else "one of ") + ", ".join(self.choices)
        if isinstance(value, str | bool):
            return ""
        if self.minimum is not None and value < self.minimum:
            return f"at least {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            return f"at most {self.maximum:g}"
        return ""


class QuestionKind(StrEnum):
    """How an answer is compared with what was measured."""

    NUMBER = "number"
    CHOICE = "choice"
    TEXT = "text"


class Question(Strict):
    """Something to predict before the run. ``prediction`` is the lab's own, written down before anything is measured."""

    id: Id = Field(description="its name in answers.yaml")
    ask: Text = Field(description="the question")
    kind: QuestionKind = Field(description="how an answer is compared: number, choice, or text (left to the instructor)")
    prediction: int | float | str = Field(description="the lab's own answer, written down before anything is measured")
    because: str = Field(default="", description="why the lab predicts this")
    unit: str = Field(default="", description="unit of a number")
    choices: list[str] = Field(default_factory=list, description="the answers of a choice question")
    measured_by: str = Field(default="", description="place of the measured value in the evidence, e.g. exhaustion.errno")
    tolerance: float = Field(default=0.0, ge=0, description="relative distance at which a number still counts as right")
    check: str = Field(default="", description="id of the check that this prediction is shown with")

    @model_validator(mode="after")
    def _consistent(self) -> Question:
        if self.kind is QuestionKind.CHOICE and str(self.prediction) not in self.choices:
            raise ValueError("the prediction of a choice question must be one of its choices")
        if self.kind is QuestionKind.NUMBER and isinstance(self.prediction, str):
            raise ValueError("the prediction of a number question must be a number")
        return self


class Axis(Strict):
    """One axis of a plot."""

    label: str = Field(description="what is on the axis")
    unit: str = Field(default="", description="its unit")


class Series(Strict):
    """One line, cloud of points or row of bars: a list of objects in the evidence, and which members are x and y."""

    name: str = Field(description="its name in the legend")
    rows: str = Field(description="place of a list of objects in the evidence, e.g. accumulation.samples")
    x: str = Field(description="member of each object that is x")
    y: str = Field(description="member of each object that is y")
    end: str = Field(default="", description="in a Gantt chart, where x is a bar's begin and y its lane: member that is its end")


class Plot(Strict):
    """A picture of the evidence, as data: the report draws it and prints its numbers as a table."""

    id: Id = Field(description="its name in the report")
    title: str = Field(description="its heading")
    kind: Literal["line", "points", "bars", "gantt"] = Field(description="how it is drawn")
    x: Axis = Field(description="the horizontal axis")
    y: Axis = Field(description="the vertical axis")
    series: list[Series] = Field(min_length=1, description="what is drawn")
    shows: str = Field(description="what a reader should see in it; part of the text alternative")

    @model_validator(mode="after")
    def _consistent(self) -> Plot:
        if any(bool(series.end) is not (self.kind == "gantt") for series in self.series):
            raise ValueError("each series of a gantt names the member that is a bar's end, and no other plot's does")
        return self


class Stage(Strict):
    """One of the names that a byte goes by: an address, and what was read there."""

    name: Text = Field(description="whose address it is, e.g. host-virtual")
    address: str = Field(description="place of the address in the evidence, as hexadecimal text")
    holds: str = Field(description="place of the text that was read at this address")


class Translation(Strict):
    """A picture of an address translation: the page tables' entries by level, then the byte's further names."""

    id: Id = Field(description="its name in the report")
    title: str = Field(description="its heading")
    walk: str = Field(description="place of the translation in the evidence, in the form that labs/README.md tells")
    marker: str = Field(description="place of the text that should be read at each stage")
    stages: list[Stage] = Field(min_length=1, max_length=4, description="the names of the byte after its guest-virtual one, in order")
    shows: str = Field(description="what a reader should see in it; part of the text alternative")


class LabDefinition(Strict):
    """The whole of ``lab.yaml``."""

    title: Text = Field(description="one line, for lists and the report's heading")
    summary: Text = Field(description="one to three sentences: what the lab shows")
    claims: dict[str, Claim] = Field(min_length=1, description="the claims that its checks test, by id")
    guests: dict[Id, GuestRequest] = Field(
        min_length=1, description="the guests it needs, by name; `main` is the one that `bench.guest()` gives"
    )
    parameters: dict[Id, Parameter] = Field(default_factory=dict, description="what a run may set, by name")
    questions: list[Question] = Field(default_factory=list, description="what to predict before the run")
    plots: list[Plot] = Field(default_factory=list, description="pictures of the evidence")
    translations: list[Translation] = Field(default_factory=list, description="pictures of address translations")
    time_limit_s: float = Field(default=900, gt=0, description="seconds after which a run is ended")
    exclusive: bool = Field(default=False, description="the lab measures time and wants the machine to itself: no other lab runs meanwhile")

    @model_validator(mode="after")
    def _consistent(self) -> LabDefinition:
        for name, ids in (
            ("question", [q.id for q in self.questions]),
            ("plot", [*(p.id for p in self.plots), *(t.id for t in self.translations)]),
        ):
            double = next((each for each in ids if ids.count(each) > 1), None)
            if double:
                raise ValueError(f"two {name}s have the id {double!r}")
        for guest in self.guests.values():
            for name, values in guest.when.items():
                if name not in self.parameters or not set(values) <= set(self.parameters[name].choices):
                    raise ValueError("a guest's when must name a parameter with choices, and some of these")
        return self

    def guests_for(self, parameters: Mapping[str, int | float | str | bool]) -> dict[str, GuestRequest]:
        """The guests that a run with these parameters needs, by name."""
        return {
            name: guest
            for name, guest in self.guests.items()
            if all(set(self.parameters[parameter].chosen(parameters[parameter])) & set(values) for parameter, values in guest.when.items())
        }


class Lab:
    """A lab's folder: its definition and its parts. `vmlab.lab.collection` finds it."""

    def __init__(self, name: str, directory: Path, definition: LabDefinition) -> None:
        self.name = name
        self.directory = directory
        self.definition = definition
        self._loaded: tuple[str, LabPackage] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of the lab's files; its tests and what editors and Python leave behind are not part of it."""
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
        return whole.hexdigest()

    def files(self) -> list[Path]:
        """All files of the lab, in the order of their names, without what editors and Python leave behind."""
        return _files(self.directory)

    def guest_files(self) -> list[Path]:
        """What is put into the guest: every file under ``guest/``, in the order of their names."""
        return _files(self.directory / "guest")

    def load_checks(self) -> list[Check]:
        """Read ``checks.py``, then each ``checks_*.py``; UsageError names what is wrong with them, or between them and ``lab.yaml``."""
        package, checks = self._package(), list[Check]()
        for path in [self.directory / "checks.py", *sorted(self.directory.glob("checks_*.py"))]:
            checks += self._read_checks(package.module(path), path, checks)
        self._match_questions([each.id for each in checks])
        return checks

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
        """Read ``experiment.py`` and return its function ``experiment(bench)``."""
        path = self.directory / "experiment.py"
        function: Experiment | None = getattr(self._package().module(path), "experiment", None)
        if not callable(function):
            raise UsageError(f"{shown(path)} has no function experiment(bench)", hint="labs/README.md shows one")
        return function

    def _match_questions(self, checks: list[str]) -> None:
        for question in self.definition.questions:
            if question.check and question.check not in checks:
                raise UsageError(
                    f"{shown(self.directory / 'lab.yaml')}: the question {question.id} is shown with the check {question.check!r}, "
                    f"which checks.py does not declare{nearest(question.check, checks)}",
                    hint="checks of this lab: " + ", ".join(checks),
                )


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in _walk(directory) if path.is_file())


def _walk(directory: Path) -> Iterable[Path]:
    for path in directory.rglob("*"):
        parts = path.relative_to(directory).parts
        if not any(part.startswith(".") or part == "__pycache__" or part.endswith(("~", ".pyc")) for part in parts):
            yield path
