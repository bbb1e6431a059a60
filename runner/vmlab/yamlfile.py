"""YAML files that people write, read so that every mistake is answered with the file and the line.

What is accepted is the part of YAML that is JSON written comfortably: mappings with text keys, lists, text, numbers, ``true``,
``false`` and ``null``. Words follow YAML 1.2: ``yes``, ``no`` and ``on`` are text, ``010`` is ten and ``22:30`` is no number. Duplicate
keys, aliases and tags are refused, because each of them makes a file mean something other than what it seems to say.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vmlab.errors import UsageError
from vmlab.suggest import nearest

LIMIT_BYTES = 1 << 20
"""A file that a person wrote is smaller than this."""

_DEEPEST = 50
"""More levels than a person writes, and few enough for everything that walks the value later."""

_MOST = 100
"""More mistakes than anyone reads at once."""

Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Only its scanner, parser and resolver are used: values are made from the nodes, here."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way to say which words are not text)


_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass(frozen=True)
class Document:
    """What a file holds, and the line at which each of its values stands."""

    path: Path
    value: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of the value at ``place``, or of the nearest value around it; lines count from 1."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def problem(self, place: Place, text: str) -> str:
        """``labs/x/lab.yaml:12: guests.main.memory_mib: text``."""
        name = dotted(place)
        return f"{shown(self.path)}:{self.line(place)}: " + (f"{name}: {text}" if name else text)


def load(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> Document:
    """Read a file; UsageError when it is missing, too large, not text or not YAML of the accepted kind."""
    text = _text(path, limit_bytes)
    try:
        _survey(path, text)
        root = yaml.compose(text, Loader=_Loader)
        lines: dict[Place, int] = {}
        value = None if root is None else _Reader(path, lines).value(root, ())
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = f"{shown(path)}:{mark.line + 1}:{mark.column + 1}" if mark else shown(path)
        what = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise UsageError(f"{at}: this is not YAML: {what}", hint="look at the indentation, and for a missing quote or colon") from exc
    except yaml.YAMLError as exc:
        raise UsageError(f"{shown(path)}: this is not YAML: {' '.join(str(exc).split())}") from exc
    return Document(path, value, lines)


def validate(path: Path, model: type[Model], *, hint: str = "", limit_bytes: int = LIMIT_BYTES) -> Model:
    """Read a file and check it against a model. One UsageError names every mistake: the first in its message, all in its detail."""
    document = load(path, limit_bytes=limit_bytes)
    try:
        # Strict, so that "1024" is no number; as JSON, so that pydantic still takes a text for an enum and 1 for 1.0.
        return model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as exc:
        raise refusal(_problems(document, model, exc), hint=hint) from None


def refusal(problems: Sequence[str], *, hint: str = "") -> UsageError:
    """One error out of many lines: the first is the message; all of them are the detail when there is more than one."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return UsageError(problems[0] + more, hint=hint, detail="\n".join(problems) if more else "")


def shown(path: Path) -> str:
    """A path as a person would write it: relative to the working directory when it lies below it."""
    try:
        return os.path.relpath(path) if Path(os.path.abspath(path)).is_relative_to(Path.cwd()) else str(path)  # noqa: PTH100  (follows no link)
    except (ValueError, OSError):
        return str(path)


def dotted(place: Place) -> str:
    """``("plots", 0, "title")`` as ``plots[0].title``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def kind(value: Any) -> str:
    """A value in the words of a message: ``the text 'lots'``."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return "a list"
    return "a mapping"


def _text(path: Path, limit_bytes: int) -> str:
    try:
        # A FIFO or a device would block or never end, so only a regular file is opened.
        if not path.exists():
            raise UsageError(f"{shown(path)} does not exist", hint="look at the name, or make the file first")
        if not path.is_file():
            raise UsageError(f"{shown(path)} is not a file")
        with path.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as exc:
        raise UsageError(f"{shown(path)} cannot be read: {exc.strerror}") from exc
    if len(data) > limit_bytes:
        raise UsageError(f"{shown(path)} is larger than {limit_bytes} bytes: this is not a file that a person wrote")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise UsageError(f"{shown(path)}:{line}: this is not UTF-8 text (byte {data[exc.start]:#04x})") from exc


