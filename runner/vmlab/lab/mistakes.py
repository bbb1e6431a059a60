"""Mistakes in a lab's files that show without running anything: what a run would stop at after it has booted a guest.

Guest scripts that do not compile; scripts, guests, networks, parameters and files that the lab's modules name and that are not there; names
that nothing defines. Whoever runs the lab is told before it waits for its slot, and `vmlab lint` tells the author.
"""

from __future__ import annotations

import ast
import builtins
import dis
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.lab.lab import Lab
from vmlab.packages import which
from vmlab.suggest import nearest
from vmlab.yamlfile import load, refusal, shown

GUEST_PYTHON = (3, 11)
"""The oldest Python of the images: Debian 12 has 3.11, Debian 13 has 3.13."""

_SHELL_LIMIT_S = 20.0


@dataclass(frozen=True)
class Mistake:
    """What is wrong, with file and line, and what to do about it."""

    what: str
    hint: str = ""


def refuse_mistakes(lab: Lab) -> None:
    """UsageError when there is a mistake in the lab's files; all are in its detail."""
    found = [*mistakes_of_scripts(lab), *mistakes_of_modules(lab)]
    if found:
        raise refusal([each.what for each in found], hint=found[0].hint)


# --- guest scripts ------------------------------------------------------------------------------------------------------------------


def mistakes_of_scripts(lab: Lab) -> list[Mistake]:
    """Guest scripts that the guest's Python or shell could not read."""
    found = [each for path in lab.guest_files() for each in _unreadable(path)]
    setups = [task.setup for task in lab.definition.tasks.values() if task.setup]
    return found + [missing for each in setups if (missing := _unknown_script(lab, each))]


def language_of(path: Path) -> str:
    """What a guest script is written in, as the bench runs it: ``python``, ``sh``, or empty for anything else."""
    if path.suffix in (".py", ".sh"):
        return {".py": "python", ".sh": "sh"}[path.suffix]
    try:
        with path.open("rb") as file:
            first = file.readline(200).decode(errors="replace").split()
    except OSError:
        return ""
    if not first or not first[0].startswith("#!"):
        return ""
    # (#!/bin/sh, and #!/usr/bin/env python3.)
    program = Path((first[1:] or first)[0] if first[0].endswith("/env") else first[0].removeprefix("#!")).name
    return "python" if program.startswith("python") else "sh" if program in ("sh", "dash") else ""


def _unreadable(path: Path) -> Iterator[Mistake]:
    language = language_of(path)
    try:
        text = path.read_bytes()
    except OSError as exc:
        yield Mistake(f"{shown(path)} cannot be read: {exc.strerror}", "look at its permissions")
        return
    if language == "python":
        try:
            ast.parse(text, str(path), feature_version=GUEST_PYTHON)
        except SyntaxError as exc:
            python = ".".join(map(str, GUEST_PYTHON))
            yield Mistake(f"{shown(path)}:{exc.lineno or 1}: {exc.msg}", f"it must compile under Python {python}, which a guest may have")
        except ValueError as exc:
            yield Mistake(f"{shown(path)}: {exc}", "a Python file is text")
    elif language == "sh" and which("sh"):
        done = process.run(["sh", "-n", str(path)], deadline=Deadline(_SHELL_LIMIT_S), check=False)
        if done.status != 0:
            # (dash says "FILE: LINE: Syntax error: ...", bash "FILE: line LINE: syntax error ...".)
            said = done.stderr.decode(errors="replace").strip().splitlines()[0].removeprefix(f"{path}: ").removeprefix("line ")
            line, _, what = said.partition(": ")
            at = f"{shown(path)}:{line}" if line.isdecimal() else shown(path)
            yield Mistake(f"{at}: {what if line.isdecimal() else said}", "the shell cannot read it: sh -n shows the same")


# --- the lab's modules ----------------------------------------------------------------------------------------------------------------


def mistakes_of_modules(lab: Lab) -> list[Mistake]:
    """What the experiment, the checks and their neighbours name and is not there."""
    found: list[Mistake] = []
    for path, module in lab.modules():
        try:
            tree = ast.parse(path.read_bytes(), str(path))
        except (OSError, SyntaxError, ValueError) as exc:
            raise UsageError(f"{shown(path)}: {exc}") from exc
        found += sorted([*_undefined(path, module), *_named(lab, path, tree)], key=lambda each: _line(each.what))
    return found


