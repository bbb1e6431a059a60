"""The tables of the keys of lab.yaml, as labs/README.md has them (tests/guide.py writes them there)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vmlab.lab.broken import Control
from vmlab.lab.claim import Claim
from vmlab.lab.definition import LabDefinition, Parameter, Question
from vmlab.lab.glossary import Term
from vmlab.lab.guests import GuestRequest
from vmlab.lab.hardware import DriveRequest, NetworkRequest, ProcessorRequest
from vmlab.lab.kept import Kept
from vmlab.lab.pictures import Axis, Plot, Series, Stage, Translation
from vmlab.lab.task import Task, TaskLimits

MODELS: dict[str, type[BaseModel]] = {
    "lab.yaml": LabDefinition,
    "claims": Claim,
    "guests": GuestRequest,
    "disks": DriveRequest,
    "cpu": ProcessorRequest,
    "networks": NetworkRequest,
    "parameters": Parameter,
    "questions": Question,
    "plots": Plot,
    "x, y": Axis,
    "series": Series,
    "translations": Translation,
    "stages": Stage,
    "kept_for_the_reader": Kept,
    "glossary": Term,
    "controls": Control,
    "tasks": Task,
    "limits": TaskLimits,
}
SIMPLE = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def type_words(annotation: Any) -> str:
    """The type of a key in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return (
            "name"
            if any(getattr(each, "metadata", None) and "pattern" in repr(each) for each in arguments[1:])
            else type_words(arguments[0])
        )
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_words(each) for each in arguments if each is not type(None)))
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin is list:
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{each.value}`" for each in annotation)
    title = next((name for name, model in MODELS.items() if model is annotation), None)
    return f"*{title}*" if title else SIMPLE[annotation]


def default_words(field: FieldInfo) -> str:
    """What a key is when it is left out."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else f"`{json.dumps(value)}`"


def bounds(field: FieldInfo) -> str:
    """Between which numbers a key lies."""
    words = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}"}
    found = [words[name].format(getattr(each, name)) for each in field.metadata for name in words if getattr(each, name, None) is not None]
    return f" ({', '.join(found)})" if found else ""


def keys() -> str:
    """The tables of every key in lab.yaml."""
    parts = []
    for title, model in MODELS.items():
        rows = []
        for name, field in model.model_fields.items():
            kind = type_words(field.annotation)
            if any(getattr(each, "pattern", None) for each in field.metadata):
                kind = "name"
            assert field.description, f"{model.__name__}.{name} has no description"
            rows.append([f"`{name}`", f"{kind}{bounds(field)}", default_words(field), field.description])
        parts.append(f"#### Keys: {title}\n\n{first_paragraph(model)}\n\n{table('key | type | default | meaning', rows)}")
    return "\n\n".join(parts) + "\n\nA *name* is lower-case letters, digits and underscores, a letter first."


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    columns = head.split(" | ")
    return "\n".join([f"| {head} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)])


def first_paragraph(member: Any) -> str:
    """Of a docstring, on one line of Markdown."""
    text = (inspect.getdoc(getattr(member, "func", member)) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")
