"""The authoring guide agrees with the code. `python tests/unit/test_lab_readme.py` writes its generated parts anew."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import re
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vmlab.lab import Record, checks, verdict
from vmlab.lab.broken import Control
from vmlab.lab.claim import Claim
from vmlab.lab.definition import LabDefinition, Parameter, Question
from vmlab.lab.glossary import Term
from vmlab.lab.guests import GuestRequest
from vmlab.lab.hardware import DriveRequest, NetworkRequest, ProcessorRequest
from vmlab.lab.kept import Kept
from vmlab.lab.pictures import Axis, Plot, Series, Stage, Translation
from vmlab.lab.skeleton import create
from vmlab.lab.task import Task, TaskLimits
from vmlab.paths import guest_library
from vmlab_guest import native

GUIDE = Path(__file__).resolve().parents[2] / "labs" / "README.md"
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
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else f"`{json.dumps(value)}`"


def bounds(field: FieldInfo) -> str:
    words = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}"}
    found = [words[name].format(getattr(each, name)) for each in field.metadata for name in words if getattr(each, name, None) is not None]
    return f" ({', '.join(found)})" if found else ""


def reference() -> str:
    """The tables of every key in lab.yaml."""
    parts = []
    for title, model in MODELS.items():
        doc = " ".join((inspect.getdoc(model) or "").split()).replace("``", "`")
        rows = []
        for name, field in model.model_fields.items():
            kind = type_words(field.annotation)
            if any(getattr(each, "pattern", None) for each in field.metadata):
                kind = "name"
            rows.append(f"| `{name}` | {kind}{bounds(field)} | {default_words(field)} | {field.description} |")
            assert field.description, f"{model.__name__}.{name} has no description"
        parts.append("\n".join([f"### {title}", "", doc, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n\nA *name* is lower-case letters, digits and underscores, a letter first."


def call_of(name: str, member: Any) -> str:
    """How it is called: its name and its parameters without their types."""
    bare = [
        each.replace(annotation=inspect.Parameter.empty) for each in inspect.signature(member).parameters.values() if each.name != "self"
    ]
    return f"{name}{inspect.Signature(bare)}"


def library_rows(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Each call that a module of the guest's library offers, in the order in which it stands there; a class, then its methods."""
    for name, member in vars(module).items():
        if (
            name.startswith("_")
            or getattr(member, "__module__", "") != module.__name__
            or not (inspect.isfunction(member) or inspect.isclass(member))
        ):
            continue
        if not (inspect.isclass(member) and issubclass(member, ctypes.Structure)):
            yield call_of(name, member), member
            if inspect.isclass(member):
                methods = [(each, found) for each, found in vars(member).items() if inspect.isfunction(found) and not each.startswith("_")]
                yield from ((call_of(f"{name}.{each}", found), found) for each, found in methods)


def guests_library() -> str:
    """The calls of each module of vmlab_guest, by their docstrings' first paragraphs."""
    parts = []
    for name in sorted(path.stem for path in guest_library().glob("*.py") if path.stem != "__init__"):
        module = importlib.import_module(f"vmlab_guest.{name}")
        rows = [f"| `{call}` | {first_paragraph(member)} |" for call, member in library_rows(module)]
        if name == "native":
            rows += [f"| `Routine({routine})` | {text} |" for routine, text in routines()]
        parts.append("\n".join([f"**`vmlab_guest.{name}`** {first_paragraph(module)}", "", "| call | what it does |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def routines() -> list[tuple[str, str]]:
    """The loops in machine code, by the comment above each."""
    source = (guest_library() / "native.py").read_text()
    found = re.findall(r"((?:^# .*\n)+)^([A-Z_]+): \"Sequence\[Line\]\" = ", source, re.MULTILINE)
    assert len(found) == len(native.ROUTINES)
    return [(name, " ".join(line.removeprefix("# ") for line in comment.splitlines())) for comment, name in found]


def first_paragraph(member: Any) -> str:
    """Of a docstring, on one line of Markdown."""
    text = (inspect.getdoc(member) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def example() -> str:
    """The skeleton's files."""
    with tempfile.TemporaryDirectory() as directory:
        folder = create("page_touch", Path(directory))
        files = {name: (folder / name).read_text() for name in ("lab.yaml", "experiment.py", "guest/touch.py", "checks.py")}
    fences = {"lab.yaml": "yaml"}
    return "\n\n".join(f"`{name}`\n\n```{fences.get(name, 'python')}\n{text.rstrip()}\n```" for name, text in files.items())


def with_part(guide: str, name: str, text: str) -> str:
    """The guide with one generated part put in."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    assert len(pattern.findall(guide)) == 1
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", guide)


def generated(guide: str) -> str:
    parts = {"reference": reference(), "library": guests_library(), "example": example()}
    for name, text in parts.items():
        guide = with_part(guide, name, text)
    return guide


def test_the_generated_parts_are_fresh() -> None:
    text = GUIDE.read_text()
    assert generated(text) == text, "the guide is stale: python tests/unit/test_lab_readme.py"


def test_control_a_stale_part_is_seen() -> None:
    text = GUIDE.read_text().replace("| `memory_mib` |", "| `memory_mb` |")
    assert generated(text) != text


def test_every_verdict_and_reader_is_described() -> None:
    guide = GUIDE.read_text()
    readers = [name for name, member in vars(Record).items() if inspect.isfunction(member) and not name.startswith("_")]
    missing = [name for name in readers if f"`{name}(" not in guide]
    missing += [kind.value for kind in verdict.VerdictKind if f"| {kind.value} |" not in guide]
    missing += [name for name in ("passed", "failed", "not_observable", "inconclusive") if f"`{name}(" not in guide]
    missing += [name for name in inspect.signature(checks.check).parameters if name not in guide]
    assert not missing


def kinds(bench: Any) -> dict[str, type]:
    """What the guide's words stand for."""
    from vmlab.guest.conversation import Conversation
    from vmlab.guest.look.memory import MemoryView

    looks = {"memory": MemoryView, "disk": bench.DiskView, "network": bench.Network, "capture": bench.Capture}
    return {"bench": bench.Bench, "guest": bench.Guest, "talk": Conversation, **looks}


def test_every_call_of_the_bench_is_described() -> None:
    bench = pytest.importorskip("vmlab.bench", reason="the bench is not there yet")
    guide = GUIDE.read_text()
    ours = {"part", "put_scripts", "check_alive", "plugged", "join", "close", "history"}  # (For the runner, not for an experiment.)
    calls = [
        f"{word}.{name}("
        for word, kind in kinds(bench).items()
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_") and name not in ours
    ]
    assert not [call for call in calls if call not in guide]


def test_no_call_is_described_that_is_not_there() -> None:
    bench = pytest.importorskip("vmlab.bench", reason="the bench is not there yet")
    # (In the example lab, "memory" is an observation; FrozenDisk is a disk too.)
    known = kinds(bench)
    called = re.findall(rf"\b({'|'.join(known)})\.([a-z_]+)\(", GUIDE.read_text())
    assert len(called) > 10
    others = (Record, bench.FrozenDisk)
    assert not [f"{word}.{name}" for word, name in called if not any(hasattr(kind, name) for kind in (known[word], *others))]


def test_every_command_is_there() -> None:
    cli = pytest.importorskip("vmlab.cli.app", reason="the command line is not there yet")
    named = set(re.findall(r"vmlab ([a-z]+)\b", GUIDE.read_text()))
    assert named - {"model"} <= set(cli.cli.commands)


if __name__ == "__main__":
    GUIDE.write_text(generated(GUIDE.read_text()))