def _line(what: str) -> int:
    words = what.split(":")
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def _undefined(path: Path, module: ModuleType) -> Iterator[Mistake]:
    """Names that a function uses, and that neither the module nor Python defines."""
    codes = list(_code_of(module, path))
    known = {*vars(module), *vars(builtins)}.union(*(_names(code, _STORE) for code in codes))
    for code in codes:
        for name in _names(code, _LOAD) - known:
            used = [each for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL" and each.argval == name]
            line = next((each.positions.lineno for each in used if each.positions), None) or code.co_firstlineno
            what = f"{shown(path)}:{line}: the name {name!r} is not defined{nearest(name, {*known, *code.co_varnames})}"
            yield Mistake(what, "whatever comes to this line breaks there: define or import it")


_LOAD, _STORE, _EXTENDED = (dis.opmap[name] for name in ("LOAD_GLOBAL", "STORE_GLOBAL", "EXTENDED_ARG"))


def _names(code: CodeType, wanted: int) -> set[str]:
    """The global names that a function loads or stores. (By the bytes: `dis` takes a third of a second for a lab.)"""
    found, high = set(), 0
    for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        argument = high << 8 | low
        high = argument if operation == _EXTENDED else 0
        if operation == wanted:
            # (Since Python 3.11 the lowest bit of LOAD_GLOBAL's argument says whether a call follows.)
            found.add(code.co_names[argument >> 1 if operation == _LOAD else argument])
    return found


def _code_of(module: ModuleType, path: Path) -> Iterator[CodeType]:
    """The code of each function and method that stands in a module's file, and of those within them."""
    owners = [vars(module), *(vars(value) for value in vars(module).values() if isinstance(value, type))]
    todo = [value for owner in owners for value in owner.values() if isinstance(value, FunctionType)]
    codes = [function.__code__ for function in todo if function.__code__.co_filename == str(path)]
    while codes:
        code = codes.pop()
        yield code
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _named(lab: Lab, path: Path, tree: ast.Module) -> Iterator[Mistake]:
    """What is called or looked up by a name that stands there in quotes: scripts, guests, networks, parameters, files."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=call), args=[ast.Constant(value=str(name)), *_]):
                objection = _objection(lab, owner, call, name)
            case ast.Subscript(value=ast.Attribute(attr="parameters"), slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                objection = _unknown_parameter(lab, name)
            case _:
                continue
        if objection:
            yield Mistake(f"{shown(path)}:{node.lineno}: {objection.what}", objection.hint)


def _objection(lab: Lab, owner: ast.expr, call: str, name: str) -> Mistake | None:
    """What is wrong with a call that names something; None when nothing is, or when it is no call of the bench's."""
    if call in ("script", "here") or (call == "start" and Path(name).suffix in (".py", ".sh")):
        return _unknown_script(lab, name)
    if isinstance(owner, ast.Attribute) and owner.attr == "parameters":
        return _unknown_parameter(lab, name)
    if isinstance(owner, ast.Name) and owner.id == "bench" and call in _OF_THE_BENCH:
        return _OF_THE_BENCH[call](lab, name)
    return None


def _unknown(kind: str, name: str, known: Mapping[str, object] | list[str], hint: str) -> Mistake | None:
    if name in known:
        return None
    return Mistake(f"there is no {kind} named {name!r}{nearest(name, list(known))}", hint)


def _unknown_script(lab: Lab, name: str) -> Mistake | None:
    scripts = [path.relative_to(lab.directory / "guest").as_posix() for path in lab.guest_files()]
    return _unknown("guest script", name, scripts, f"scripts lie in guest/; there are: {', '.join(scripts) or 'none'}")


def _unknown_parameter(lab: Lab, name: str) -> Mistake | None:
    known = lab.definition.parameters
    return _unknown("parameter", name, known, f"declare it in lab.yaml; there are: {', '.join(known) or 'none'}")


def _unknown_guest(lab: Lab, name: str) -> Mistake | None:
    known = lab.definition.guests
    return _unknown("guest", name, known, f"declare it in lab.yaml; there are: {', '.join(known)}")


def _unknown_network(lab: Lab, name: str) -> Mistake | None:
    known = lab.definition.networks
    return _unknown("network", name, known, f"declare it in lab.yaml; there are: {', '.join(known) or 'none'}")


def _missing_file(lab: Lab, name: str) -> Mistake | None:
    if (lab.directory / name).is_file():
        return None
    return Mistake(f"the lab has no file {name}", "its path begins at the lab's folder")


def _bad_data(lab: Lab, name: str) -> Mistake | None:
    missing = _missing_file(lab, name)
    if missing is None:
        try:
            load(lab.directory / name)
        except UsageError as exc:
            return Mistake(exc.message, exc.hint)
    return missing


_OF_THE_BENCH: Mapping[str, Callable[[Lab, str], Mistake | None]] = {
    "guest": _unknown_guest,
    "network": _unknown_network,
    "render": _missing_file,
    "data": _bad_data,
}