def _survey(path: Path, text: str) -> None:
    """Look at the events, which need no stack: libyaml's composer crashes the process on deep nesting, and aliases multiply a file."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        at = f"{shown(path)}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{at}: aliases (*{event.anchor}) are not accepted", hint="write the value out where it is needed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UsageError(f"{at}: values are nested too deeply (more than {_DEEPEST} levels)")


class _Reader:
    """Makes values out of nodes and writes down their lines."""

    def __init__(self, path: Path, lines: dict[Place, int]) -> None:
        self._path = path
        self._lines = lines

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            self._expect_tag(node, place, "map")
            return dict(self._members(node, place))
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, place, "seq")
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _members(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, Any]]:
        first: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refuse(key, place, "a key must be text")
            name, line = key.value, key.start_mark.line + 1
            if name in first:
                raise self._refuse(key, (*place, name), f"this key stands here twice (first in line {first[name]})")
            first[name] = self._lines[*place, name] = line
            yield name, self.value(item, (*place, name))

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        word = node.value
        match node.tag.removeprefix(_TAG):
            case "str":
                return word
            case "null":
                return None
            case "bool" if word.lower() in ("true", "false"):
                return word.lower() == "true"
            case "int" | "float" as wanted:
                return self._number(node, place, wanted)
        raise self._refuse(node, place, f"the tag {node.tag} is not accepted")

    def _number(self, node: yaml.Node, place: Place, wanted: str) -> int | float:
        try:
            number = float(node.value) if wanted == "float" else int(node.value, 16 if node.value.startswith("0x") else 10)
            finite = math.isfinite(number)
        except (ValueError, OverflowError):  # (Python reads at most 4,300 digits.)
            finite = False
        if not finite:
            raise self._refuse(node, place, f"{node.value[:40]!r} is not a number that can be used here")
        return number

    def _expect_tag(self, node: yaml.Node, place: Place, wanted: str) -> None:
        if node.tag != _TAG + wanted:
            raise self._refuse(node, place, f"the tag {node.tag} is not accepted")

    def _refuse(self, node: yaml.Node, place: Place, text: str) -> UsageError:
        self._lines[place] = node.start_mark.line + 1
        return UsageError(Document(self._path, None, self._lines).problem(place, text))


def _problems(document: Document, model: type[BaseModel], exc: ValidationError) -> list[str]:
    """The mistakes in the file's order, one line each; what the branches of a union say about one value is one mistake."""
    wanted: dict[tuple[Place, str], list[str]] = {}
    for error in exc.errors()[:_MOST]:
        place = _place(document.value, error["loc"], missing=error["type"] == "missing")
        text, found = _words(error, model, place)
        choices = wanted.setdefault((place, found), [])
        if text not in choices:
            choices.append(text)
    lines = []
    for (place, found), said in sorted(wanted.items(), key=lambda item: document.line(item[0][0])):
        expected = [text.removeprefix("expected ") for text in said]
        one = len(said) > 1 and all(text.startswith("expected ") for text in said)
        texts = ["expected " + ", ".join(expected[:-1]) + " or " + expected[-1]] if one else said
        lines += [document.problem(place, text + (f", found {found}" if text.startswith("expected ") else "")) for text in texts]
    return lines


def _place(value: Any, loc: Sequence[str | int], *, missing: bool) -> Place:
    """Where in the file pydantic means: without the names of union branches and the marks that it puts between."""
    place: list[str | int] = []
    for i, part in enumerate(loc):
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif not (missing and i == len(loc) - 1):
            continue
        place.append(part)
    return tuple(place)


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("at least {}", "ge"),
    "greater_than": ("more than {}", "gt"),
    "less_than_equal": ("at most {}", "le"),
    "less_than": ("less than {}", "lt"),
    "string_pattern_mismatch": ("text of the form {}", "pattern"),
    "too_short": ("at least {} members", "min_length"),
    "too_long": ("at most {} members", "max_length"),
    "string_too_short": ("at least {} characters", "min_length"),
    "string_too_long": ("at most {} characters", "max_length"),
    "enum": ("{}", "expected"),
    "literal_error": ("{}", "expected"),
}


def _words(error: Any, model: type[BaseModel], place: Place) -> tuple[str, str]:
    """What is wrong with one value, and what was found there."""
    name, context = error["type"], error.get("ctx", {})
    if name == "missing":
        return "is missing", ""
    if name == "extra_forbidden":
        # (Within braces, a comma ends a text that has no quotes; what follows it looks like a key without a value.)
        guess = "; does a text with a comma lack its quotes?" if error["input"] is None else ""
        return "unknown key" + (nearest(str(place[-1]), _keys(model, place[:-1])) or guess), ""
    if name in _BOUNDS:
        text, key = _BOUNDS[name]
        return "expected " + text.format(context[key]), "nothing in it" if name == "too_short" else kind(error["input"])
    if name.split("_")[0] in _EXPECTED and name.endswith(("_type", "_parsing", "_from_float")):
        return "expected " + _EXPECTED[name.split("_")[0]], kind(error["input"])
    if name == "value_error":
        return str(context["error"]), ""
    return error["msg"][:1].lower() + error["msg"][1:], ""


def _keys(model: Any, place: Place) -> list[str]:
    """The keys that the model knows at ``place``."""
    types = [model]
    for part in place:
        types = [inner for each in types for inner in _inside(each, part)]
    return [name for each in types if _is_model(each) for name in each.model_fields]


def _inside(kind_of_value: Any, part: str | int) -> list[Any]:
    """The types that a member of a value of this type can have."""
    if _is_model(kind_of_value):
        field = kind_of_value.model_fields.get(part)
        return _plain(field.annotation) if field else []
    arguments = get_args(kind_of_value)
    return _plain(arguments[-1]) if arguments and get_origin(kind_of_value) in (dict, list) else []


def _plain(annotation: Any) -> list[Any]:
    """The members of a union, or the type under an Annotated."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for each in get_args(annotation) for plain in _plain(each)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
