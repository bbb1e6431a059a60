"""The parameters of a run: ``--param name=value`` checked against what the lab declares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from vmlab.errors import UsageError
from vmlab.lab.definition import LabDefinition, Parameter
from vmlab.suggest import nearest

Value = int | float | str | bool

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LONGEST = 1000


def split(pairs: Sequence[str]) -> dict[str, str]:
    """``["rounds=5"]`` as ``{"rounds": "5"}``; UsageError for a pair without ``=`` and for a name given twice.

    The names of parameters are lower-case; ``make lab ROUNDS=5`` hands its variables on as they are.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--param {pair[:80]}: expected name=value", hint="for example --param rounds=500")
        name = name.strip().lower()
        if name in given:
            raise UsageError(f"the parameter {name[:80]} is given twice")
        given[name] = value
    return given


def resolve(definition: LabDefinition, given: Mapping[str, str]) -> dict[str, Value]:
    """Every parameter of the lab with its value: the one given, read by its type, or its default."""
    declared = definition.parameters
    for name in given:
        if name not in declared:
            hint = "parameters of this lab: " + ", ".join(declared) if declared else "this lab has no parameters"
            raise UsageError(f"there is no parameter named {name[:80]!r}{nearest(name, declared)}", hint=hint)
    return {name: _read(name, each, given[name]) if name in given else each.default for name, each in declared.items()}


def objection(parameter: Parameter, value: Value) -> str:
    """What is wrong with a value that a file gives a parameter (``expected at least 50, found 10``); empty when nothing is."""
    # (In a file a number is a number: "50" with quotes is text.)
    numbers = (int, float) if parameter.type == "number" else (type(parameter.default),)
    if type(value) not in numbers:
        return f"expected {_kind(parameter)}, found {value!r}"
    wrong = _wanted(parameter, _parse(parameter, as_text(value)))
    return f"expected {wrong}, found {as_text(value)[:80]!r}" if wrong else ""


def as_text(value: Value) -> str:
    """A value as it is given on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(name: str, parameter: Parameter, text: str) -> Value:
    value = _parse(parameter, text.strip())
    wrong = _wanted(parameter, value)
    if wrong or value is None:
        raise UsageError(f"parameter {name}: expected {wrong}, found {text[:80]!r}", hint=parameter.help)
    return value


def _wanted(parameter: Parameter, value: Value | None) -> str:
    """What a value should be and is not; empty when it is fine. None stands for a text that is no value of the type."""
    return _kind(parameter) if value is None else parameter.objection(value)


def _kind(parameter: Parameter) -> str:
    return {
        "integer": "a whole number",
        "number": "a number",
        "text": f"at most {_LONGEST} printable characters",
        "flag": "true or false",
    }[parameter.type]


def _parse(parameter: Parameter, text: str) -> Value | None:
    """The value, or None when the text is not one of this type."""
    match parameter.type:
        case "integer":
            # (int() alone would take "1_000" and Arabic digits, and refuse more than 4,300 of them with an error of its own.)
            return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None
        case "number":
            try:
                number = float(text)
            except ValueError:
                return None
            return number if math.isfinite(number) else None
        case "flag":
            return _FLAGS.get(text.lower())
        case _:
            return text if len(text) <= _LONGEST and (text.isprintable()) else None
