"""What a lab says of itself: ``lab.yaml``, validated.

Every mistake is answered with the file, the line, what was found and what was expected, because a lab's author sees this before
anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from vmlab.lab.broken import MOST_CONTROLS, Control
from vmlab.lab.claim import Claim
from vmlab.lab.glossary import Term
from vmlab.lab.guests import GuestRequest
from vmlab.lab.hardware import NetworkName, NetworkRequest
from vmlab.lab.kept import Kept
from vmlab.lab.pictures import Plot, Translation
from vmlab.lab.strict import Id, Strict, Text
from vmlab.lab.task import Task


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

    @property
    def nearness(self) -> str:
        """How near an answer must come to what is measured: ``within 60 %``, ``exactly``; empty for free text, which a person judges."""
        if self.kind is QuestionKind.TEXT:
            return ""
        return f"within {100 * self.tolerance:.6g} %" if self.kind is QuestionKind.NUMBER and self.tolerance else "exactly"


class LabDefinition(Strict):
    """The whole of ``lab.yaml``."""

    title: Text = Field(description="one line, for lists and the report's heading")
    summary: Text = Field(description="one to three sentences: what the lab shows")
    claims: dict[str, Claim] = Field(min_length=1, description="the claims that its checks test, by id")
    guests: dict[Id, GuestRequest] = Field(
        min_length=1, description="the guests it needs, by name; `main` is the one that `bench.guest()` gives"
    )
    networks: dict[NetworkName, NetworkRequest] = Field(
        default_factory=dict, max_length=16, description="private networks between its guests, by name"
    )
    parameters: dict[Id, Parameter] = Field(default_factory=dict, description="what a run may set, by name")
    questions: list[Question] = Field(default_factory=list, description="what to predict before the run")
    plots: list[Plot] = Field(default_factory=list, description="pictures of the evidence")
    translations: list[Translation] = Field(default_factory=list, description="pictures of address translations")
    kept_for_the_reader: list[Kept] = Field(
        default_factory=list, description="evidence that no check reads, and why it is recorded; the report marks it"
    )
    glossary: dict[Text, Term] = Field(
        default_factory=dict, description="terms that the report explains beside those of runner/vmlab/lab/glossary.yaml, or in other words"
    )
    controls: dict[Id, Control] = Field(
        default_factory=dict, max_length=MOST_CONTROLS, description="worlds in which a claim is false, for `vmlab controls`, by name"
    )
    unrefuted: dict[str, Text] = Field(
        default_factory=dict, description="why no real guest can make a check fail, by the check's id; for those that no control refutes"
    )
    tasks: dict[Id, Task] = Field(default_factory=dict, max_length=16, description="the student's own work, by name")
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
        for guest_name, guest in self.guests.items():
            unknown = next((network for network in guest.networks if network not in self.networks), None)
            if unknown:
                raise ValueError(
                    f"the guest {guest_name} is on the network {unknown}, which the lab must declare: networks: {{{unknown}: {{}}}}"
                )
            for name, values in guest.when.items():
                if name not in self.parameters or not set(values) <= set(self.parameters[name].choices):
                    raise ValueError("a guest's when must name a parameter with choices, and some of these")
        for name, task in self.tasks.items():
            if task.guest not in self.guests or self.guests[task.guest].emulator != "qemu":
                raise ValueError(f"the task {name} is tried in the guest {task.guest}, which must be one of the lab's, run by QEMU")
        return self

    def guests_for(self, parameters: Mapping[str, int | float | str | bool]) -> dict[str, GuestRequest]:
        """The guests that a run with these parameters needs, by name."""
        return {
            name: guest
            for name, guest in self.guests.items()
            if all(set(self.parameters[parameter].chosen(parameters[parameter])) & set(values) for parameter, values in guest.when.items())
        }
