"""What an author should mend in a lab's texts although the lab runs: each rule gives a line for what it finds, with file and line.

A rule reads the lab's files as text and runs none of them. UsageError says which of them cannot be read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmlab.errors import UsageError
from vmlab.lab.loading import APART
from vmlab.yamlfile import load, shown

_WORDS = "zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|half|twice|hundred|thousand"
_NUMBER = rf"(?:[0-9](?:[0-9.,]*[0-9])?|(?:{_WORDS}))"
# Units of what is measured, whatever the lab. (Bits and levels are not measured: an address has as many as the architecture says.)
_UNITS = ["s", "ms", "µs", "us", "ns", "seconds?", "minutes?", "B", "bytes?", "[kKMGT]i?B", "%", "percent", "times", "k?Hz", "pages?"]


def hintless(directory: Path) -> list[str]:
    """Each ``failed(...)`` of a lab's checks that has no hint, or an empty one: whoever reads it does not learn where to look."""
    return [
        f"{shown(path)}:{call.lineno}: failed(...) without a hint"
        for path in sorted(directory.rglob("*.py"))
        if path.relative_to(directory).parts[0] not in APART
        for call in _failures(_parsed(path))
        if not _has_hint(call)
    ]


def contradictable(directory: Path) -> list[str]:
    """Each ``shows`` of a lab's pictures with a number and its unit, or a zero: it is older than the run, which may measure another."""
    document = load(directory / "lab.yaml")
    found = []
    for key in ("plots", "translations"):
        for index, picture in enumerate(_list(document.value, key)):
            said = str(picture.get("shows", "")) if isinstance(picture, dict) else ""
            for number in _measured_numbers(said, _units(picture)):
                found.append(document.problem((key, index, "shows"), f"says {number!r}, and a run may measure another number"))
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None) or 1
        raise UsageError(f"{shown(path)}:{line}: this is no Python: {getattr(exc, 'msg', exc)}") from exc


def _failures(tree: ast.Module) -> list[ast.Call]:
    """The calls of `failed`, by whatever name the file has it, in the order of their lines."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == "failed" and (node.module or "").startswith("vmlab.lab")
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [call for call in calls if _is_named(call.func, names)]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _is_named(function: ast.expr, names: set[str]) -> bool:
    if isinstance(function, ast.Name):
        return function.id in names
    return isinstance(function, ast.Attribute) and function.attr == "failed" and isinstance(function.value, ast.Name | ast.Attribute)


def _has_hint(call: ast.Call) -> bool:
    """Whether a call gives a hint. What it passes on with ``**`` may hold one, which nobody can see in the text."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "hint"), None)
    if given is None:
        return any(keyword.arg is None for keyword in call.keywords)
    return not (isinstance(given, ast.Constant) and not str(given.value or "").strip())


def _measured_numbers(text: str, units: list[str]) -> Iterator[str]:
    unit = "|".join([*_UNITS, *map(re.escape, units)])
    for found in re.finditer(rf"(?<![\w.])(?:zero\b|{_NUMBER}[\s-]?(?:{unit})(?!\w))", text, re.IGNORECASE):
        yield " ".join(found[0].split())


def _units(picture: Any) -> list[str]:
    """The units that a picture's axes name, as words that may follow a number."""
    axes = [picture.get(axis) for axis in ("x", "y")] if isinstance(picture, dict) else []
    return [str(axis["unit"]) for axis in axes if isinstance(axis, dict) and axis.get("unit")]


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
